"""Mahalanobis distance and the MEWMA vector, batch-invariant: no operation mixes rows of a batch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tcd.exact import ordered

F64 = NDArray[np.float64]


def whitener(factor: F64) -> F64:
    """Transposed inverse (d, d) of a lower Cholesky factor L, by which a row with covariance L L' becomes white.

    By forward substitution, each step a product of a row and a column: no BLAS or LAPACK, whose bits differ.
    """
    d = factor.shape[0]
    out = np.eye(d)
    for k in range(d):
        out[k, : k + 1] /= factor[k, k]
        out[k + 1 :, : k + 1] -= factor[k + 1 :, k : k + 1] * out[k, : k + 1]
    return np.ascontiguousarray(out.T)


def mahalanobis(centred: F64, factor: F64, white: F64 | None = None) -> F64:
    """Distances sqrt(x' S^-1 x) with S = L L'.

    Args:
        centred: (N, d) vectors minus the reference mean.
        factor: (d, d) lower Cholesky factor L.
        white: `whitener(factor)` where it is known already.

    Returns:
        (N,) distances. Sums in one order: the same bits for a row in any batch and on any machine.
    """
    white = whitener(factor) if white is None else white
    y = np.zeros(centred.shape)
    for i in range(centred.shape[1]):
        y[:, i:] += centred[:, i : i + 1] * white[i, i:]
    return np.asarray(np.sqrt(ordered(y * y, axis=1)))


def weights(rows: int, smoothing: float) -> F64:
    """Weights (rows,) of the MEWMA vector, oldest first, scaled as `ewma` says."""
    out = np.empty(rows)
    weight = smoothing * math.sqrt((2.0 - smoothing) / smoothing)
    for age in range(rows):
        out[rows - 1 - age] = weight
        weight *= 1.0 - smoothing
    return out


def ewma(window: F64, smoothing: float) -> F64:
    """MEWMA vector of right-aligned windows of centred rows, started at 0.

    Args:
        window: (N, R, d); rows a window does not have are zero, which is where the recursion starts.
        smoothing: r in Z = r x + (1 - r) Z.

    Returns:
        (N, d), scaled by sqrt((2 - r) / r) so that its reference covariance is that of one row.

    Source: Lowry, Woodall, Champ, Rigdon, A multivariate EWMA control chart, Technometrics 34 (1992).
    """
    return ordered(window * weights(window.shape[1], smoothing)[:, None], axis=1)


def contributions(centred: F64, white: F64) -> F64:
    """Shares (N, d) of each feature in the squared distances: x * (S^-1 x), which sum to x' S^-1 x by row.

    Args:
        centred: (N, d) vectors minus the reference mean.
        white: `whitener` of the reference.

    A share may be negative where correlated features explain each other.
    """
    y = np.matmul(centred[:, None, :], white)
    return np.asarray(centred * np.matmul(y, white.T)[:, 0])
