"""Recurrence of a window: how much better the best period explains the newest block than an average one.

`1 - min_p D_p / mean_p D_p`, D_p the mean over the newest 16 entries of |x_t - x_(t-p)|, p <= 96. A loop of
period p makes D_p small whatever the text; needs no token ids (detector.md §2).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.detector.windows import BLOCK, MAX_LAG, TAIL
from tcd.scratch import scratch

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

#: A mean distance under this counts as this: a constant window is a perfect recurrence.
_TINY: Final = np.array([1e-9], np.float32)
_ONE: Final = np.ones(1, np.float32)
_MINUS_TWO: Final = np.full(1, -2.0, np.float32)
_SHARE: Final = np.array([1.0 / MAX_LAG], np.float32)
#: Lags of the columns of a distance table: column k is lag MAX_LAG - k.
_LAGS: Final = MAX_LAG - np.arange(MAX_LAG)
_ITEM: Final = 4
#: Rows whose tables fit the second-level cache together.
_CHUNK: Final = 64
#: Makes sums of 96 x 16 differences of FP32 numbers of any size finite.
_SHRINK: Final = np.float32(2.0**-16)


def _ratio(distance: F32, counts: I64 | int) -> tuple[F32, F32]:
    """1 - min/mean over the lags that the window is long enough for, and the mean; (N, MAX_LAG) distances to (N,)."""
    if (counts if isinstance(counts, int) else int(counts.min(initial=TAIL))) >= TAIL:
        mean = np.add.reduce(distance, axis=1)
        mean *= _SHARE
        least = np.minimum.reduce(distance, axis=1)
    else:
        lags = np.array(counts - BLOCK).reshape(-1, 1)
        known = lags >= _LAGS
        mean = np.add.reduce(np.where(known, distance, np.float32(0.0)), axis=1)
        mean *= (1.0 / np.minimum(np.maximum(lags[:, 0], 1), MAX_LAG)).astype(np.float32)
        least = np.minimum.reduce(np.where(known, distance, np.float32(np.inf)), axis=1)
        least[np.broadcast_to(lags[:, 0] <= 0, least.shape)] = 0.0
    least /= np.maximum(mean, _TINY)
    return np.subtract(_ONE, least, out=least), mean


def _lagged(table: F32, step: int) -> F32:
    """View (BLOCK, N, MAX_LAG) whose [i, n, k] is entry i + k of row i of table n, rows `step` bytes apart."""
    shape, strides = (BLOCK, table.shape[0], MAX_LAG), (step + _ITEM, table.strides[0], _ITEM)
    # as_strided costs ten times as much
    return np.ndarray(shape, np.float32, table, 0, strides)


def _scalar(newest: F32, counts: I64 | int) -> tuple[F32, F32]:
    n = newest.shape[0]
    distance = np.empty((n, MAX_LAG), np.float32)
    for start in range(0, n, _CHUNK):
        part = newest[start : start + _CHUNK]
        gap = scratch("gap", BLOCK, part.shape[0], MAX_LAG)
        np.subtract(part.T[MAX_LAG:, :, None], _lagged(part, 0), out=gap)
        # over the first axis: one long run per step, in one order whatever N is
        np.add.reduce(np.abs(gap, out=gap), axis=0, out=distance[start : start + _CHUNK])
    return _ratio(distance, counts)


def scalar(newest: F32, counts: I64 | int) -> F32:
    """Recurrence of scalar windows.

    Args:
        newest: (N, TAIL) right-aligned, C-contiguous.
        counts: valid counts, (N,) or one for all; meaningful from 2 BLOCK on.

    Returns:
        (N,) in [0, 1]; anything for a window with a NaN or infinity.
    """
    out, mean = _scalar(newest, counts)
    finite = np.isfinite(mean)
    if not finite.all():
        wild = ~finite
        out[wild], _ = _scalar(newest[wild] * _SHRINK, counts if isinstance(counts, int) else counts[wild])
    return out


def vector(table: F32, counts: I64 | int) -> F32:
    """Recurrence of vector windows by Euclidean distance.

    Args:
        table: (N, cols + 2, TAIL) right-aligned vectors by component; below them their squared norms, then ones.
        counts: valid vectors, (N,) or one for all.

    Returns:
        (N,) in [0, 1].
    """
    cols = table.shape[1] - 2
    n = table.shape[0]
    left = scratch("left", n, cols + 2, BLOCK)
    np.multiply(table[:, :cols, MAX_LAG:], _MINUS_TWO, out=left[:, :cols])
    left[:, cols:] = table[:, : cols - 1 : -1, MAX_LAG:]
    # |x|^2 + |y|^2 - 2 x y as one stacked product of fixed shape: its bits do not depend on N
    square = np.matmul(left.transpose(0, 2, 1), table, out=scratch("work", n, BLOCK, TAIL))
    # rounding leaves +-0 where two vectors are equal
    distance = np.abs(_lagged(square, square.strides[1]), out=scratch("gap", BLOCK, n, MAX_LAG))
    np.sqrt(distance, out=distance)
    return _ratio(np.add.reduce(distance, axis=0), counts)[0]
