"""Rows of mixed lengths against rows of one length in the same bucket: padding and raggedness must cost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from tcd.bench.ensemble.peers import Load, cpu, input_data, spread
from tcd.contract import DIAGNOSE
from tcd.rows import ScoreRow, pack
from tcd.triton.perf import realistic_rows

#: Tokens of the equal rows, and the ends of the mixed ones, whose mean it is: all in the bucket of 64.
EQUAL: Final = 48
MIXED: Final = (32, 64)
_ROWS: Final = 128


def _cut(row: ScoreRow, n: int) -> ScoreRow:
    return ScoreRow(
        trace=row.trace[-n:],
        entropy=row.entropy[-n:],
        spectrum=row.spectrum,
        features=row.features,
        alpha=row.alpha,
        base=row.base,
        controller=True,
    )


def rows(tokens: Sequence[int]) -> list[ScoreRow]:
    """Rows with so many tokens each."""
    return [_cut(row, n) for row, n in zip(realistic_rows(len(tokens), window=MIXED[1]), tokens, strict=True)]


def _ragged(made: Sequence[ScoreRow]) -> str:
    """Each row at its own width, as a direct caller may send it."""
    parts = []
    for row in made:
        tensors = pack([row])
        for name in ("TRACE", "ENTROPY"):
            tensors[name] = tensors[name][:, : len(row.trace)]
        parts.append(input_data(DIAGNOSE, tensors)[len('{"data": [') : -len("]}")])
    return '{"data": [' + ", ".join(parts) + "]}"


def measure(load: Load, *, rounds: int) -> dict[str, Any]:
    """CPU per row, mixed over equal, in batches of 32 padded by the caller and one by one at their own widths.

    Raises:
        LauncherError: perf_analyzer failed.
    """
    equal = [EQUAL] * _ROWS
    mixed = np.random.default_rng(1).integers(MIXED[0], MIXED[1] + 1, _ROWS).tolist()
    kinds = {
        "batches of 32, padded to the bucket": ([input_data(DIAGNOSE, pack(rows(n))) for n in (equal, mixed)], 32, 4),
        "single rows at their own widths, 16 under way": ([_ragged(rows(n)) for n in (equal, mixed)], 1, 16),
    }
    out: dict[str, Any] = {}
    for name, (texts, batch, concurrency) in kinds.items():
        found: list[list[float]] = []
        for turn in range(rounds):
            # each round both ways round
            order = [0, 1, 1, 0] if turn % 2 == 0 else [1, 0, 0, 1]
            values: list[list[float]] = [[], []]
            for which in order:
                values[which].append(cpu(load.text(DIAGNOSE, texts[which], batch=batch, concurrency=concurrency)))
            found.append([sum(v) / len(v) for v in values])
        out[name] = {"us_per_row": found, "ratio": spread([mix / same for same, mix in found])}
    return out
