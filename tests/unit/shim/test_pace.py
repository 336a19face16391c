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
    decide(pace, 100.0, seconds=400 * (0.4 + idle), each=0.4, at_once=40, idle=idle)
    assert pace.rate == pytest.approx(100.0, rel=0.02)
    assert pace.wait(50) == pytest.approx(0.5, rel=0.02)


def test_a_few_at_a_time_say_nothing_about_many() -> None:
    """One caller after the other is decided in 20 ms each; a hundred at once are not refused for that."""
    pace = Pace()
    now = decide(pace, 0.0, seconds=60.0, each=0.02)
    assert pace.wait(100) == 0.0
    now = decide(pace, now, seconds=2.0, each=0.05, at_once=64)
    assert pace.rate == pytest.approx(1280.0, rel=0.05)
    decide(pace, now, seconds=600.0, each=0.02)
    assert pace.rate == pytest.approx(1280.0, rel=0.05)


def test_it_rises_at_once_and_falls_slowly() -> None:
    pace = Pace()
    now = decide(pace, 0.0, seconds=5.0, each=0.4, at_once=40)
    now = decide(pace, now, seconds=1.1, each=0.025, at_once=40)
    assert pace.rate == pytest.approx(1600.0, rel=0.05)
    now = decide(pace, now, seconds=1.3, each=0.4, at_once=40)
    assert 1100.0 < pace.rate < 1600.0
    decide(pace, now, seconds=60.0, each=0.4, at_once=40)
    assert pace.rate == pytest.approx(100.0, rel=0.05)


def test_overlapping_work_of_any_length_counts_once() -> None:
    """Whatever overlaps, decisions over the time in which there was one: against a count by hand."""
    rng = np.random.default_rng(4)
    begin = np.cumsum(rng.exponential(0.004, 4000))
    end = begin + rng.exponential(0.3, 4000)
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
    assert np.median(rates) == pytest.approx(4000 / busy, rel=0.25)
