"""Recurrence of a window: how much better the best period explains the newest block than an average one.

`1 - min_p D_p / mean_p D_p`, D_p the mean over the newest 16 entries of |x_t - x_(t-p)|, p <= 96. A loop of
period p makes D_p small whatever the text; needs no token ids (detector.md §2).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from tcd.detector.windows import BLOCK, MAX_LAG, TAIL

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: A mean distance under this counts as this: a constant window is a perfect recurrence.
_TINY: Final = 1e-9
#: Lags of the columns of a distance table: column k is lag MAX_LAG - k.
_LAGS: Final = MAX_LAG - np.arange(MAX_LAG)


def _ratio(distance: F64, counts: I64) -> F64:
    """1 - min/mean over the lags that the window is long enough for; (N, MAX_LAG) distances to (N,)."""
    if (counts >= TAIL).all():
        mean = np.add.reduce(distance, axis=1) / float(MAX_LAG)
        least = np.minimum.reduce(distance, axis=1)
    else:
        known = (counts - BLOCK)[:, None] >= _LAGS
        mean = np.add.reduce(distance * known, axis=1) / np.clip(counts - BLOCK, 1, MAX_LAG)
        least = np.minimum.reduce(np.where(known, distance, np.inf), axis=1)
        least[counts <= BLOCK] = 0.0
    return np.asarray(1.0 - least / np.maximum(mean, _TINY))


def _lagged(table: NDArray[Any], step: int) -> NDArray[Any]:
    """View (N, BLOCK, MAX_LAG) whose [i, k] is entry i + k of row i of a table, rows `step` bytes apart."""
    item = table.strides[-1]
    return as_strided(table, (table.shape[0], BLOCK, MAX_LAG), (table.strides[0], step + item, item))


def scalar(newest: F64, counts: I64) -> F64:
    """Recurrence of scalar windows.

    Args:
        newest: (N, TAIL) right-aligned, C-contiguous.
        counts: (N,) valid counts; meaningful from 2 BLOCK on.

    Returns:
        (N,) in [0, 1].
    """
    gap = newest[:, MAX_LAG:, None] - _lagged(newest, 0)
    return _ratio(np.add.reduce(np.abs(gap, out=gap), axis=1), counts)


def vector(newest: F32, squares: F32, counts: I64) -> F64:
    """Recurrence of vector windows by Euclidean distance.

    Args:
        newest: (N, TAIL, cols) right-aligned, C-contiguous, of about unit size.
        squares: (N, TAIL) squared norms of its rows.
        counts: (N,) valid rows.

    Returns:
        (N,) in [0, 1].
    """
    # stacked matmul: one product of fixed shape per row of the batch, so its bits do not depend on N
    cross = np.matmul(newest[:, MAX_LAG:], newest.transpose(0, 2, 1))
    square = _lagged(cross, cross.strides[1]) * np.float32(-2.0)
    square += squares[:, MAX_LAG:, None]
    square += _lagged(squares, 0)
    np.sqrt(np.maximum(square, np.float32(0.0), out=square), out=square)
    return _ratio(np.add.reduce(square, axis=1).astype(np.float64), counts)
