"""`tcd.exact` for tensors: the same operations in the same order."""

from __future__ import annotations

from typing import Any, Final

import torch

from tcd import exact
from tcd.calibration.conformal import QUANTUM, STATISTIC_LIMIT

#: Splits an FP64 number into two halves.
_SPLIT: Final = 2.0**27 + 1.0


def _polynomial(x: Any, coefficients: tuple[float, ...]) -> Any:
    out = torch.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        out = coefficient + x * out
    return out


def power_of_two(k: Any) -> Any:
    """2^k of INT64 k in [-1022, 1023], FP64, made of its bits: no library's `pow` is asked."""
    return ((k + 1023) << 52).view(torch.float64)


def exp(x: Any) -> Any:
    """Exponential of FP64 x <= 0, what is below -700 counting as -700."""
    x = x.clamp(min=exact.LEAST_EXPONENT)
    k = (x * exact.INVERSE_LN2).round()
    high = x - k * exact.LN2_HIGH
    low = k * exact.LN2_LOW
    r = high - low
    t = r * r
    c = r - t * _polynomial(t, exact.P)
    y = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    # a NaN has no exponent
    return y * power_of_two(torch.nan_to_num(k).long())


def log(x: Any) -> Any:
    """Natural logarithm of normal FP64 x > 0."""
    m, exponent = torch.frexp(x)
    above = 2.0 * m > exact.SQRT2
    f = torch.where(above, m, 2.0 * m) - 1.0
    e = torch.where(above, exponent, exponent - 1).double()
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    parts = z * _polynomial(w, exact.EVEN) + w * _polynomial(w, exact.ODD)
    half = 0.5 * f * f
    return e * exact.LN2_HIGH - ((half - (s * (half + parts) + e * exact.LN2_LOW)) - f)


def sqrt32(x: Any) -> Any:
    """Square root of FP32, correctly rounded: torch's own on a CPU may be one unit in the last place away."""
    return x.double().sqrt().float()


def sqrt(x: Any) -> Any:
    """Square root of FP64, correctly rounded.

    One Newton step from torch's, whose residual is exact: the square is split in two parts.

    Source: T. J. Dekker, A floating-point technique for extending the available precision, Numer. Math. 18, 1971.
    """
    y = x.sqrt()
    wide = y * _SPLIT
    high = wide - (wide - y)
    low = y - high
    square = y * y
    rest = ((high * high - square) + 2.0 * high * low) + low * low
    better = y + ((x - square) - rest) / (2.0 * y)
    return torch.where(better.isfinite(), better, y)


def log_sum_exp(a: Any, b: Any) -> Any:
    """Logarithm of exp(a) + exp(b)."""
    return torch.maximum(a, b) + log(1.0 + exp(-(a - b).abs()))


def ordered(values: Any, dim: int) -> Any:
    """Sum along a dimension, one after the other from the first."""
    first, *others = values.unbind(dim)
    total = first
    for other in others:
        total = total + other
    return total


def tree(lanes: Any) -> Any:
    """Sum over a last dimension of 2^k lanes, halves added to halves."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def laned(values: Any, lanes: int) -> Any:
    """Sum over a last dimension, a multiple of `lanes`: lane by lane in order, then `tree`."""
    return tree(ordered(values.reshape(*values.shape[:-1], values.shape[-1] // lanes, lanes), -2))


def quantise(values: Any) -> Any:
    """`tcd.calibration.conformal.quantise`."""
    return (values.clamp(-STATISTIC_LIMIT, STATISTIC_LIMIT) * QUANTUM).round() * (1.0 / QUANTUM) + 0.0
