"""Every rule on one split: tcd's learned statistic, its parts, and the peers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tcd.bench.sessions import learned, odds, peers, splits
from tcd.bench.sessions.data import F64, Sessions
from tcd.bench.sessions.features import prefixes
from tcd.bench.sessions.splits import Outcome, Split

TCD: Final = "tcd: learned, sup-conformal"
PLAIN: Final = "plain threshold, sup-conformal"
ANYTIME: Final = "E-valuator, anytime rule"
SPLIT: Final = "E-valuator, split rule"
RATIO: Final = "E-valuator's ratio, sup-conformal"
ODDS: Final = "tcd without the value of waiting"
HINDSIGHT: Final = "reference: judged once, after the end"
#: What each is, in the order of the report.
ABOUT: Final = {
    TCD: "log-odds of failing less the value of waiting, fitted on other sessions; conformal on their maxima",
    ODDS: "the log-odds alone",
    PLAIN: "1 - the judge's probability, conformal on session maxima; nothing learned",
    RATIO: "its density ratio with our calibration in place of its thresholds",
    SPLIT: "ratio fitted on one half of the labelled sessions, tolerance bound (confidence .9) from the other",
    ANYTIME: "ratio fitted on all labelled sessions, threshold 1/alpha",
    HINDSIGHT: "log-odds when the session is over and known to be: no monitor can act on it",
}


def _conformal(table: F64, values: F64, test: Sessions, alpha: float) -> Outcome:
    p = splits.session_p(splits.table_of(table), values)
    return splits.outcome(np.where(np.isnan(p), np.nan, p <= alpha), test, values)


def _above(values: F64, threshold: float) -> F64:
    return np.where(np.isnan(values), np.nan, values > threshold)


def _ended(sessions: Sessions, values: F64) -> F64:
    """(n, T) values of the last step, which is given away by being the last; -inf before."""
    out = np.where(np.isnan(values), np.nan, -np.inf)
    rows = np.arange(len(sessions))
    out[rows, sessions.length - 1] = values[rows, sessions.length - 1]
    return out


def _hindsight(train: Sessions) -> odds.Odds:
    """Log-odds of a session that is over, from its last prefix alone."""
    seen = prefixes(train)
    last = seen.step == train.length[seen.session] - 1
    part = type(seen)(seen.values[last], seen.session[last], seen.step[last], seen.shape)
    return odds.fit_whole(part, ~train.solved, np.ones(int(last.sum())))


def _hindsight_of(model: odds.Odds, sessions: Sessions) -> F64:
    seen = prefixes(sessions)
    values = _ended(sessions, seen.matrix(model.of(seen)))
    # the fixed point of the tables has a finite floor
    return np.where(np.isneginf(values), -1e6, values)


@dataclass(frozen=True, slots=True)
class Ours:
    """What tcd's rule saw on a test part.

    Attributes:
        top: (m,) session maxima of the statistic.
        p: (m, T) p-values, NaN after the end.
    """

    top: F64
    p: F64


def all_rules(sessions: Sessions, part: Split, alpha: float, seed: int) -> tuple[dict[str, Outcome], Ours]:
    """Outcomes by rule, and what tcd's own decisions rest on."""
    test, calibration = sessions.take(part.test), sessions.take(part.calibration)
    labelled = sessions.take(part.labelled)
    benign = labelled.take(np.flatnonzero(labelled.solved))
    fitted = learned.fit(sessions.take(part.train), alpha=alpha, seed=seed)
    table, ours = fitted.of(calibration), fitted.of(test)
    out = {
        TCD: _conformal(table, ours, test, alpha),
        ODDS: _conformal(fitted.odds_of(calibration), fitted.odds_of(test), test, alpha),
        # nothing is learned: all solved labelled sessions are for the table
        PLAIN: _conformal(peers.plain(benign), peers.plain(test), test, alpha),
    }
    half = len(labelled) // 2
    # the labelled rows are in random order
    first, second = labelled.take(np.arange(half)), labelled.take(np.arange(half, len(labelled)))
    held = second.take(np.flatnonzero(second.solved))
    ratio = peers.density_ratio(first)
    on_held, on_test = ratio.of(held), ratio.of(test)
    out[RATIO] = _conformal(on_held, on_test, test, alpha)
    bound = peers.tolerance_bound(peers.maxima(on_held), alpha, peers.DELTA)
    out[SPLIT] = splits.outcome(_above(on_test, bound), test)
    anytime = peers.density_ratio(labelled).of(test)
    out[ANYTIME] = splits.outcome(_above(anytime, float(-np.log(alpha))), test)
    hindsight = _hindsight(sessions.take(part.train))
    out[HINDSIGHT] = _conformal(_hindsight_of(hindsight, calibration), _hindsight_of(hindsight, test), test, alpha)
    return out, Ours(peers.maxima(ours), splits.session_p(splits.table_of(table), ours))
