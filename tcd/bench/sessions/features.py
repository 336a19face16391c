"""What is known of a session at each of its steps: functions of the scores so far, never of its length or label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.bench.sessions.data import F64, Index, Sessions

#: Probabilities are clipped to this before the logit: judges that speak say 1.0 and mean no certainty.
CLIP: Final = (0.02, 0.995)
NAMES: Final = (
    "step",
    "last",
    "one before",
    "lowest",
    "second lowest",
    "mean",
    "first",
    "last against mean",
    "mean of three",
    "doubt so far",
    "steps under .8",
    "spread",
    "place of the lowest",
    "lowest of three",
)
_LOW: Final = 0.8
_RECENT: Final = 3


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes of n sessions, step by step: rows of `values` are ordered by step, then by session.

    Attributes:
        values: (rows, F) features.
        session: (rows,) row of the session.
        step: (rows,) 0-based step.
        shape: (n, T) of the sessions.
    """

    values: F64
    session: Index
    step: Index
    shape: tuple[int, int]

    def matrix(self, values: F64) -> F64:
        """(rows,) values as (n, T), NaN after each session's end."""
        out = np.full(self.shape, np.nan)
        out[self.session, self.step] = values
        return out


def logit(probability: F64) -> F64:
    """Log-odds of clipped probabilities; NaN stays."""
    clipped = np.clip(probability, *CLIP)
    return np.asarray(np.log(clipped / (1.0 - clipped)))


def _at(scores: F64, odds: F64) -> F64:
    """Features of (m, s) scores and their logits after s steps."""
    s = odds.shape[1]
    ordered = np.sort(odds, axis=1)
    mean, last = odds.mean(axis=1), odds[:, -1]
    recent = odds[:, max(0, s - _RECENT) :]
    columns: list[NDArray[np.generic]] = [
        np.full(len(odds), float(s)),
        last,
        odds[:, max(0, s - 2)],
        ordered[:, 0],
        ordered[:, min(1, s - 1)],
        mean,
        odds[:, 0],
        last - mean,
        recent.mean(axis=1),
        (1.0 - scores).sum(axis=1),
        (scores < _LOW).sum(axis=1),
        odds.std(axis=1),
        np.argmin(odds, axis=1) / s,
        recent.min(axis=1),
    ]
    return np.stack(columns, axis=1).astype(np.float64)


def prefixes(sessions: Sessions) -> Prefixes:
    """Features of every prefix of every session."""
    odds = logit(sessions.scores)
    values, session, step = [], [], []
    for s in range(1, odds.shape[1] + 1):
        rows = np.flatnonzero(sessions.length >= s)
        values.append(_at(sessions.scores[rows, :s], odds[rows, :s]))
        session.append(rows)
        step.append(np.full(len(rows), s - 1))
    return Prefixes(
        np.concatenate(values), np.concatenate(session), np.concatenate(step), (len(sessions), odds.shape[1])
    )
