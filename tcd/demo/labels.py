"""What the text alone says about degeneration: the reference that catches and false alarms are counted against.

The same two rules label the recordings that the shipped assets were fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

#: A verbatim loop copies at least this many tokens …
COPIED: Final = 24
#: … from at most this many tokens before.
MAX_PERIOD: Final = 96
#: A soft loop: half of the 4-grams in a window of 64 tokens were already seen in the newest 256 before.
SOFT_NGRAM: Final = 4
SOFT_WINDOW: Final = 64
SOFT_HISTORY: Final = 256
SOFT_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop in a text: first copied token, the token at which the rule is fulfilled, the period (0: none)."""

    onset: int
    confirmed: int
    period: int = 0


def verbatim_loop(tokens: Sequence[int]) -> Loop | None:
    """The first run of at least max(24, p) tokens that equal those p ≤ 96 before them."""
    found: Loop | None = None
    for period in range(1, MAX_PERIOD + 1):
        run, need = 0, max(COPIED, period)
        for i in range(period, len(tokens)):
            run = run + 1 if tokens[i] == tokens[i - period] else 0
            if run == need:
                if found is None or i < found.confirmed:
                    found = Loop(i - need + 1, i, period)
                break
    return found


def soft_loop(tokens: Sequence[int]) -> Loop | None:
    """The first window of 64 tokens in which at least half of the 4-grams are repeats; onset is its first repeat."""
    seen: dict[tuple[int, ...], int] = {}
    repeats: list[bool] = []
    for i in range(len(tokens)):
        gram = tuple(tokens[i - SOFT_NGRAM + 1 : i + 1]) if i >= SOFT_NGRAM - 1 else ()
        repeats.append(bool(gram) and i - seen.get(gram, -SOFT_HISTORY - 1) <= SOFT_HISTORY)
        if gram:
            seen[gram] = i
        window = repeats[i - SOFT_WINDOW + 1 : i + 1] if i >= SOFT_WINDOW - 1 else []
        if sum(window) >= SOFT_SHARE * SOFT_WINDOW:
            return Loop(i - SOFT_WINDOW + 1 + window.index(True), i)
    return None


def degeneration(tokens: Sequence[int]) -> Loop | None:
    """The earlier of a verbatim and a soft loop."""
    found = [loop for loop in (verbatim_loop(tokens), soft_loop(tokens)) if loop is not None]
    return min(found, key=lambda loop: loop.onset) if found else None
