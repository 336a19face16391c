"""Statistics of the trace and the entropy: levels, low tail, spread, shift against the past, recurrence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd import exact
from tcd.detector import recurrence
from tcd.detector.catalogue import INDEX
from tcd.detector.recurrence import Recurrence
from tcd.detector.windows import BLOCK, TAIL, Counts, past_sums, right_align, shift_of

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: Newest values whose means are taken; the last is the whole tail.
BLOCKS: Final = (4, 16, 32, 64, TAIL)
LONG: Final = 32
LOWEST: Final = 4
#: Keeps the logarithm of a small entropy finite, and its weight moderate.
FLOOR: Final = 0.05
LANES: Final = 4
#: Rows of four values of a tail, newest first, after which a sum is that of a block.
AFTER: Final = [k // LANES - 1 for k in BLOCKS]
_SIZES: Final = np.array(BLOCKS)
_AGE: Final = np.arange(TAIL, 0, -1)
#: Columns of a series.
_4, _16, _32, _64, _ALL = range(5)


def _newest(tail: F64) -> F64:
    """Sums over the newest 4, 16, 32, 64 and all values of (N, TAIL): four lanes, newest first; (N, 5)."""
    running = np.add.accumulate(tail.reshape(-1, TAIL // LANES, LANES)[:, ::-1], axis=1)
    return exact.tree(running[:, AFTER])


@dataclass(frozen=True, slots=True)
class Series:
    """A scalar series: sums (N, 5) and means (N, 5) over its newest 4, 16, 32, 64 and 112 values, its counts (N,)."""

    sums: F64
    means: F64
    counts: I64

    @classmethod
    def of(cls, tail: F64, counts: I64) -> Series:
        """Of (N, TAIL) right-aligned values, zeros where a row has fewer."""
        sums = _newest(tail)
        known = np.minimum(np.maximum(counts, 1)[:, None], _SIZES)
        return cls(sums, sums / known, counts)

    def shift(self, column: int, past: F64 | None = None) -> F64:
        """Level of a newest block against the past: all of it where its sum without the newest 16 is given."""
        block = BLOCKS[column]
        if past is None:
            before, length = self.sums[:, _ALL] - self.sums[:, column], np.minimum(self.counts, TAIL) - block
        else:
            before, length = past - (self.sums[:, column] - self.sums[:, _16]), self.counts - block
        return shift_of(self.means[:, column], before, length, block)


def _inside(tail: F64, counts: I64) -> F64:
    """The tail with zeros where a row has no value."""
    if int(counts.min(initial=TAIL)) < TAIL:
        tail *= counts[:, None] >= _AGE
    return tail


def _deviation(tail: F64, mean: F64, counts: I64) -> F64:
    """Standard deviation of the newest 32 values, or of as many as there are; (N,)."""
    centred = tail - mean[:, None]
    squares = _newest(_inside(np.multiply(centred, centred), counts))[:, _32]
    return np.asarray(np.sqrt(squares / np.minimum(np.maximum(counts, 1), LONG)))


def _put(out: F64, values: dict[str, F64]) -> None:
    for name, column in values.items():
        out[:, INDEX[name]] = column


def _trace(out: F64, tail: F64, counts: I64, past: F64) -> Series:
    series = Series.of(tail, counts)
    surprisal = -series.means
    lowest = tail[:, -BLOCK:].copy()
    lowest.sort(axis=1)
    likely = Series.of(_inside(exact.exp(np.minimum(tail, 0.0)), counts), counts)
    values = {f"surprisal_{k}": surprisal[:, i] for i, k in enumerate(BLOCKS[:_ALL])}
    values |= {
        "trace_low": exact.ordered(lowest[:, :LOWEST], axis=1) * (1.0 / LOWEST),
        "surprisal_self": -series.shift(_16, past),
        "surprisal_self_32": -series.shift(_32, past),
        "surprisal_self_64": -series.shift(_64, past),
        "probability_16": likely.means[:, _16],
        "probability_32": likely.means[:, _32],
        "probability_self": likely.shift(_32),
    }
    _put(out, values)
    return series


def _entropy(out: F64, tail: F64, counts: I64, past: F64) -> Series:
    series = Series.of(tail, counts)
    logs = Series.of(_inside(exact.log(np.maximum(tail, 0.0) + FLOOR), counts), counts)
    values = {f"entropy_{k}": series.means[:, i] for i, k in enumerate(BLOCKS[:_ALL])}
    values |= {
        "entropy_sd": _deviation(tail, series.means[:, _32], counts),
        "entropy_self": series.shift(_16, past),
        "entropy_self_32": series.shift(_32, past),
        "entropy_self_64": series.shift(_64, past),
        "log_entropy_16": logs.means[:, _16],
        "log_entropy_32": logs.means[:, _32],
        "log_entropy_self": logs.shift(_32),
    }
    _put(out, values)
    return series


def _residual(out: F64, trace: F64, entropy: F64, counts: I64) -> None:
    """What surprisal exceeds entropy by, and the size of the difference token by token."""
    for k in BLOCKS[:_ALL]:
        np.subtract(out[:, INDEX[f"surprisal_{k}"]], out[:, INDEX[f"entropy_{k}"]], out=out[:, INDEX[f"residual_{k}"]])
    for k in (32, 64):
        surprisal, other = out[:, INDEX[f"surprisal_self_{k}"]], out[:, INDEX[f"entropy_self_{k}"]]
        np.subtract(surprisal, other, out=out[:, INDEX[f"residual_self_{k}"]])
    misfit = Series.of(_inside(np.abs(trace + entropy), counts), counts)
    values = {"misfit_16": misfit.means[:, _16], "misfit_32": misfit.means[:, _32], "misfit_self": misfit.shift(_32)}
    _put(out, values)


def levels(
    out: F64, wrong: Bool, trace: NDArray[np.generic], entropy: NDArray[np.generic], counts: Counts
) -> dict[str, Recurrence]:
    """Write the statistics of both signals into `out` (N, F); mark rows with a NaN or infinity in `wrong` (N,).

    Returns:
        The recurrence of each signal that a row of the batch has, by the signal's name.
    """
    common = counts.common or (None, None)
    found: dict[str, Recurrence] = {}
    kept: dict[str, F64] = {}
    make = {"trace": _trace, "entropy": _entropy}
    signals = (("trace", trace, counts.trace, common[0]), ("entropy", entropy, counts.entropy, common[1]))
    for name, values, number, one in signals:
        if not number.any():
            continue
        tail = np.empty((out.shape[0], TAIL), np.float32)
        right_align(tail, values, number, one)
        wide = kept[name] = tail.astype(np.float64)
        past = past_sums(values, number)
        series = make[name](out, wide, number, past)
        # a sum of finite FP32 numbers is finite in FP64, and these two hold every value of a row
        wrong |= ~np.isfinite(past + series.sums[:, _16])
        found[name] = recurrence.scalar(tail, number)
        out[:, INDEX[f"recurrence_{name}"]] = found[name].ratio[:, 0]
    if len(kept) > 1:
        _residual(out, kept["trace"], kept["entropy"], np.minimum(counts.trace, counts.entropy))
    return found
