"""Statistics of the trace and the entropy: levels, low tail, spread, shift against the past, recurrence."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.detector import recurrence
from tcd.detector.catalogue import INDEX
from tcd.detector.windows import BLOCK, TAIL, Counts, past_sums, right_align, shift_of

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_SHORT: Final = 6
_LONG: Final = 32
_LOWEST: Final = 4
#: (32, 3): means of the newest 16, 6 and 32 of 32 values.
_MEANS: Final = np.stack([(np.arange(_LONG) >= _LONG - k) / k for k in (BLOCK, _SHORT, _LONG)], axis=1)
_AGE: Final = np.arange(_LONG, 0, -1)
#: Columns of the levels (16, 6, 32), each three neighbours.
_SURPRISAL, _RESIDUAL, _ENTROPY = (
    slice(INDEX[name], INDEX[name] + 3) for name in ("surprisal_16", "residual_16", "entropy_16")
)


#: A window of scalars: (N, W) values, their (N,) counts, the count that all rows share.
_Signal = tuple[NDArray[np.generic], I64, int | None]


def _present(signal: _Signal) -> bool:
    """Whether any row has it."""
    _, counts, common = signal
    return common > 0 if common is not None else bool(counts.any())


def _number(chosen: list[_Signal]) -> I64 | int:
    """Counts of stacked signals: one number where all rows of all of them share it."""
    one = chosen[0][2]
    return one if one is not None and all(s[2] == one for s in chosen) else np.concatenate([s[1] for s in chosen])


def _least(counts: I64 | int) -> int:
    return counts if isinstance(counts, int) else int(counts.min(initial=_LONG))


def _recent(counts: I64 | int) -> Any:
    """How many of the newest 32 values there are, at least 1 to divide by; (N,) or one for all."""
    if isinstance(counts, int):
        return min(max(counts, 1), _LONG)
    return np.minimum(np.maximum(counts, 1), _LONG)


def _means(recent: F64, counts: I64 | int) -> F64:
    """Means (N, 3) of the newest 16, 6 and 32 values of (N, 32), the last of as many as there are."""
    # one product of fixed shape per row: its bits do not depend on N
    means = np.matmul(recent[:, None, :], _MEANS)[:, 0]
    if _least(counts) < _LONG:
        means[:, 2] *= _LONG / _recent(counts)
    return np.asarray(means)


def _deviation(recent: F64, mean: F64, counts: I64 | int) -> F64:
    """Standard deviation of the newest 32 values (N, 32), or of as many as there are; (N,)."""
    centred = recent - mean[:, None]
    if _least(counts) < _LONG:
        centred *= np.asarray(counts).reshape(-1, 1) >= _AGE
    np.multiply(centred, centred, out=centred)
    variance = np.add.reduce(centred, axis=1)
    variance /= _recent(counts)
    return np.asarray(np.sqrt(variance, out=variance))


def _trace(out: F64, means: F64, shift: F64, recent: F64) -> None:
    np.negative(means, out=out[:, _SURPRISAL])
    np.negative(shift, out=out[:, INDEX["surprisal_self"]])
    lowest = recent[:, -BLOCK:].copy()
    lowest.sort(axis=1)
    np.multiply(np.add.reduce(lowest[:, :_LOWEST], axis=1), 1.0 / _LOWEST, out=out[:, INDEX["trace_low"]])


def levels(out: F64, wrong: Bool, trace: NDArray[np.generic], entropy: NDArray[np.generic], counts: Counts) -> None:
    """Write the statistics of both signals into `out` (N, F); mark rows with a NaN or infinity in `wrong` (N,)."""
    n = out.shape[0]
    common = counts.common or (None, None)
    first: _Signal = (trace, counts.trace, common[0])
    second: _Signal = (entropy, counts.entropy, common[1])
    chosen = [signal for signal in (first, second) if _present(signal)]
    if not chosen:
        return
    number = _number(chosen)
    total = len(chosen) * n
    tails = np.empty((total, TAIL), np.float32)
    past = np.empty(total)
    for i, signal in enumerate(chosen):
        rows = slice(i * n, (i + 1) * n)
        right_align(tails[rows], *signal)
        past[rows] = past_sums(*signal)
    recent = tails[:, -_LONG:].astype(np.float64)
    means = _means(recent, number)
    # a sum of finite FP32 numbers is finite in FP64, and these two hold every value of a row
    finite = np.isfinite(past + means[:, 2])
    if not finite.all():
        for i in range(len(chosen)):
            wrong |= ~finite[i * n : (i + 1) * n]
    shift = shift_of(means[:, 0], past, number)
    recur = recurrence.scalar(tails, number)
    if chosen[0] is first:
        _trace(out, means[:n], shift[:n], recent[:n])
        out[:, INDEX["recurrence_trace"]] = recur[:n]
    if chosen[-1] is second:
        last = slice(total - n, total)
        out[:, _ENTROPY] = means[last]
        many = number if isinstance(number, int) else number[last]
        out[:, INDEX["entropy_sd"]] = _deviation(recent[last], means[last, 2], many)
        out[:, INDEX["entropy_self"]] = shift[last]
        out[:, INDEX["recurrence_entropy"]] = recur[last]
    if len(chosen) > 1:
        np.subtract(out[:, _SURPRISAL], out[:, _ENTROPY], out=out[:, _RESIDUAL])
