"""Arithmetic whose bits no CPU, BLAS or numpy build changes, the same as in `tcd/native/kernel.h`.

Receipts are replayed bit for bit, so scoring uses only + - * / sqrt, comparisons and sums in a stated order:
numpy's own exp, log, `matmul` and pairwise sums differ between builds and CPUs. Pure, batch-first.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
_A = TypeVar("_A", NDArray[np.float32], NDArray[np.float64])

#: Constants of fdlibm's exponential and logarithm.
INVERSE_LN2: Final = 1.44269504088896338700e00
LN2_HIGH: Final = 6.93147180369123816490e-01
LN2_LOW: Final = 1.90821492927058770002e-10
SQRT2: Final = 1.41421356237309514547
LEAST_EXPONENT: Final = -700.0
P: Final = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
ODD: Final = (3.999999999940941908e-01, 2.222219843214978396e-01, 1.531383769920937332e-01)
EVEN: Final = (6.666666666666735130e-01, 2.857142874366239149e-01, 1.818357216161805012e-01, 1.479819860511658591e-01)


def _polynomial(x: F64, coefficients: tuple[float, ...]) -> F64:
    """c0 + x (c1 + x (c2 + ...))."""
    out = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        out = coefficient + x * out
    return out


def exp(x: F64) -> F64:
    """Exponential of x <= 0, what is below -700 counting as -700; any shape.

    Source: fdlibm, e_exp.c (Sun Microsystems 1993), error under one unit in the last place.
    """
    x = np.maximum(x, LEAST_EXPONENT)
    k = np.rint(x * INVERSE_LN2)
    high = x - k * LN2_HIGH
    low = k * LN2_LOW
    r = high - low
    t = r * r
    c = r - t * _polynomial(t, P)
    y = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    return np.asarray(np.ldexp(y, k.astype(np.int32)))


def log(x: F64) -> F64:
    """Natural logarithm of normal x > 0; any shape.

    Source: fdlibm, e_log.c (Sun Microsystems 1993), error under one unit in the last place.
    """
    m, exponent = np.frexp(x)
    above = 2.0 * m > SQRT2
    f = np.where(above, m, 2.0 * m) - 1.0
    e = np.where(above, exponent, exponent - 1).astype(np.float64)
    s = f / (2.0 + f)
    z: F64 = np.multiply(s, s)
    w: F64 = np.multiply(z, z)
    parts = z * _polynomial(w, EVEN) + w * _polynomial(w, ODD)
    half = 0.5 * f * f
    return np.asarray(e * LN2_HIGH - ((half - (s * (half + parts) + e * LN2_LOW)) - f))


def log_sum_exp(a: F64, b: F64) -> F64:
    """Logarithm of exp(a) + exp(b); any shape."""
    return np.asarray(np.maximum(a, b) + log(1.0 + exp(-np.abs(a - b))))


def ordered(values: _A, axis: int) -> _A:
    """Sum along an axis, one after the other from the first."""
    # a running sum cannot be made in another order
    return np.asarray(np.add.accumulate(values, axis=axis).take(-1, axis=axis))


def tree(lanes: _A) -> _A:
    """Sum over a last axis of 2^k lanes, halves added to halves."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def laned(values: _A, lanes: int) -> _A:
    """Sum over a last axis, a multiple of `lanes`: lane by lane in order, then `tree`."""
    shape = (*values.shape[:-1], values.shape[-1] // lanes, lanes)
    return tree(ordered(values.reshape(shape), axis=len(shape) - 2))
