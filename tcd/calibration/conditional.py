"""Other forms of the conformal p-value: given the calibration set with confidence, smoothed, weighted. Pure.

Bates, Candes, Lei, Romano, Sesia, Testing for outliers with conformal p-values, Annals of Statistics 51 (2023);
Vovk et al., Algorithmic Learning in a Random World, 2005 (smoothed); Tibshirani, Barber, Candes, Ramdas, Conformal
prediction under covariate shift, NeurIPS 2019 (weighted).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from tcd.calibration.assets import DetectorAsset, MultivariateAsset

F64 = NDArray[np.float64]

#: Ratio of neighbouring places of the grid on which the confidence is spent.
FACTOR: Final = 1.25


def grid(n: int) -> list[int]:
    """Counts k in 0..n-1 on which the confidence is spent: 0, 1, then at least 1.25 times the last."""
    out = [0]
    while (following := max(out[-1] + 1, math.ceil(FACTOR * out[-1]))) < n:
        out.append(following)
    return out


def conditional_table(n: int, *, delta: float = 0.01, tables: int = 1) -> F64:
    """p-values given the set, by k = #{calibration >= s}; (n + 1,), ascending, the last one 1.

    With confidence 1 - delta over calibration sets, all of these hold at once: P(p <= u | set) <= u. Looked up by
    `tcd.calibration.conformal.session_p`.

    Args:
        n: size of the calibration table.
        delta: probability that the set is too lucky for the claim.
        tables: tables in use, among which delta is split.

    Raises:
        ValueError: if n or `tables` is under 1 or delta is not inside (0, 1).
    """
    if n < 1 or tables < 1 or not 0 < delta < 1:
        msg = f"n={n}, tables={tables}, delta={delta}: n and tables at least 1 and delta in (0, 1) expected"
        raise ValueError(msg)
    places = grid(n)
    share = delta / tables / len(places)
    out = np.ones(n + 1)
    start = 0
    for k in places:
        # a count between two places answers as the larger
        out[start : k + 1] = beta.ppf(1.0 - share, k + 1, n - k)
        start = k + 1
    return out


def with_confidence(
    detector: DetectorAsset, monitor: MultivariateAsset | None, delta: float
) -> tuple[DetectorAsset, MultivariateAsset | None]:
    """The assets with calibration-conditional p-values of hypotheses, `delta` split evenly over all of their tables.

    Raises:
        ValueError: if delta is not inside (0, 1).
    """
    count = len(detector.masks) + (monitor is not None)
    share = delta / count

    def adjusted(table: F64) -> F64:
        return conditional_table(table.shape[0], delta=share) if table.shape[0] else np.ones(1)

    masks = {number: replace(mask, adjusted=adjusted(mask.sessions)) for number, mask in detector.masks.items()}
    detector = replace(detector, masks=masks, delta=share * len(masks))
    if monitor is not None:
        monitor = replace(monitor, adjusted=adjusted(monitor.sessions), delta=share)
    return detector, monitor


def smoothed_p(table: F64, statistic: F64, uniform: F64) -> F64:
    """`(#{> s} + u (1 + #{= s})) / (n + 1)`: exactly uniform for exchangeable data; u from an HMAC of the request."""
    n = table.shape[0]
    above = n - table.searchsorted(statistic, side="right")
    equal = n - table.searchsorted(statistic) - above
    return np.asarray((above + uniform * (1.0 + equal)) / (n + 1.0))


def weighted_p(table: F64, weights: F64, statistic: F64, weight: F64) -> F64:
    """`(w + sum of weights with calibration >= s) / (w + sum of weights)`, for a known shift of traffic.

    Args:
        table: (n,) calibration statistics, ascending.
        weights: (n,) their likelihood ratios, positive.
        statistic: any shape.
        weight: the likelihood ratio of each statistic's own row, of the same shape.

    Raises:
        ValueError: if a weight is not positive and finite, or the lengths differ.
    """
    if weights.shape != table.shape or not (np.isfinite(weights).all() and (weights > 0).all()):
        msg = "weights: one positive, finite number per calibration statistic expected"
        raise ValueError(msg)
    tail = np.concatenate([np.cumsum(weights[::-1])[::-1], [0.0]])
    return np.asarray((weight + tail[table.searchsorted(statistic)]) / (weight + tail[0]))
