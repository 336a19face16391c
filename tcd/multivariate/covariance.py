"""Shrunk covariance estimators, as in scikit-learn, and the Cholesky factor of the reference.

Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices, JMVA 88 (2004);
Chen, Wiesel, Eldar, Hero, Shrinkage algorithms for MMSE covariance estimation, IEEE TSP 58 (2010).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: First jitter that is tried when Cholesky fails, relative to the mean variance; tenfold each time.
_JITTER: Final = 1e-10
_TRIES: Final = 8


@dataclass(frozen=True, slots=True)
class Covariance:
    """Centre (d,), covariance (d, d) and the weight of the identity target in it."""

    mean: F64
    covariance: F64
    shrinkage: float


def _moments(samples: F64, *, robust: bool = False) -> tuple[F64, F64, F64]:
    """Centre (d,), deviations from it (n, d), and their second moments (d, d) divided by n."""
    data = np.asarray(samples, np.float64)
    if data.ndim != 2 or data.shape[0] < 1:  # noqa: PLR2004 - (n, d)
        msg = f"samples of shape {data.shape}: (n, d) with n >= 1 expected"
        raise ValueError(msg)
    mean = np.asarray(np.median(data, axis=0)) if robust else data.mean(axis=0)
    centred = data - mean
    return mean, centred, centred.T @ centred / data.shape[0]


def _shrunk(mean: F64, empirical: F64, weight: float) -> Covariance:
    d = mean.shape[0]
    covariance = (1.0 - weight) * empirical
    covariance.flat[:: d + 1] += weight * float(np.trace(empirical)) / d
    return Covariance(mean, covariance, weight)


def ledoit_wolf(samples: F64, *, robust: bool = False) -> Covariance:
    """Ledoit-Wolf estimate of (n, d) samples, equal to scikit-learn's `LedoitWolf` to rounding.

    Args:
        samples: (n, d).
        robust: centre on the median of each column, which half of the rows cannot move, instead of on the mean; the
            covariance is then that of the deviations from it (scikit-learn: `assume_centered`).

    Raises:
        ValueError: if `samples` is not (n, d) with n >= 1.
    """
    mean, centred, empirical = _moments(samples, robust=robust)
    quartic = float(((centred**2).sum(axis=1) ** 2).sum())
    return ledoit_wolf_moments(mean, empirical, quartic, centred.shape[0])


def ledoit_wolf_moments(mean: F64, empirical: F64, quartic: float, n: int) -> Covariance:
    """Ledoit-Wolf estimate from the moments of n rows.

    Args:
        mean: (d,) their mean.
        empirical: (d, d) their covariance, divided by n.
        quartic: sum of the fourth powers of their distances from the mean.
        n: number of rows.
    """
    d = mean.shape[0]
    if d == 1:
        return _shrunk(mean, empirical, 0.0)
    trace = float(np.trace(empirical))
    target = trace / d
    delta_raw = float((empirical**2).sum())
    beta = (quartic / n - delta_raw) / (d * n)
    delta = (delta_raw - 2.0 * target * trace + d * target**2) / d
    beta = min(beta, delta)
    return _shrunk(mean, empirical, 0.0 if beta == 0 else beta / delta)


def oas(samples: F64, *, robust: bool = False) -> Covariance:
    """Oracle approximating shrinkage of (n, d) samples, equal to scikit-learn's `OAS` to rounding.

    Args:
        samples: (n, d).
        robust: as for `ledoit_wolf`.

    Raises:
        ValueError: if `samples` is not (n, d) with n >= 1.
    """
    mean, centred, empirical = _moments(samples, robust=robust)
    n, d = centred.shape
    if d == 1:
        return _shrunk(mean, empirical, 0.0)
    alpha = float((empirical**2).mean())
    target = float(np.trace(empirical)) / d
    numerator = alpha + target**2
    denominator = (n + 1.0) * (alpha - target**2 / d)
    return _shrunk(mean, empirical, 1.0 if denominator == 0 else min(numerator / denominator, 1.0))


def _factor(matrix: F64) -> F64 | None:
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return None


def cholesky(covariance: F64) -> tuple[F64, float]:
    """Lower Cholesky factor, and what had to be added to the diagonal for it to exist (0 normally).

    Raises:
        ValueError: if no small jitter makes the matrix positive definite.
    """
    scale = float(np.trace(covariance)) / covariance.shape[0]
    jitters = [0.0, *(max(scale, 1e-300) * _JITTER * 10.0**attempt for attempt in range(_TRIES))]
    for jitter in jitters:
        factor = _factor(covariance + jitter * np.eye(covariance.shape[0]))
        if factor is not None:
            return factor, jitter
    msg = "the covariance is not positive definite"
    raise ValueError(msg)
