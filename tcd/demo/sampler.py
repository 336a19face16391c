"""Choosing the next token from logits as a route says: temperature, top-p and decoder code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.contract import DECODERS

#: Below this temperature decoding is greedy, as in the detector key's bucket.
GREEDY: Final = 0.05
#: `no_repeat` forbids a token that would repeat a sequence of this many tokens …
NGRAM: Final = 3
#: … seen in this many newest tokens.
HISTORY: Final = 256

SAMPLE: Final = DECODERS.index("sample")
ARGMAX: Final = DECODERS.index("greedy")
NO_REPEAT: Final = DECODERS.index("no_repeat")


@dataclass(frozen=True, slots=True)
class Setting:
    """How the next token is chosen: temperature ≥ 0, top_p in (0, 1], decoder code of `contract.DECODERS`."""

    temperature: float
    top_p: float = 0.95
    decoder: int = 0


def blocked(history: Sequence[int], *, n: int = NGRAM, window: int = HISTORY) -> set[int]:
    """Tokens that would complete an n-gram already present in the newest `window` tokens of `history`."""
    recent = list(history[-window:])
    tail = recent[len(recent) - n + 1 :]
    if len(recent) < n:
        return set()
    return {recent[i + n - 1] for i in range(len(recent) - n + 1) if recent[i : i + n - 1] == tail}


def choose(logits: NDArray[np.float32], setting: Setting, *, history: Sequence[int], rng: np.random.Generator) -> int:
    """Draw the next token.

    Args:
        logits: (vocabulary,) prediction.
        setting: the route's temperature, top-p and decoder. `greedy` takes the maximum whatever the temperature;
            `sample` draws even at a greedy temperature; `no_repeat` first forbids repeated n-grams.
        history: tokens so far, the prompt's included.
        rng: source of randomness; one uniform is drawn per sampled token.

    Returns:
        The token id.
    """
    scores = logits.astype(np.float64)
    if setting.decoder == NO_REPEAT:
        forbidden = blocked(history)
        if len(forbidden) < scores.size:
            scores[list(forbidden)] = -np.inf
    temperature = max(setting.temperature, GREEDY) if setting.decoder == SAMPLE else setting.temperature
    if temperature < GREEDY or setting.decoder == ARGMAX:
        return int(scores.argmax())
    scores = np.exp((scores - scores.max()) / temperature)
    order = np.argsort(-scores, kind="stable")
    cumulative = scores[order].cumsum()
    # the smallest nucleus that holds top_p of the mass, at least one token
    size = int(np.searchsorted(cumulative, min(setting.top_p, 1.0) * cumulative[-1])) + 1
    size = min(size, scores.size)
    draw = rng.random() * cumulative[size - 1]
    return int(order[min(int(np.searchsorted(cumulative[:size], draw, side="right")), size - 1)])
