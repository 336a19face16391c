"""Self-referenced evidence by blocks of eight tokens, for hypotheses of the unit `block` (statistics.md §2.2).

A block's mean entropy and surprisal against the mean of up to 104 tokens before it, in their standard errors; the
larger of both magnitudes is its statistic. A generation is its own reference, so one table serves every key, and blocks
do not overlap, so that neighbours are nearly independent: a model of healthy text, not a proof (docs/detection.md).
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Tokens of a block; of its past at least and at most.
TOKENS: Final = 8
LEAST: Final = 24
DEPTH: Final = 104
#: Added to a standard error: a constant past makes no evidence of rounding.
_FLOOR: Final = 1e-3


def _shift(values: NDArray[Any], end: int) -> float | None:
    """Standardised shift of the block that ends at `end`, exclusive; None where its past is too short."""
    begin = end - TOKENS
    past = values[max(0, begin - DEPTH) : max(0, begin)].astype(np.float64)
    if past.shape[0] < LEAST:
        return None
    error = float(past.std(ddof=1)) * np.sqrt(1.0 / TOKENS + 1.0 / past.shape[0])
    return float((values[begin:end].astype(np.float64).mean() - past.mean()) / (error + _FLOOR))


def statistic(trace: NDArray[Any], entropy: NDArray[Any], back: int) -> float | None:
    """Statistic of the block that ends `back` tokens before the newest one.

    Args:
        trace: (n,) newest log-probabilities, oldest first.
        entropy: (m,) newest entropies, or (0,).
        back: tokens after the block.

    Returns:
        None where a past is shorter than 24 tokens.
    """
    shifts = [_shift(v, v.shape[0] - back) for v in (trace, entropy) if v.shape[0]]
    known = [abs(s) for s in shifts if s is not None]
    return max(known) if known and len(known) == len(shifts) else None


@lru_cache(maxsize=1)
def tables() -> dict[str, F64]:
    """Ascending statistics of the blocks of healthy recorded generations: of `both` signals, of the `trace` alone."""
    text = resources.files("tcd").joinpath("data/blocks.json").read_text("utf-8")
    return {name: np.array(values) for name, values in json.loads(text).items()}


def p_value(found: float, *, both: bool) -> float:
    """(1 + table entries at or above) / (n + 1)."""
    table = tables()["both" if both else "trace"]
    return float((1 + table.shape[0] - np.searchsorted(table, found)) / (table.shape[0] + 1))
