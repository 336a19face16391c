"""River's detectors as peers: what is swept is what river does, and the budget is kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from river.drift import KSWIN

from tcd.bench.detector import budget, drift, peers, recordings

SMALL = Path(__file__).resolve().parents[2] / "data" / "traces_small"


@pytest.fixture(scope="module")
def small() -> recordings.Recordings:
    return recordings.load(SMALL, most=14)


@pytest.mark.parametrize("level", [0.05, 1e-3])
def test_kswin_at_a_level_is_rivers_also_after_its_alarms(level: float) -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.normal(m, 1.0, 90) for m in (0.0, 2.0, -1.0, 3.0)])
    cached = drift.Kswin(40, 15)
    cached(values, 1e-6, values.shape[0])
    theirs = KSWIN(alpha=level, window_size=40, stat_size=15, seed=0)
    flags = []
    for value in values.tolist():
        theirs.update(value)  # type: ignore[no-untyped-call]
        flags.append(theirs.drift_detected)
    assert cached(values, level, values.shape[0]).tolist() == flags
    assert sum(flags) >= 2
    assert cached(values, level, 50).tolist() == flags[:50]


@pytest.mark.parametrize("name", ["river ADWIN", "river Page-Hinkley"])
def test_a_sweep_finds_the_most_sensitive_setting_within_the_budget(small: recordings.Recordings, name: str) -> None:
    family = drift.families()[name]
    flags = next(iter(family.variants.values()))
    values = peers.standardised(small, peers.entropy)
    allowed = budget.healthy_tokens(small.steps) // budget.TOKENS
    kept = drift.swept(small.steps, values, flags, family.settings, 0)
    assert kept is not None
    setting, found = kept
    assert budget.sounded(small.steps, found, 0) <= allowed
    place = family.settings.index(setting)
    assert place > 0
    sooner = [flags(v, family.settings[place - 1], v.shape[0]) for v in values]
    assert budget.sounded(small.steps, sooner, 0) > allowed


def test_no_setting_may_keep_the_budget(small: recordings.Recordings) -> None:
    values = peers.standardised(small, peers.entropy)

    def always(one: drift.F64, setting: float, stop: int) -> drift.Bool:
        return np.ones(min(stop, one.shape[0]), np.bool_)

    assert drift.swept(small.steps, values, always, (1.0, 2.0), 32) is None


def test_a_row_names_the_feed_that_served_best(small: recordings.Recordings) -> None:
    family = drift.families()["river ADWIN"]
    row = drift.measure(small, family, feeds=("entropy", "surprisal"))
    assert set(row["feeds"]["alarms"]) == {"entropy, clock 1", "surprisal, clock 1"}
    for reading in budget.READINGS:
        best = max(row["feeds"][reading], key=row["feeds"][reading].__getitem__)
        assert row[reading]["setting"].startswith(best)
        assert row[reading]["per_1000"] <= 1.0


def test_as_shipped_is_rivers_default() -> None:
    values = np.concatenate([np.zeros(60), np.full(60, 5.0)]) + np.random.default_rng(1).normal(0, 0.1, 120)
    for name, family in drift.families().items():
        flags = family.shipped(values)
        assert not flags[:60].any(), name
        assert flags.shape == (120,)
    assert drift.families()["river ADWIN"].shipped(values)[60:].any()


def test_a_detector_starts_afresh_after_an_alarm() -> None:
    flags = partial(drift._page_hinkley, 0.005)(np.tile([0.0, 9.0], 200), 2.0, 400)
    alarms = np.flatnonzero(flags)
    assert alarms.shape[0] > 5
    assert np.diff(alarms).min() >= 16
