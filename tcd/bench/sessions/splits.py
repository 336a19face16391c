"""One split: fit, calibrate, test; and what comes out of it for every rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from tcd.bench.sessions import peers
from tcd.bench.sessions.data import F64, Index, Sessions
from tcd.calibration.conformal import p_value, quantise

#: Part of the sessions whose labels are used; the rest is the test.
LABELLED: Final = 0.5
#: Part of the solved labelled sessions that make the conformal table; all other labelled ones are for fitting.
CALIBRATION: Final = 0.4
#: Rates of false alarms at which the power is read off.
RATES: Final = tuple(round(0.0025 * k, 4) for k in range(1, 41))


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of three disjoint parts, and the two halves that E-valuator's split rule makes of the labelled ones.

    Attributes:
        labelled: all rows whose labels a rule may use.
        train: labelled rows for fitting; among them all that failed, which no table needs.
        calibration: solved labelled rows, disjoint from `train`.
        test: the others.
    """

    labelled: Index
    train: Index
    calibration: Index
    test: Index


def split(sessions: Sessions, seed: int, *, pool: Index | None = None, test: Index | None = None) -> Split:
    """A seeded split.

    Args:
        sessions: all of them.
        seed: of the split.
        pool: rows that may be labelled, all of which are; None = a random `LABELLED` part.
        test: rows of the test when `pool` is given.
    """
    rng = np.random.default_rng(seed)
    if pool is None or test is None:
        order = rng.permutation(len(sessions))
        cut = int(LABELLED * len(sessions))
        pool, test = order[:cut], order[cut:]
    else:
        pool = rng.permutation(pool)
    solved = pool[sessions.solved[pool]]
    held = solved[: int(CALIBRATION * len(solved))]
    return Split(pool, np.setdiff1d(pool, held), held, test)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One rule on one test part.

    Attributes:
        false_alarm: part of the solved sessions that trigger.
        power: part of the failing sessions that trigger.
        triggered: (m,) of the test sessions.
        step: mean part of a session, of the failing ones that trigger, that was seen at the trigger.
        curve: power at each of `RATES` by moving the threshold on the test part; empty for a rule with no statistic.
    """

    false_alarm: float
    power: float
    triggered: F64
    step: float
    curve: F64 = field(default_factory=lambda: np.empty(0))


def table_of(statistic: F64) -> F64:
    """The conformal table of (n, T) statistics of calibration sessions: their maxima in the fixed point, ascending."""
    return np.sort(quantise(peers.maxima(statistic)))


def session_p(table: F64, statistic: F64) -> F64:
    """(n, T) p-values of the running maxima; NaN after a session's end."""
    running = peers.running_maximum(statistic)
    return np.where(np.isnan(running), np.nan, p_value(table, quantise(np.nan_to_num(running))))


def power_at(benign: F64, failing: F64, rates: tuple[float, ...] | F64) -> F64:
    """Power at given rates of false alarms, thresholds set on the same sessions; ties are split in proportion.

    Args:
        benign: (m,) statistics of solved sessions.
        failing: statistics of failing sessions.
        rates: in [0, 1).
    """
    ordered, sick = np.sort(benign)[::-1], np.sort(failing)
    wanted = np.asarray(rates, np.float64)
    threshold = ordered[np.minimum((wanted * len(ordered)).astype(np.int64), len(ordered) - 1)]
    up = np.sort(benign)

    def above(values: F64, side: str) -> F64:
        return np.asarray(1.0 - np.searchsorted(values, threshold, side=side) / len(values))  # type: ignore[call-overload]

    over, reach = above(up, "right"), above(up, "left")
    part = np.clip((wanted - over) / np.maximum(reach - over, 1e-12), 0.0, 1.0)
    low, high = above(sick, "right"), above(sick, "left")
    return np.asarray(low + part * (high - low))


def outcome(reject: F64, test: Sessions, statistic: F64 | None = None) -> Outcome:
    """Of (m, T) rejections (1, 0, NaN after the end), and the statistic behind them."""
    hit = np.nan_to_num(reject) > 0.0
    triggered = hit.any(axis=1)
    caught = triggered & ~test.solved
    seen = (hit.argmax(axis=1) + 1) / test.length
    curve = np.empty(0)
    if statistic is not None:
        top = peers.maxima(statistic)
        curve = power_at(top[test.solved], top[~test.solved], RATES)
    return Outcome(
        float(triggered[test.solved].mean()),
        float(triggered[~test.solved].mean()),
        triggered.astype(np.float64),
        float(seen[caught].mean()) if caught.any() else float("nan"),
        curve,
    )
