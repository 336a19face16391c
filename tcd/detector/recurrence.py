"""Recurrence of a window: how much better the best period explains the newest block than an average one.

`1 - min_p D_p / mean_p D_p`, D_p the mean over the newest 16 entries of |x_t - x_(t-p)|, p <= 96, and the same
over the newest 8. A loop of period p makes D_p small whatever the text, in all signals at the same p; needs no
token ids (detector.md §2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.detector.windows import BLOCK, MAX_LAG, TAIL
from tcd.scratch import scratch

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

#: The shorter block over which distances are averaged: half of them are known after half the delay.
HALF: Final = BLOCK // 2
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


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Recurrence of N windows over the newest 16 entries and over the newest 8.

    Attributes:
        ratio: (N, 2) in [0, 1].
        share: (N, 2, MAX_LAG) distances over their mean; to be added up with those of other signals.
    """

    ratio: F32
    share: F32


def _known(counts: I64) -> NDArray[np.bool_] | None:
    """(N, MAX_LAG): lags that a window is long enough for; None where all of them are."""
    if int(counts.min(initial=TAIL)) >= TAIL:
        return None
    return np.asarray((counts - BLOCK)[:, None] >= _LAGS)


def _mean(distance: F32, known: NDArray[np.bool_] | None, counts: I64) -> F32:
    """Mean over the known lags; (N, 2, MAX_LAG) to (N, 2)."""
    if known is None:
        mean = np.add.reduce(distance, axis=2)
        mean *= _SHARE
        return np.asarray(mean)
    mean = np.add.reduce(np.where(known[:, None], distance, np.float32(0.0)), axis=2)
    mean *= (1.0 / np.minimum(np.maximum(counts - BLOCK, 1), MAX_LAG)).astype(np.float32)[:, None]
    return np.asarray(mean)


def joined(share: F32, counts: I64) -> F32:
    """1 - min/mean over the known lags of (N, K, MAX_LAG) distances; (N, K), 0 without a known lag.

    Args:
        share: distances, or sums of the `share`s of several signals at the same lag.
        counts: (N,) valid entries of the shortest of them.
    """
    known = _known(counts)
    mean = _mean(share, known, counts)
    if known is None:
        least = np.minimum.reduce(share, axis=2)
    else:
        least = np.minimum.reduce(np.where(known[:, None], share, np.float32(np.inf)), axis=2)
        least[~known[:, -1]] = 0.0
    least /= np.maximum(mean, _TINY)
    return np.subtract(_ONE, least, out=least)


def _recurrence(distance: F32, counts: I64) -> tuple[Recurrence, F32]:
    """Recurrence of (N, 2, MAX_LAG) distances, and their means (N, 2)."""
    mean = _mean(distance, _known(counts), counts)
    ratio = joined(distance, counts)
    distance /= np.maximum(mean, _TINY)[:, :, None]
    return Recurrence(ratio, distance), mean


def _sums(gap: F32, out: F32) -> None:
    """Sums over the newest 16 and the newest 8 of (BLOCK, N, MAX_LAG) distances into (N, 2, MAX_LAG)."""
    # over the first axis: one long run per step, in one order whatever N is
    np.add.reduce(gap[HALF:], axis=0, out=out[:, 1])
    np.add.reduce(gap[:HALF], axis=0, out=out[:, 0])
    out[:, 0] += out[:, 1]


def _lagged(table: F32, step: int) -> F32:
    """View (BLOCK, N, MAX_LAG) whose [i, n, k] is entry i + k of row i of table n, rows `step` bytes apart."""
    shape, strides = (BLOCK, table.shape[0], MAX_LAG), (step + _ITEM, table.strides[0], _ITEM)
    # as_strided costs ten times as much
    return np.ndarray(shape, np.float32, table, 0, strides)


def _scalar(newest: F32, counts: I64) -> tuple[Recurrence, F32]:
    n = newest.shape[0]
    distance = np.empty((n, 2, MAX_LAG), np.float32)
    for start in range(0, n, _CHUNK):
        part = newest[start : start + _CHUNK]
        gap = scratch("gap", BLOCK, part.shape[0], MAX_LAG)
        np.subtract(part.T[MAX_LAG:, :, None], _lagged(part, 0), out=gap)
        _sums(np.abs(gap, out=gap), distance[start : start + _CHUNK])
    return _recurrence(distance, counts)


def scalar(newest: F32, counts: I64) -> Recurrence:
    """Recurrence of scalar windows.

    Args:
        newest: (N, TAIL) right-aligned, C-contiguous.
        counts: (N,) valid counts; meaningful from 2 BLOCK on.

    Returns:
        Anything for a window with a NaN or infinity.
    """
    out, mean = _scalar(newest, counts)
    wild = ~np.isfinite(mean[:, 0])
    if wild.any():
        again, _ = _scalar(newest[wild] * _SHRINK, counts[wild])
        out.ratio[wild], out.share[wild] = again.ratio, again.share
    return out


def vector(table: F32, counts: I64) -> Recurrence:
    """Recurrence of vector windows by Euclidean distance.

    Args:
        table: (N, cols + 2, TAIL) right-aligned vectors by component; below them their squared norms, then ones.
        counts: (N,) valid vectors.
    """
    cols = table.shape[1] - 2
    n = table.shape[0]
    left = scratch("left", n, cols + 2, BLOCK)
    np.multiply(table[:, :cols, MAX_LAG:], _MINUS_TWO, out=left[:, :cols])
    left[:, cols:] = table[:, : cols - 1 : -1, MAX_LAG:]
    # |x|^2 + |y|^2 - 2 x y as one stacked product of fixed shape: its bits do not depend on N
    square = np.matmul(left.transpose(0, 2, 1), table, out=scratch("work", n, BLOCK, TAIL))
    # rounding leaves +-0 where two vectors are equal
    gap = np.abs(_lagged(square, square.strides[1]), out=scratch("gap", BLOCK, n, MAX_LAG))
    distance = np.empty((n, 2, MAX_LAG), np.float32)
    _sums(np.sqrt(gap, out=gap), distance)
    return _recurrence(distance, counts)[0]
