"""The pace of decisions: of the time with work alone, quick to rise and slow to fall."""

from __future__ import annotations

import numpy as np
import pytest

from sidecar_api.pace import Pace


def decide(pace: Pace, now: float, *, seconds: float, each: float, at_once: int = 1, idle: float = 0.0) -> float:
    """Decisions of `each` seconds, `at_once` of them at a time, with pauses between; returns the time."""
    until = now + seconds
    while now < until:
        for _ in range(at_once):
            pace.begun(now)
        now += each
        for _ in range(at_once):
            pace.ended(now)
        now += idle
    return now


def test_nothing_is_known_at_first() -> None:
    pace = Pace()
    assert pace.wait(1000) == 0.0
    decide(pace, 0.0, seconds=0.4, each=0.01)
    assert pace.wait(1000) == 0.0


@pytest.mark.parametrize("idle", [0.0, 0.05, 3.0])
def test_time_without_work_does_not_count(idle: float) -> None:
    pace = Pace()
    decide(pace, 100.0, seconds=400 * (0.01 + idle), each=0.01, idle=idle)
    assert pace.rate == pytest.approx(100.0, rel=0.02)
    assert pace.wait(50) == pytest.approx(0.5, rel=0.02)


def test_it_rises_at_once_and_falls_slowly() -> None:
    pace = Pace()
    now = decide(pace, 0.0, seconds=5.0, each=0.01)
    now = decide(pace, now, seconds=1.1, each=0.01, at_once=16)
    assert pace.rate == pytest.approx(1600.0, rel=0.05)
    now = decide(pace, now, seconds=1.1, each=0.01)
    assert 1100.0 < pace.rate < 1600.0
    decide(pace, now, seconds=40.0, each=0.01)
    assert pace.rate == pytest.approx(100.0, rel=0.05)


def test_overlapping_work_of_any_length_counts_once() -> None:
    """Whatever overlaps, decisions over the time in which there was one: against a count by hand."""
    rng = np.random.default_rng(4)
    begin = np.cumsum(rng.exponential(0.004, 4000))
    end = begin + rng.exponential(0.01, 4000)
    marks = sorted([(at, 1) for at in begin] + [(at, -1) for at in end])
    pace, work, since, busy, rates = Pace(), 0, 0.0, 0.0, []
    for at, change in marks:
        if change > 0:
            since = at if not work else since
            pace.begun(at)
        else:
            pace.ended(at)
            busy += at - since if work == 1 else 0.0
        work += change
        rates.append(pace.rate)
    assert np.median(rates) == pytest.approx(4000 / busy, rel=0.15)
