"""Windows of a batch: validation of counts, newest values right-aligned, sums over a row's own past.

Every operation is elementwise, a copy or a reduction whose length follows from the row's own counts, so that a
row's bits do not depend on its padding or its neighbours (triton.md §6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.lookup import alike
from tcd.contract import MAX_FEATURE_COLS, MAX_FEATURE_ROWS, MAX_FEATURE_VALUES, MAX_WINDOW, Length
from tcd.exact import tree

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: The newest block that is compared with the past.
BLOCK: Final = 16
#: Longest loop period that recurrence looks for.
MAX_LAG: Final = 96
#: Length of a right-aligned tail: the newest block and one period before it.
TAIL: Final = BLOCK + MAX_LAG
#: Places of a tail, counted from the end.
_BACK: Final = np.arange(-TAIL, 0)
#: Values of a window that are widened together.
_CHUNK: Final = 16 * BLOCK
_COUNTED: Final = int(Length.FLAGS)


@dataclass(frozen=True, slots=True)
class Counts:
    """Valid counts of a batch; rows whose counts do not fit are all zero and `bad`.

    Attributes:
        table: (N, 5) int64: trace, entropy, spectrum, feature rows, feature columns.
        bad: (N,) rows whose counts did not fit.
        common: the row of the table that all rows share, None when they differ.
    """

    table: I64
    bad: Bool
    common: tuple[int, int, int, int, int] | None = None

    @property
    def trace(self) -> I64:
        """Tokens in TRACE, (N,)."""
        return self.table[:, Length.TRACE]

    @property
    def entropy(self) -> I64:
        """Tokens in ENTROPY, (N,)."""
        return self.table[:, Length.ENTROPY]

    @property
    def spectrum(self) -> I64:
        """Singular values, (N,)."""
        return self.table[:, Length.SPECTRUM]

    @property
    def rows(self) -> I64:
        """Feature vectors, (N,)."""
        return self.table[:, Length.FEATURE_ROWS]

    @property
    def cols(self) -> I64:
        """Width of a feature vector, (N,)."""
        return self.table[:, Length.FEATURE_COLS]


def features_fit(rows: Any, cols: Any, width: int) -> Any:
    """Whether (rows, cols) of FEATURES fit the contract and a tensor of this width; arrays or numbers."""
    empty = (rows == 0) & (cols >= 0)
    inside = (rows >= 0) & (cols > 0) & (rows <= MAX_FEATURE_ROWS) & (cols <= MAX_FEATURE_COLS)
    return empty | (inside & (rows * cols <= min(width, MAX_FEATURE_VALUES)))


def shared(counts: I64) -> int | None:
    """The count that all rows share, None when they differ or there is none."""
    return int(counts[0]) if alike(counts) else None


def counts_of(lengths: NDArray[np.generic], *, trace: int, entropy: int, spectrum: int, features: int) -> Counts:
    """Read LENGTHS (N, 6) against the widths of the tensors."""
    counted = lengths[:, :_COUNTED]
    limits = tuple(min(width, MAX_WINDOW) for width in (trace, entropy, spectrum))
    if alike(counted):
        return _common_counts(counted, limits, features)
    table = counted.astype(np.int64)
    scalar = table[:, : Length.FEATURE_ROWS]
    good = np.logical_and.reduce((scalar >= 0) & (scalar <= limits), axis=1)
    good &= features_fit(table[:, Length.FEATURE_ROWS], table[:, Length.FEATURE_COLS], features)
    table *= good[:, None]
    table[:, Length.FEATURE_COLS] *= table[:, Length.FEATURE_ROWS] > 0
    return Counts(table, ~good)


def _common_counts(counted: NDArray[np.generic], limits: tuple[int, ...], features: int) -> Counts:
    """Counts that all rows share, validated once and as numbers."""
    n = counted.shape[0]
    t, e, s, r, c = map(int, counted[0].tolist())
    fits = all(0 <= count <= limit for count, limit in zip((t, e, s), limits, strict=True))
    if not fits or not features_fit(r, c, features):
        return Counts(np.zeros((n, _COUNTED), np.int64), np.ones(n, np.bool_), (0, 0, 0, 0, 0))
    common = (t, e, s, r, c if r else 0)
    table = np.empty((n, _COUNTED), np.int64)
    table[:] = common
    return Counts(table, np.zeros(n, np.bool_), common)


def masked(values: NDArray[np.generic], counts: I64, common: int | None = None) -> tuple[F64, Bool]:
    """FP64 copy with zeros beyond each row's count, and which rows hold a NaN or infinity.

    Args:
        values: (N, W) numbers.
        counts: (N,) valid counts, at most W.
        common: the count of all rows where it is known to be one.

    Returns:
        (N, largest count) values, all finite, and (N,) flags. FP32 range is kept: squares and sums stay finite.
    """
    longest = int(counts.max(initial=0)) if common is None else common
    out = values[:, :longest].astype(np.float64)
    if common is None:
        out[np.arange(longest) >= counts[:, None]] = 0.0
    # a sum of finite FP32 numbers is finite in FP64
    wrong: Bool = ~np.isfinite(np.add.reduce(out, axis=1))
    if wrong.any():
        out[wrong] = 0.0
    return out, wrong


def right_align(out: NDArray[np.floating[Any]], values: NDArray[np.generic], counts: I64, common: int | None) -> None:
    """Copy each row's newest values into `out` (N, K), right-aligned, zeros where a row has fewer.

    `values` is (N, W) with `counts` (N,) valid ones; `common` is their count where it is one.
    """
    room = out.shape[1]
    if common is not None:
        take = min(common, room)
        out[:, : room - take] = 0.0
        out[:, room - take :] = values[:, common - take : common]
        return
    if room <= TAIL and values.size:
        index = counts[:, None] + _BACK[TAIL - room :]
        missing = index < 0
        index += np.arange(0, values.size, values.shape[1])[:, None]
        # without out= and a mode that needs no check, take copies twice
        np.take(values.astype(out.dtype, copy=False).reshape(-1), index, out=out, mode="clip")
        if missing.any():
            out[missing] = 0.0
        return
    for row, source, count in zip(out, values, counts.tolist(), strict=True):
        row[: max(room - count, 0)] = 0.0
        row[max(room - count, 0) :] = source[max(count - room, 0) : count]


def past_sums(values: NDArray[np.generic], counts: I64) -> F64:
    """Sums (N,) of all but each row's newest 16 values: sixteen lanes, oldest first.

    `values` is (N, W) with `counts` (N,) valid ones. Zeros beyond a row's own past do not change its bits.
    """
    n = values.shape[0]
    longest = max(int(counts.max(initial=0)) - BLOCK, 0)
    lanes = np.zeros((n, BLOCK))
    past = np.maximum(counts - BLOCK, 0)[:, None]
    for start in range(0, longest, _CHUNK):
        stop = min(start + _CHUNK, longest)
        table = np.zeros((n, _CHUNK))
        table[:, : stop - start] = values[:, start:stop]
        table[np.arange(start, start + _CHUNK) >= past] = 0.0
        for row in range(0, stop - start, BLOCK):
            lanes += table[:, row : row + BLOCK]
    return tree(lanes)


def shift_of(mean: F64, past: F64, length: I64, block: int) -> F64:
    """Mean of a newest block minus the mean of the values before it, (N,).

    Args:
        mean: (N,) means of the newest `block` values.
        past: (N,) sums of the values before them.
        length: (N,) how many those are.
        block: values in the newest block.

    Divided by sqrt(1 + block / length); 0 while the past is shorter than 16.
    """
    m = np.maximum(length, 1).astype(np.float64)
    shift = (mean - past / m) / np.sqrt(1.0 + block / m)
    return np.asarray(shift * (length >= BLOCK))
