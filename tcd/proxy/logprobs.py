"""Log-probabilities out of OpenAI answers and their stream chunks. Pure.

Chat: `choices[].logprobs.content[]`. Completions: `choices[].logprobs.token_logprobs[]` with `top_logprobs[]`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Final, NamedTuple

import msgspec

#: OpenAI writes -9999 for a token outside the ones it kept: that is no measurement.
_LEAST: Final = -1000.0
#: Rounding may lift a probability of one by this much.
_SLACK: Final = 1e-3


class Top(msgspec.Struct):
    """A likely token."""

    logprob: float


class Token(msgspec.Struct):
    """A token of a chat answer."""

    logprob: float | None = None
    top_logprobs: list[Top] | None = None


class Logprobs(msgspec.Struct):
    """Of one choice; `content` in chat, the rest in completions."""

    content: list[Token] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(msgspec.Struct):
    """One choice of an answer or of a chunk."""

    index: int = 0
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Answer(msgspec.Struct):
    """An answer or a chunk, as far as it is read."""

    choices: list[Choice] = []
    id: str | None = None
    object: str | None = None
    created: int | float | None = None
    model: str | None = None
    system_fingerprint: str | None = None


class Measured(NamedTuple):
    """A token: its log-probability, and the entropy of its distribution (nats) where that can be said."""

    logprob: float
    entropy: float | None


_decode: Final = msgspec.json.Decoder(Answer).decode


def read(data: bytes) -> Answer | None:
    """An answer or a chunk; None when it is something else."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def measure(choice: Choice) -> list[Measured]:
    """The tokens of a choice that were measured, oldest first."""
    found = choice.logprobs
    if found is None:
        return []
    if found.content is not None:
        every = [
            (token.logprob, None if token.top_logprobs is None else [top.logprob for top in token.top_logprobs])
            for token in found.content
        ]
    else:
        values = found.token_logprobs or []
        likely = [None if top is None else list(top.values()) for top in found.top_logprobs or []]
        every = list(zip_longest(values, likely[: len(values)]))
    return [
        Measured(min(value, 0.0), entropy(top) if top else None)
        for value, top in every
        if value is not None and _LEAST <= value <= _SLACK
    ]


def entropy(tops: Sequence[float]) -> float | None:
    """Entropy in nats of a distribution of which only the likeliest tokens are known.

    The rest counts as one outcome, so this is a lower bound, and a function of the number of tokens given. None when
    the values are no part of a distribution.
    """
    weights = [math.exp(value) for value in tops if _LEAST <= value <= _SLACK]
    total = sum(weights)
    if not weights or total > 1.0 + len(weights) * _SLACK:
        return None
    rest = max(0.0, 1.0 - total)
    out = -sum(p * math.log(p) for p in (*weights, rest) if p > 0.0)
    return max(0.0, out)
