"""The learned statistic of a session: log-odds of failing, turned into when it is best to trigger.

The log-odds are the mean of two models with different faults: one regression over all prefixes at once, which shares
what it learns among steps, and one per step on all scores so far, as E-valuator's. Everything here is fitted on the
training sessions alone. The conformal table is made of other sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tcd.bench.sessions import odds as odds_model
from tcd.bench.sessions import peers, stopping
from tcd.bench.sessions.data import F64, Index, Sessions
from tcd.bench.sessions.features import Prefixes, prefixes

FOLDS: Final = 3
#: A prefix of a session of n steps weighs n to the minus this: between all steps alike (0) and all sessions alike (1).
LENGTH_POWER: Final = 0.5


@dataclass(frozen=True, slots=True)
class Learned:
    """A fitted statistic.

    Attributes:
        pooled: log-odds by all prefixes at once.
        stepwise: log-odds by step, but for the prior.
        policy: when to trigger.
    """

    pooled: odds_model.Odds
    stepwise: peers.DensityRatio
    policy: stopping.Policy

    def odds_of(self, sessions: Sessions) -> F64:
        """(n, T) log-odds that the session fails, NaN after its end."""
        seen = prefixes(sessions)
        return _mean(seen.matrix(self.pooled.of(seen)), self.stepwise, sessions)

    def of(self, sessions: Sessions) -> F64:
        """(n, T) the statistic, NaN after a session's end."""
        return self.policy.of(self.odds_of(sessions), sessions)


def _mean(pooled: F64, stepwise: peers.DensityRatio, sessions: Sessions) -> F64:
    return (pooled + stepwise.of(sessions) + stepwise.prior) / 2.0


def _crossed(pooled: F64, train: Sessions, fold: Index) -> F64:
    """(n, T) log-odds by models that have not seen the session, from the pooled ones that have not."""
    out = np.empty(pooled.shape)
    for held_out in range(FOLDS):
        rows = np.flatnonzero(fold == held_out)
        stepwise = peers.density_ratio(train.take(np.flatnonzero(fold != held_out)))
        out[rows] = _mean(pooled[rows], stepwise, train.take(rows))
    return out


def fit(train: Sessions, *, alpha: float, seed: int) -> Learned:
    """Fit on training sessions.

    Args:
        train: labelled sessions of both kinds.
        alpha: the level at which triggers will be asked for; it shapes the policy, not the guarantee.
        seed: of the folds.
    """
    seen: Prefixes = prefixes(train)
    fold = np.random.default_rng(seed).permutation(len(train)) % FOLDS
    weight = train.length[seen.session] ** -LENGTH_POWER
    pooled, crossed = odds_model.fit(seen, ~train.solved, weight, fold)
    policy = stopping.fit(_crossed(seen.matrix(crossed), train, fold), train, alpha)
    return Learned(pooled, peers.density_ratio(train), policy)
