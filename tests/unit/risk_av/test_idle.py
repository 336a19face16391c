"""Streams at rest: the same state when they wake, nothing forgotten that was spent, a small row each."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tcd.bench.controller.cost import growth, subject, visit
from tcd.risk_av import Controller, ControllerParams, ReplayError, Rested, RuleName

PARAMS = ControllerParams(schedule=("uniform", 10), credit_cap=2)


def used(stream: str = "s", *, rule: RuleName = "rai") -> Controller:
    """A stream with a rejection, an alarm in reach and an epoch behind it; nothing open."""
    controller = Controller(replace(PARAMS, rule=rule))
    for i in range(13):
        alpha = controller.reserve(stream=stream, hypothesis=str(i), user="u").alpha
        p = 1e-9 if i in {3, 11} else 0.3
        controller.settle(stream=stream, hypothesis=str(i), p=p, trigger=p <= alpha)
        controller.close(stream=stream, hypothesis=str(i), reason="end")
    return controller


def test_a_stream_wakes_as_it_was() -> None:
    one, two = used(), used()
    assert two.rest(stream="s")
    assert two.rest(stream="s")
    assert (two.streams, two.count, two.knows("s"), two.knows("t")) == ((), 1, True, False)
    assert two.state("s") == one.state("s")
    assert two.state("s").alarm
    for controller in (one, two):
        # the credits of a user are capped also across a rest
        for i in range(20, 26):
            alpha = controller.reserve(stream="s", hypothesis=str(i), user="u").alpha
            controller.settle(stream="s", hypothesis=str(i), p=0.0, trigger=alpha >= 0.0)
            controller.close(stream="s", hypothesis=str(i), reason="end")
    assert two.state("s") == one.state("s")
    assert two.streams == ("s",)


def test_resting_is_an_event_and_replays_bit_for_bit() -> None:
    controller = used()
    controller.rest(stream="s")
    controller.configure(replace(PARAMS, alpha=0.02))
    controller.reserve(stream="s", hypothesis="x")
    controller.close(stream="s", hypothesis="x", reason="idle")
    controller.rest(stream="s")
    events = controller.take_events()
    assert sum(isinstance(event, Rested) for event in events) == 2
    assert Controller.replay(events, PARAMS).digest() == controller.digest()
    assert controller.state("s").alpha == 0.02


def test_an_acknowledgement_and_a_roll_wake_a_stream() -> None:
    controller = used()
    controller.rest(stream="s")
    assert controller.acknowledge(stream="s") == 1
    assert not controller.state("s").alarm
    controller.rest(stream="s")
    epoch = controller.state("s").epoch
    controller.roll(stream="s")
    assert controller.state("s").epoch == epoch + 1


def test_what_is_open_does_not_rest() -> None:
    controller = used()
    controller.reserve(stream="s", hypothesis="open")
    assert not controller.rest(stream="s")
    assert not controller.rest(stream="unknown")
    with pytest.raises(ReplayError, match="cannot rest"):
        controller.accept([Rested("s")])
    assert not used(rule="lord").rest(stream="s")


def test_many_streams_rest_wake_and_are_told_apart() -> None:
    controller = Controller(PARAMS)
    for round_ in range(3):
        for number in range(700):
            visit(controller, number)
        assert controller.count == 700
        assert all(controller.state(subject(number)).reserved_total == round_ + 1 for number in range(0, 700, 37))
    assert controller.state(subject(700)).reserved_total == 0
    assert controller._idle.nbytes / 4096 < 256


def test_memory_per_subject_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    found = growth(20_000, visits=100)
    with capsys.disabled():
        pass
    assert found["subjects"] == 20_000
    assert found["rss_bytes_per_subject"] < 400  # RSS moves in pages of the allocator; 10^6 subjects: the bench
