"""`tcd.detector.levels` and `tcd.detector.nucleus` for tensors: levels of scalar series and shifts against the past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from tcd.detector.device import recurrence
from tcd.detector.device.exact import exp, log, ordered, sqrt, tree
from tcd.detector.levels import AFTER, BLOCKS, FLOOR, LANES, LOWEST
from tcd.detector.nucleus import SERIES
from tcd.detector.windows import BLOCK, TAIL

#: Statistics by name, (N,) each.
Columns = dict[str, Any]
#: Columns of a series.
_4, _16, _32, _64, _ALL = range(5)
_LEVELS: Final = tuple(enumerate(BLOCKS[:_ALL]))


def right_align(values: Any, counts: Any) -> Any:
    """Each row's newest TAIL values, right-aligned, zeros where a row has fewer; (N, W) to (N, TAIL)."""
    place = counts[:, None] + torch.arange(-TAIL, 0, device=values.device)
    if not values.shape[1]:
        return torch.zeros(place.shape, dtype=values.dtype, device=values.device)
    return torch.where(place < 0, 0.0, values.gather(1, place.clamp(min=0)))


def past_sums(values: Any, counts: Any) -> Any:
    """`tcd.detector.windows.past_sums` of (N, W) values."""
    lanes = torch.zeros((values.shape[0], BLOCK), dtype=torch.float64, device=values.device)
    past = torch.where(
        torch.arange(values.shape[1], device=values.device) < (counts - BLOCK)[:, None], values.double(), 0.0
    )
    past = torch.nn.functional.pad(past, (0, -past.shape[1] % BLOCK))
    for part in past.reshape(-1, past.shape[1] // BLOCK, BLOCK).unbind(1):
        lanes = lanes + part
    return tree(lanes)


def _shift_of(mean: Any, past: Any, length: Any, block: int) -> Any:
    """`tcd.detector.windows.shift_of`."""
    m = length.clamp(min=1).double()
    shift = (mean - past / m) / sqrt(1.0 + block / m)
    return shift * (length >= BLOCK)


def _newest(tail: Any) -> Any:
    """Sums over the newest 4, 16, 32, 64 and all values of (N, TAIL): four lanes, newest first; (N, 5)."""
    total, sums = None, []
    for i, row in enumerate(reversed(tail.reshape(-1, TAIL // LANES, LANES).unbind(1))):
        total = row if total is None else total + row
        if i in AFTER:
            sums.append(tree(total))
    return torch.stack(sums, 1)


@dataclass(frozen=True, slots=True)
class Series:
    """`tcd.detector.levels.Series`: sums and means (N, 5), counts (N,)."""

    sums: Any
    means: Any
    counts: Any

    @classmethod
    def of(cls, tail: Any, counts: Any) -> Series:
        """Of (N, TAIL) right-aligned FP64 values, zeros where a row has fewer."""
        sums = _newest(tail)
        sizes = torch.tensor(BLOCKS, device=tail.device)
        return cls(sums, sums / torch.minimum(counts.clamp(min=1)[:, None], sizes), counts)

    def shift(self, column: int, past: Any = None) -> Any:
        """Level of a newest block against the past: all of it where its sum without the newest 16 is given."""
        block = BLOCKS[column]
        if past is None:
            before, length = self.sums[:, _ALL] - self.sums[:, column], self.counts.clamp(max=TAIL) - block
        else:
            before, length = past - (self.sums[:, column] - self.sums[:, _16]), self.counts - block
        return _shift_of(self.means[:, column], before, length, block)


def _inside(tail: Any, counts: Any) -> Any:
    return tail * (counts[:, None] >= torch.arange(TAIL, 0, -1, device=tail.device))


def _trace(tail: Any, counts: Any, past: Any) -> tuple[Series, Columns]:
    series = Series.of(tail, counts)
    lowest = tail[:, -BLOCK:].sort(dim=1).values
    likely = Series.of(_inside(exp(tail.clamp(max=0.0)), counts), counts)
    return series, {
        **{f"surprisal_{k}": -series.means[:, i] for i, k in _LEVELS},
        "trace_low": ordered(lowest[:, :LOWEST], 1) * (1.0 / LOWEST),
        "surprisal_self": -series.shift(_16, past),
        "surprisal_self_32": -series.shift(_32, past),
        "surprisal_self_64": -series.shift(_64, past),
        "probability_16": likely.means[:, _16],
        "probability_32": likely.means[:, _32],
        "probability_self": likely.shift(_32),
    }


def _entropy(tail: Any, counts: Any, past: Any) -> tuple[Series, Columns]:
    series = Series.of(tail, counts)
    logs = Series.of(_inside(log(tail.clamp(min=0.0) + FLOOR), counts), counts)
    centred = tail - series.means[:, _32, None]
    squares = _newest(_inside(centred * centred, counts))[:, _32]
    return series, {
        **{f"entropy_{k}": series.means[:, i] for i, k in _LEVELS},
        "entropy_sd": sqrt(squares / counts.clamp(1, BLOCKS[_32])),
        "entropy_self": series.shift(_16, past),
        "entropy_self_32": series.shift(_32, past),
        "entropy_self_64": series.shift(_64, past),
        "log_entropy_16": logs.means[:, _16],
        "log_entropy_32": logs.means[:, _32],
        "log_entropy_self": logs.shift(_32),
    }


def _residual(out: Columns, trace: Any, entropy: Any, counts: Any) -> Columns:
    misfit = Series.of(_inside((trace + entropy).abs(), counts), counts)
    return {
        **{f"residual_{k}": out[f"surprisal_{k}"] - out[f"entropy_{k}"] for _, k in _LEVELS},
        **{f"residual_self_{k}": out[f"surprisal_self_{k}"] - out[f"entropy_self_{k}"] for k in (32, 64)},
        "misfit_16": misfit.means[:, _16],
        "misfit_32": misfit.means[:, _32],
        "misfit_self": misfit.shift(_32),
    }


def levels(trace: Any, entropy: Any, counts: tuple[Any, Any]) -> tuple[Columns, Any, dict[str, recurrence.Recurrence]]:
    """Statistics of both signals, rows (N,) with a NaN or infinity, the recurrence of each signal by its name.

    Args:
        trace: (N, W1) windows.
        entropy: (N, W2) windows.
        counts: valid counts (N,) of both.
    """
    out: Columns = {}
    wrong = torch.zeros(trace.shape[0], dtype=torch.bool, device=trace.device)
    tails, found = [], {}
    signals = (("trace", trace, counts[0], _trace), ("entropy", entropy, counts[1], _entropy))
    for name, values, number, make in signals:
        tail = right_align(values.float(), number)
        tails.append(tail.double())
        past = past_sums(values, number)
        series, columns = make(tails[-1], number, past)
        wrong = wrong | ~(past + series.sums[:, _16]).isfinite()
        found[name] = recurrence.scalar(tail, number)
        out |= columns | {f"recurrence_{name}": found[name].ratio[:, 0].double()}
    return out | _residual(out, tails[0], tails[1], torch.minimum(*counts)), wrong, found


def nucleus(vectors: Any, counts: Any) -> Columns:
    """Statistics of the last column of (N, TAIL, cols) right-aligned vectors, `counts` (N,) of them valid."""
    series = Series.of(vectors[:, :, -1].double(), counts)
    out: Columns = {}
    for column, level, shift in SERIES:
        out[level] = series.means[:, column]
        if shift is not None:
            out[shift] = series.shift(column)
    return out
