"""Patches: two people, a time, a canary, a roll-back by itself; and the events are the state."""

from __future__ import annotations

from typing import Any

import pytest

from tcd.errors import Conflict, Forbidden, NotFound, ValidationFailed
from tcd.trust import Event, Objective, PatchRuntime
from tcd.trust.patches import MAX_ENDED, MAX_OWN, MAX_UNUSED, parted

ALLOWED = {"deadline_ms": lambda v: type(v) is int and 0 < v <= 1000, "mode": lambda v: v == "enforce"}


def make(**changes: Any) -> tuple[PatchRuntime, list[Event]]:
    runtime = PatchRuntime(ALLOWED, objective=Objective(least=10, share=0.2))
    terms = {"setting": "deadline_ms", "value": 500, "ttl": 60.0, "share": 1.0, **changes}
    return runtime, runtime.register("p", actor="ann", now=0.0, **terms)


def active(**changes: Any) -> tuple[PatchRuntime, list[Event]]:
    runtime, events = make(**changes)
    events += runtime.approve("p", actor="bob", now=1.0)
    events += runtime.apply("p", actor="ann", now=2.0)
    return runtime, events


def test_the_author_cannot_approve_and_nothing_is_in_force_before() -> None:
    runtime, _ = make()
    with pytest.raises(Forbidden):
        runtime.approve("p", actor="ann", now=1.0)
    with pytest.raises(Conflict):
        runtime.apply("p", actor="ann", now=1.0)
    assert runtime.overrides("s", 1.0) == {}


def test_it_is_in_force_for_its_time_only_even_without_a_tick() -> None:
    runtime, _ = active()
    assert runtime.overrides("s", 61.9) == {"deadline_ms": 500}
    assert runtime.overrides("s", 62.0) == {}
    assert [e.kind for e in runtime.tick(62.0)] == ["expire"]
    assert runtime.tick(63.0) == []


def test_the_canary_is_a_share_and_always_the_same() -> None:
    runtime, _ = active(share=0.25)
    chosen = [bool(runtime.overrides(f"s{i}", 3.0)) for i in range(4000)]
    assert chosen == [bool(runtime.overrides(f"s{i}", 30.0)) for i in range(4000)]
    assert 0.21 < sum(chosen) / 4000 < 0.29


def test_a_missed_objective_rolls_back() -> None:
    runtime, _ = active()
    events: list[Event] = []
    for i in range(20):
        events += runtime.observe("p", bad=i % 3 == 0, now=3.0 + i)
    assert [(e.kind, e.actor, e.reason) for e in events] == [
        ("roll_back", "slo", "4 of 10 answers missed the objective")
    ]
    assert runtime.overrides("s", 20.0) == {}


def test_an_objective_that_is_met_does_not() -> None:
    runtime, _ = active()
    for i in range(100):
        assert runtime.observe("p", bad=i % 5 == 4, now=3.0) == []
    assert runtime.get("p").state == "active"


def test_a_second_patch_of_a_setting_ends_the_first() -> None:
    runtime, _ = active()
    runtime.register("q", setting="deadline_ms", value=100, actor="bob", now=3.0, ttl=60.0)
    runtime.approve("q", actor="ann", now=3.0)
    assert [(e.kind, e.patch) for e in runtime.apply("q", actor="bob", now=4.0)] == [("roll_back", "p"), ("apply", "q")]
    assert runtime.overrides("s", 5.0) == {"deadline_ms": 100}


def test_refusals() -> None:
    runtime, _ = make()
    for change in ({"setting": "alpha"}, {"value": 0}, {"value": True}, {"ttl": 0.0}, {"ttl": 1e9}, {"share": 0.0}):
        terms = {"setting": "deadline_ms", "value": 500, "ttl": 60.0, "share": 1.0, **change}
        with pytest.raises(ValidationFailed):
            runtime.register("q", actor="ann", now=0.0, **terms)  # type: ignore[arg-type] # of many types
    with pytest.raises(Conflict):
        runtime.register("p", setting="mode", value="enforce", actor="ann", now=0.0, ttl=1.0)
    with pytest.raises(NotFound):
        runtime.approve("z", actor="bob", now=0.0)
    runtime.withdraw("p", actor="ann", now=1.0)
    with pytest.raises(Conflict):
        runtime.roll_back("p", actor="ann", now=2.0)


def test_replaying_the_events_gives_the_state() -> None:
    runtime, events = active(share=0.5)
    events += runtime.register("q", setting="mode", value="enforce", actor="bob", now=3.0, ttl=9.0)
    events += runtime.roll_back("p", actor="bob", now=4.0)
    again = PatchRuntime.replay(events, ALLOWED)
    assert list(again) == list(runtime)
    assert [p.state for p in again] == ["rolled_back", "registered"]


def ended(runtime: PatchRuntime, name: str, at: float, *, used: bool = True) -> list[Event]:
    events = runtime.register(name, setting="mode", value="enforce", actor="ann", now=at, ttl=60.0)
    if not used:
        return [*events, *runtime.withdraw(name, actor="ann", now=at)]
    events += runtime.approve(name, actor="bob", now=at)
    events += runtime.apply(name, actor="ann", now=at)
    return [*events, *runtime.roll_back(name, actor="bob + ann", now=at)]


def test_those_that_are_over_are_forgotten_and_the_events_that_stay_give_the_same_state() -> None:
    runtime, events = active()
    for number in range(MAX_ENDED + 10):
        events += ended(runtime, f"used-{number}", 3.0)
    for number in range(MAX_UNUSED + 10):
        # names that say nothing of an order, and a clock that goes back
        events += ended(runtime, f"not-{number}", 100.0 - number, used=False)
    names = [patch.id for patch in runtime]
    assert names[:2] == ["p", "used-10"]
    assert (len(names), names[-1]) == (1 + MAX_ENDED + MAX_UNUSED, f"not-{MAX_UNUSED + 9}")
    with pytest.raises(Conflict, match="known"):
        runtime.register("used-10", setting="mode", value="enforce", actor="ann", now=200.0, ttl=1.0)
    # a name that is forgotten may be used again, and what it was before is still told from what it is
    events += ended(runtime, "used-0", 200.0)
    assert list(PatchRuntime.replay(events, ALLOWED)) == list(runtime)
    needed, over = parted(events, runtime)
    assert list(PatchRuntime.replay(needed, ALLOWED)) == list(runtime)
    assert [event.patch for event in over if event.kind == "register"] == [f"used-{number}" for number in range(11)]
    assert {event.kind for event in over} == {"register", "approve", "apply", "roll_back"}
    assert not any(event.patch.startswith("not-") for event in over)
    assert parted(needed, runtime) == (needed, [])


def test_one_author_cannot_take_all_the_room() -> None:
    runtime = PatchRuntime(ALLOWED)
    for number in range(MAX_OWN):
        runtime.register(f"a{number}", setting="mode", value="enforce", actor="ann", now=0.0, ttl=1.0)
    with pytest.raises(Conflict, match="of yours"):
        runtime.register("more", setting="mode", value="enforce", actor="ann", now=0.0, ttl=1.0)
    runtime.register("bobs", setting="mode", value="enforce", actor="bob", now=0.0, ttl=1.0)
    runtime.withdraw("a0", actor="ann", now=0.0)
    runtime.register("more", setting="mode", value="enforce", actor="ann", now=0.0, ttl=1.0)
