"""Mahalanobis distance by forward substitution, batch-invariant: elementwise operations over the batch only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def mahalanobis(centred: F64, factor: F64) -> F64:
    """Distances sqrt(x' S^-1 x) with S = L L'.

    Args:
        centred: (N, d) vectors minus the reference mean.
        factor: (d, d) lower Cholesky factor L.

    Returns:
        (N,) distances. Solves L y = x column by column; the same bits for a row in any batch.
    """
    rest = np.ascontiguousarray(centred.T)
    for j in range(factor.shape[0]):
        rest[j] /= factor[j, j]
        rest[j + 1 :] -= factor[j + 1 :, j, None] * rest[j]
    np.multiply(rest, rest, out=rest)
    total = np.zeros(centred.shape[0])
    for y in rest:
        total += y
    return np.sqrt(total)


def ewma(window: F64, smoothing: float) -> F64:
    """MEWMA vector of right-aligned windows of centred rows, started at 0.

    Args:
        window: (N, R, d); rows a window does not have are zero, which is where the recursion starts.
        smoothing: r in Z = r x + (1 - r) Z.

    Returns:
        (N, d), scaled by sqrt((2 - r) / r) so that its reference covariance is that of one row.

    Source: Lowry, Woodall, Champ, Rigdon, A multivariate EWMA control chart, Technometrics 34 (1992).
    """
    age = np.arange(window.shape[1] - 1, -1, -1)
    weights = smoothing * (1.0 - smoothing) ** age * float(np.sqrt((2.0 - smoothing) / smoothing))
    return np.asarray(np.add.reduce(window * weights[:, None], axis=1))
