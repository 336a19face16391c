"""Mahalanobis distance and the MEWMA vector, batch-invariant: no operation mixes rows of a batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def whitener(factor: F64) -> F64:
    """Transposed inverse (d, d) of a lower Cholesky factor L, by which a row with covariance L L' becomes white."""
    return np.ascontiguousarray(np.tril(np.linalg.inv(factor)).T)


def mahalanobis(centred: F64, factor: F64, white: F64 | None = None) -> F64:
    """Distances sqrt(x' S^-1 x) with S = L L'.

    Args:
        centred: (N, d) vectors minus the reference mean.
        factor: (d, d) lower Cholesky factor L.
        white: `whitener(factor)` where it is known already.

    Returns:
        (N,) distances. One product of fixed shape per row: the same bits for a row in any batch.
    """
    y = np.matmul(centred[:, None, :], whitener(factor) if white is None else white)[:, 0]
    return np.asarray(np.sqrt(np.add.reduce(np.multiply(y, y, out=y), axis=1)))


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


def contributions(centred: F64, white: F64) -> F64:
    """Shares (N, d) of each feature in the squared distances: x * (S^-1 x), which sum to x' S^-1 x by row.

    Args:
        centred: (N, d) vectors minus the reference mean.
        white: `whitener` of the reference.

    A share may be negative where correlated features explain each other.
    """
    y = np.matmul(centred[:, None, :], white)
    return np.asarray(centred * np.matmul(y, white.T)[:, 0])
