"""When to trigger: now, or after having seen more. Optimal stopping by regression on simulated continuations.

A trigger at a step gains P(fails | prefix) and costs lambda P(solved | prefix). Waiting is worth what the best later
trigger will be worth, and nothing when the session ends first; nobody is told that a step is the last. The statistic
is the log-odds less those at which the two are equal, so a running maximum over zero is the policy that is best at
lambda, and lambda is where benign training sessions trigger at the level that will be asked for. Odds, not worth, so
that it also ranks well far above zero, where smaller levels decide.

Source: Longstaff and Schwartz, Review of Financial Studies 14 (2001), backward induction with regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tcd.bench.sessions.data import F64, Bool, Index, Sessions
from tcd.bench.sessions.features import logit

#: A step that fewer training sessions reach has one value of waiting for all prefixes.
MIN_ROWS: Final = 60
_RIDGE: Final = 1.0
#: The value of waiting is below that of a certain catch.
_CERTAIN: Final = 0.999
_BISECTIONS: Final = 12
#: Range of log(lambda) around the log-odds at which benign training sessions trigger at the level.
_SPAN: Final = 3.0


def sigmoid(x: F64) -> F64:
    """1 / (1 + exp(-x)), NaN stays."""
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


@dataclass(frozen=True, slots=True)
class Policy:
    """A fitted policy.

    Attributes:
        price: lambda.
        knee: log-odds from which the regression may bend.
        waiting: per step, coefficients (8,) of the value of waiting; the last holds for later steps too.
    """

    price: float
    knee: float
    waiting: tuple[F64, ...]

    def of(self, odds: F64, sessions: Sessions) -> F64:
        """(n, T) log-odds less those from which a trigger is worth more than waiting; NaN after the end."""
        out = np.full(odds.shape, np.nan)
        for s in range(odds.shape[1]):
            rows = np.flatnonzero(sessions.length > s)
            x = regressors(odds[rows, s], sessions.scores[rows, : s + 1], self.knee)
            later = np.maximum(x @ self.waiting[min(s, len(self.waiting) - 1)], 0.0)
            out[rows, s] = odds[rows, s] - break_even(later, self.price)
        return out


def gain(odds: F64, price: float) -> F64:
    """What a trigger is worth at these log-odds."""
    fails = sigmoid(odds)
    return fails - price * (1.0 - fails)


def break_even(waiting: F64, price: float) -> F64:
    """Log-odds at which a trigger is worth as much as waiting."""
    worth = np.minimum(waiting, _CERTAIN)
    return np.asarray(np.log((price + worth) / (1.0 - worth)))


def regressors(odds: F64, scores: F64, knee: float) -> F64:
    """(m, 8) columns that explain the value of waiting after (m, s) scores."""
    seen = logit(scores)
    last = seen[:, -1]
    bent = np.maximum(odds - knee, 0.0)
    return np.stack(
        [np.ones(len(odds)), odds, odds**2, bent, last, last**2, seen.min(axis=1), seen.mean(axis=1)], axis=1
    )


def _regress(x: F64, target: F64) -> F64:
    """Ridge coefficients; the first column, a constant, is not penalised."""
    if len(x) < MIN_ROWS:
        return np.concatenate([[target.mean() if len(x) else 0.0], np.zeros(x.shape[1] - 1)])
    centre, middle = x[:, 1:].mean(axis=0), target.mean()
    z = x[:, 1:] - centre
    slope = np.linalg.solve(z.T @ z + _RIDGE * np.eye(z.shape[1]), z.T @ (target - middle))
    return np.concatenate([[middle - centre @ slope], slope])


def backward(odds: F64, sessions: Sessions, price: float, knee: float) -> tuple[Policy, Bool]:
    """The policy at a price, and which sessions it triggers on."""
    n, steps = odds.shape
    worth, triggered = np.zeros(n), np.zeros(n, np.bool_)
    waiting: list[F64] = []
    for s in range(steps - 1, -1, -1):
        rows: Index = np.flatnonzero(sessions.length > s)
        later = worth[rows]
        x = regressors(odds[rows, s], sessions.scores[rows, : s + 1], knee)
        coefficients = _regress(x, later)
        now = gain(odds[rows, s], price)
        stop = now > np.maximum(x @ coefficients, 0.0)
        worth[rows] = np.where(stop, now, later)
        triggered[rows] |= stop
        waiting.append(coefficients)
    return Policy(price, knee, tuple(reversed(waiting))), triggered


def fit(odds: F64, sessions: Sessions, alpha: float) -> Policy:
    """The policy that triggers on a part `alpha` of the solved training sessions.

    Args:
        odds: (n, T) log-odds of models that have not seen the session.
        sessions: the training sessions.
        alpha: in (0, 1).
    """
    highest = np.nanmax(odds[sessions.solved], axis=1)
    knee = float(np.quantile(highest, 1.0 - alpha))
    low, high = knee - _SPAN, knee + _SPAN
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2.0
        _, triggered = backward(odds, sessions, float(np.exp(middle)), knee)
        if triggered[sessions.solved].mean() > alpha:
            low = middle
        else:
            high = middle
    policy, _ = backward(odds, sessions, float(np.exp(high)), knee)
    return policy
