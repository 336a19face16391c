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

from tcd.detector.windows import BLOCK, MAX_LAG
from tcd.exact import laned
from tcd.scratch import scratch

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

#: The shorter block over which distances are averaged: half of them are known after half the delay.
HALF: Final = BLOCK // 2
#: A mean distance under this counts as this: a constant window is a perfect recurrence.
TINY: Final = np.float32(1e-9)
#: Lags of the columns of a distance table: column k is lag MAX_LAG - k.
_LAGS: Final = MAX_LAG - np.arange(MAX_LAG)
LANES: Final = 16
_ITEM: Final = 4
#: Makes sums of 96 x 16 differences of FP32 numbers of any size finite.
SHRINK: Final = np.float32(2.0**-16)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Recurrence of N windows over the newest 16 entries and over the newest 8.

    Attributes:
        ratio: (N, 2) in [0, 1].
        share: (N, 2, MAX_LAG) distances over their mean; to be added up with those of other signals.
    """

    ratio: F32
    share: F32


def _mean(distance: F32, known: NDArray[np.bool_], counts: I64) -> F32:
    """Mean over the known lags; (N, K, MAX_LAG) to (N, K)."""
    total = laned(np.where(known, distance, np.float32(0.0)), LANES)
    return total * (1.0 / np.minimum(np.maximum(counts - BLOCK, 1), MAX_LAG)).astype(np.float32)[:, None]


def _joined(share: F32, counts: I64) -> tuple[F32, F32]:
    """`joined`, and the means over the known lags."""
    known = ((counts - BLOCK)[:, None] >= _LAGS)[:, None]
    mean = _mean(share, known, counts)
    least = np.minimum.reduce(np.where(known, share, np.float32(np.inf)), axis=2)
    least[~known[:, 0, -1]] = 0.0
    return np.float32(1.0) - least / np.maximum(mean, TINY), mean


def joined(share: F32, counts: I64) -> F32:
    """1 - min/mean over the known lags of (N, K, MAX_LAG) distances; (N, K).

    Args:
        share: distances, or sums of the `share`s of several signals at the same lag.
        counts: (N,) valid entries of the shortest of them.
    """
    return _joined(share, counts)[0]


def _recurrence(distance: F32, counts: I64) -> tuple[Recurrence, F32]:
    """Recurrence of (N, 2, MAX_LAG) distances, and their means (N, 2)."""
    ratio, mean = _joined(distance, counts)
    distance /= np.maximum(mean, TINY)[:, :, None]
    return Recurrence(ratio, distance), mean


def _sums(gap: F32) -> F32:
    """Sums over the newest 16 and the newest 8 of (BLOCK, N, MAX_LAG) distances; (N, 2, MAX_LAG)."""
    out = np.zeros((gap.shape[1], 2, MAX_LAG), np.float32)
    for row in gap[:HALF]:
        out[:, 0] += row
    for row in gap[HALF:]:
        out[:, 1] += row
    out[:, 0] += out[:, 1]
    return out


def _lagged(table: F32) -> F32:
    """View (BLOCK, N, MAX_LAG) whose [i, n, k] is entry i + k of row n of (N, TAIL), last axis contiguous."""
    shape, strides = (BLOCK, table.shape[0], MAX_LAG), (_ITEM, table.strides[0], _ITEM)
    return np.lib.stride_tricks.as_strided(table, shape, strides)


def _scalar(newest: F32, counts: I64) -> tuple[Recurrence, F32]:
    gap = scratch("gap", BLOCK, newest.shape[0], MAX_LAG)
    np.subtract(newest.T[MAX_LAG:, :, None], _lagged(newest), out=gap)
    return _recurrence(_sums(np.abs(gap, out=gap)), counts)


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
        again, _ = _scalar(newest[wild] * SHRINK, counts[wild])
        out.ratio[wild], out.share[wild] = again.ratio, again.share
    return out


def vector(table: F32, counts: I64) -> Recurrence:
    """Recurrence of vector windows by Euclidean distance.

    Args:
        table: (N, cols, TAIL) right-aligned vectors by component.
        counts: (N,) valid vectors; meaningful from 2 BLOCK on.
    """
    n, cols, _ = table.shape
    square = np.zeros((BLOCK, n, MAX_LAG), np.float32)
    gap = scratch("gap", BLOCK, n, MAX_LAG)
    for c in range(cols):
        column = table[:, c]
        np.subtract(column.T[MAX_LAG:, :, None], _lagged(column), out=gap)
        square += np.multiply(gap, gap, out=gap)
    return _recurrence(_sums(np.sqrt(square, out=square)), counts)[0]
