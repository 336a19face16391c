"""The experiment: many seeded splits of each data set, and the sessions that no choice of the statistic has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tcd.bench.controller.rate import Rate
from tcd.bench.sessions import rules, splits, stream
from tcd.bench.sessions.data import F64, Bool, Index, Sessions, load_all
from tcd.bench.sessions.splits import Outcome

ALPHA: Final = 0.05
#: (false alarms, power) of the design's measurements, by data set: `statistics.md`, experiment 4.
PUBLISHED: Final[dict[str, dict[str, tuple[float, float]]]] = {
    "math": {rules.PLAIN: (0.053, 0.126), rules.ANYTIME: (0.010, 0.040), rules.SPLIT: (0.043, 0.144)},
    "gsm8k": {rules.PLAIN: (0.058, 0.145), rules.ANYTIME: (0.007, 0.053), rules.SPLIT: (0.047, 0.165)},
}
#: Half of each data set, set aside by this seed before the statistic was designed on the other half.
UNSEEN_SEED: Final = 12345
#: Resamples of the unseen sessions.
BOOTSTRAPS: Final = 200
#: Rules that tcd is compared with at their own false alarms.
PEERS: Final = (rules.PLAIN, rules.RATIO, rules.SPLIT, rules.ANYTIME)
_Z: Final = 3.2905


@dataclass(slots=True)
class _Tally:
    """What the splits of one data set gave."""

    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    matched: dict[str, list[float]] = field(default_factory=dict)
    at_published: dict[str, list[float]] = field(default_factory=dict)
    streams: list[dict[str, float]] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)


def interval(values: Sequence[float] | F64) -> list[float]:
    """Mean and its 99.9 % interval over independent splits; not clipped."""
    array = np.asarray(values, np.float64)
    mean, error = float(array.mean()), float(array.std(ddof=1)) / len(array) ** 0.5 if len(array) > 1 else 0.0
    return [mean, mean - _Z * error, mean + _Z * error]


def _streams(p: F64, benign: Bool, calibration: int, seed: int) -> dict[str, float]:
    """Epochs of the test sessions, and of its solved ones alone, through the real controller."""
    order = np.random.default_rng(seed).permutation(len(p))
    length = stream.length_for(calibration, ALPHA)
    mixed = stream.play(p[order], benign[order], alpha=ALPHA, length=length)
    well = order[benign[order]]
    null = stream.play(p[well], benign[well], alpha=ALPHA, length=length)
    return {
        "length": float(length),
        "epochs": float(len(mixed)),
        "sup_fdr": float(np.mean([e.sup_fdp for e in mixed])),
        "power": sum(e.caught for e in mixed) / max(1, sum(e.failing for e in mixed)),
        "null_epochs": float(len(null)),
        "null_trigger": float(np.mean([e.false_alarms > 0 for e in null])),
    }


def _collect(sessions: Sessions, parts: Sequence[tuple[int, splits.Split]], streams: int) -> _Tally:
    tally = _Tally()
    for number, (seed, part) in enumerate(parts):
        outcomes, ours = rules.all_rules(sessions, part, ALPHA, seed)
        top = ours.top
        solved = sessions.solved[part.test]
        for name, one in outcomes.items():
            tally.outcomes.setdefault(name, []).append(one)
        own = [outcomes[name].false_alarm for name in PEERS]
        gains = splits.power_at(top[solved], top[~solved], np.asarray(own))
        for name, power in zip(PEERS, gains, strict=True):
            tally.matched.setdefault(name, []).append(float(power) - outcomes[name].power)
        published = PUBLISHED.get(sessions.name, {})
        if published:
            powers = splits.power_at(top[solved], top[~solved], tuple(rate for rate, _ in published.values()))
            for name, power in zip(published, powers, strict=True):
                tally.at_published.setdefault(name, []).append(float(power))
        if number < streams:
            tally.streams.append(_streams(ours.p, solved, len(part.calibration), seed))
        tally.sizes = {
            "train": len(part.train),
            "calibration": len(part.calibration),
            "test_solved": int(solved.sum()),
            "test_failing": int((~solved).sum()),
        }
    return tally


def _rows(tally: _Tally) -> dict[str, Any]:
    rows = {}
    for name, outcomes in tally.outcomes.items():
        delays = [o.step for o in outcomes if not np.isnan(o.step)]
        rows[name] = {
            "false_alarm": interval([o.false_alarm for o in outcomes]),
            "power": interval([o.power for o in outcomes]),
            "seen_at_trigger": float(np.mean(delays)) if delays else None,
            "curve": np.mean([o.curve for o in outcomes], axis=0).tolist() if len(outcomes[0].curve) else [],
        }
        if name in PEERS:
            rows[name]["tcd_less_it_at_its_false_alarms"] = interval(tally.matched[name])
    return rows


def _published(name: str, tally: _Tally) -> dict[str, Any]:
    return {
        rule: {
            "false_alarm": PUBLISHED[name][rule][0],
            "power": PUBLISHED[name][rule][1],
            "tcd_power_there": interval(powers),
        }
        for rule, powers in tally.at_published.items()
    }


def _rates(name: str, tally: _Tally) -> list[Rate]:
    """What the run is held to."""
    out = []
    for rule in (rules.TCD, rules.PLAIN, rules.RATIO, rules.ODDS):
        values = np.array([o.false_alarm for o in tally.outcomes[rule]])
        out.append(_mean("false alarms", f"{name}: {rule}", values))
    if tally.streams:
        kept = tally.streams
        length = int(kept[0]["length"])
        for key, label in (
            ("null_trigger", "P(any trigger), solved sessions alone"),
            ("sup_fdr", "SupFDR, all sessions"),
        ):
            values = np.array([s[key] for s in kept])
            out.append(_mean("controller", f"{name}: {label}, epochs of {length}", values))
    return out


def _mean(experiment: str, label: str, values: F64) -> Rate:
    std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Rate.of_mean(experiment, label, float(values.mean()), std, len(values), bound=ALPHA, check="at_most")


def unseen_half(n: int) -> tuple[Index, Index]:
    """Rows on which the statistic was designed, and rows that no choice has seen."""
    order = np.random.default_rng(UNSEEN_SEED).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def _unseen(sessions: Sessions, draws: int) -> dict[str, Any]:
    """Fit and calibrate on the design half, test on the other; intervals from a bootstrap over test sessions."""
    design, test = unseen_half(len(sessions))
    parts = [(seed, splits.split(sessions, seed, pool=design, test=test)) for seed in range(draws)]
    solved = sessions.solved[test]
    rng = np.random.default_rng(1)
    outcomes, tops = [], []
    for seed, part in parts:
        one, ours = rules.all_rules(sessions, part, ALPHA, seed)
        outcomes.append(one)
        tops.append(ours.top)
    drawn = [np.arange(len(test)), *(rng.integers(len(test), size=len(test)) for _ in range(BOOTSTRAPS))]
    table_error = (ALPHA * (1.0 - ALPHA) / max(1, int(sessions.solved[design].sum()))) ** 0.5
    # (resample, rule): means over the draws of false alarms, power, and what tcd gains at the same false alarms
    means = np.array(
        [
            np.mean([_shares(o, top, solved, rows) for o, top in zip(outcomes, tops, strict=True)], axis=0)
            for rows in drawn
        ]
    )
    low, high = np.quantile(means[1:], [0.025, 0.975], axis=0)
    found: dict[str, Any] = {}
    for k, name in enumerate((rules.TCD, *PEERS)):
        alarm, error = float(means[0, 0, k]), float(np.hypot(means[1:, 0, k].std(), table_error))
        found[name] = {
            "false_alarm": [alarm, alarm - 1.96 * error, alarm + 1.96 * error],
            "power": [float(v[1, k]) for v in (means[0], low, high)],
        }
        if name != rules.TCD:
            found[name]["tcd_less_it_at_its_false_alarms"] = [float(v[2, k]) for v in (means[0], low, high)]
    return {"draws": draws, "solved": int(solved.sum()), "failing": int((~solved).sum()), "rules": found}


def _shares(outcomes: dict[str, Outcome], top: F64, solved: Bool, rows: Index) -> F64:
    """(3, rules) false alarms, power, and tcd's power at these false alarms less the rule's, on resampled sessions."""
    well = solved[rows]
    hits = np.stack([outcomes[name].triggered[rows] for name in (rules.TCD, *PEERS)])
    alarm, power = hits[:, well].mean(axis=1), hits[:, ~well].mean(axis=1)
    mine = top[rows]
    return np.stack([alarm, power, splits.power_at(mine[well], mine[~well], alarm) - power])


def one(sessions: Sessions, *, count: int, streams: int, draws: int) -> tuple[dict[str, Any], list[Rate]]:
    """The result of one data set, and the rates that it is held to."""
    tally = _collect(sessions, [(seed, splits.split(sessions, seed)) for seed in range(count)], streams)
    result: dict[str, Any] = {
        "sessions": len(sessions),
        "failing": int((~sessions.solved).sum()),
        "steps": int(sessions.length.sum()),
        "longest": int(sessions.length.max()),
        "splits": count,
        "sizes": tally.sizes,
        "rules": _rows(tally),
        "published": _published(sessions.name, tally),
        "unseen": _unseen(sessions, draws),
    }
    if tally.streams:
        keys = tally.streams[0]
        result["streams"] = {key: interval([s[key] for s in tally.streams]) for key in keys}
        result["streams"]["splits"] = len(tally.streams)
    return result, _rates(sessions.name, tally)


def measure(data: Path | Sequence[Sessions], *, small: bool = False) -> dict[str, Any]:
    """Every data set of a directory, as JSON values.

    Args:
        data: a directory of judge trajectories, or the sessions themselves.
        small: six splits instead of twenty, as CI runs it.

    Raises:
        tcd.errors.AssetError: there are no data, or they are not what the format says.
    """
    from threadpoolctl import threadpool_limits

    count, streams, draws = (6, 2, 2) if small else (20, 8, 2)
    sets, held = {}, []
    # the regressions are small: threads that wait for each other cost ten times the work on a busy machine
    with threadpool_limits(1):
        for sessions in load_all(data) if isinstance(data, Path) else data:
            sets[sessions.name], rates = one(sessions, count=count, streams=streams, draws=draws)
            held += rates
    return {
        "alpha": ALPHA,
        "rates": list(splits.RATES),
        "sets": sets,
        "held_to": [rate.to_json() for rate in held],
        "ok": all(rate.ok for rate in held),
    }
