"""Windows of a batch: validation of counts, masked copies, right-aligned tails, levels against the past.

Every operation is elementwise, a gather, a sequential prefix sum or a reduction of fixed length over a row's own
values, so that a row's bits do not depend on its padding or its neighbours (triton.md §6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.contract import MAX_FEATURE_COLS, MAX_FEATURE_ROWS, MAX_FEATURE_VALUES, MAX_WINDOW, Length

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: The newest block that is compared with the past.
BLOCK: Final = 16
#: Longest loop period that recurrence looks for.
MAX_LAG: Final = 96
#: Length of a right-aligned tail: the newest block and one period before it.
TAIL: Final = BLOCK + MAX_LAG


@dataclass(frozen=True, slots=True)
class Counts:
    """Valid counts of a batch, each (N,) int64; rows whose counts do not fit are all zero and `bad`."""

    trace: I64
    entropy: I64
    spectrum: I64
    rows: I64
    cols: I64
    bad: Bool


def features_fit(rows: I64, cols: I64, width: int) -> Bool:
    """Whether (rows, cols) of FEATURES fit the contract and a tensor of this width; (N,)."""
    empty = (rows == 0) & (cols >= 0)
    inside = (rows >= 0) & (cols > 0) & (rows <= MAX_FEATURE_ROWS) & (cols <= MAX_FEATURE_COLS)
    return np.asarray(empty | (inside & (rows * cols <= min(width, MAX_FEATURE_VALUES))), np.bool_)


def counts_of(lengths: NDArray[np.generic], *, trace: int, entropy: int, spectrum: int, features: int) -> Counts:
    """Read LENGTHS (N, 6) against the widths of the tensors."""
    table = lengths.astype(np.int64)
    scalar = table[:, : Length.FEATURE_ROWS]
    limits = np.array([min(width, MAX_WINDOW) for width in (trace, entropy, spectrum)])
    good = ((scalar >= 0) & (scalar <= limits)).all(axis=1)
    good &= features_fit(table[:, Length.FEATURE_ROWS], table[:, Length.FEATURE_COLS], features)
    table *= good[:, None]
    table[:, Length.FEATURE_COLS] *= table[:, Length.FEATURE_ROWS] > 0
    return Counts(
        trace=table[:, Length.TRACE],
        entropy=table[:, Length.ENTROPY],
        spectrum=table[:, Length.SPECTRUM],
        rows=table[:, Length.FEATURE_ROWS],
        cols=table[:, Length.FEATURE_COLS],
        bad=~good,
    )


def masked(values: NDArray[np.generic], counts: I64, width: int | None = None) -> tuple[F64, Bool]:
    """FP64 copy with zeros beyond each row's count, and which rows hold a NaN or infinity.

    Args:
        values: (N, W) numbers.
        counts: (N,) valid counts, at most W.
        width: width of the copy, at least the largest count, which it is by default.

    Returns:
        (N, width) values, all finite, and (N,) flags. FP32 range is kept: squares and sums stay finite in FP64.
    """
    longest = int(counts.max(initial=0))
    width = longest if width is None else width
    out = np.zeros((values.shape[0], width))
    out[:, :longest] = values[:, :longest]
    if (counts != width).any():
        out[np.arange(width) >= counts[:, None]] = 0.0
    # a sum of finite FP32 numbers is finite in FP64
    wrong: Bool = ~np.isfinite(np.add.reduce(out, axis=1))
    if wrong.any():
        out[wrong] = 0.0
    return out, wrong


def tail(values: NDArray[np.float64], counts: I64, length: int) -> F64:
    """The newest `length` entries along axis 1, right-aligned, zeros where a row is shorter. C-contiguous."""
    n, width = values.shape[:2]
    out = np.zeros((n, length, *values.shape[2:]))
    if width == 0:
        return out
    if (counts == width).all():
        take = min(length, width)
        out[:, length - take :] = values[:, width - take :]
        return out
    index = counts[:, None] - length + np.arange(length)
    rows, places = np.nonzero(index >= 0)
    out[rows, places] = values[rows, index[rows, places]]
    return out


def difference(values: F64, counts: I64, mean: F64) -> F64:
    """Mean of the newest block minus the mean of the generation's own past, (N,).

    Args:
        values: (N, W) masked values.
        counts: (N,) valid counts.
        mean: (N,) means of the newest block.

    Divided by sqrt(1 + 16/m), m the length of the past; 0 while m is under one block.
    """
    past = counts - BLOCK
    known = past >= BLOCK
    if not known.any():
        return np.zeros_like(mean)
    prefix = np.cumsum(values, axis=1)
    before = prefix[np.arange(values.shape[0]), np.maximum(past - 1, 0)]
    length = np.maximum(past, 1).astype(np.float64)
    return np.asarray((mean - before / length) / np.sqrt(1.0 + BLOCK / length) * known)
