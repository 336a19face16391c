"""The controller's front: streams that are not used rest, and nothing about them changes."""

from __future__ import annotations

import pytest

from sidecar_api.budget import Budget
from tcd.errors import Unavailable
from tcd.risk_av import Controller, ControllerParams


def use(budget: Budget, stream: str, name: str) -> int:
    budget.open(stream, "tenant")
    index = budget.reserve(stream, name, user="", length=7).index
    budget.settle(stream, name, p=0.5, trigger=False)
    budget.close(stream, name, "end")
    budget.view(stream)
    return index


def test_unused_streams_rest_and_wake_with_what_they_spent() -> None:
    budget = Budget(Controller(ControllerParams()), auto_length=True, max_streams=100, awake=4)
    for round_ in range(3):
        for i in range(20):
            assert use(budget, f"s{i}", f"{round_}.{i}") == round_ + 1
    assert len(budget.controller.streams) <= 5
    assert len(budget) == 20
    assert budget.view("s3").length == 7
    assert budget.view("s3").reservations == 3
    assert Controller.replay(budget.take_events(), ControllerParams()).digest() == budget.controller.digest()


def test_a_stream_with_something_open_does_not_rest() -> None:
    budget = Budget(Controller(ControllerParams()), auto_length=False, max_streams=100, awake=1)
    budget.open("busy", "tenant")
    budget.reserve("busy", "x", user="", length=7)
    for i in range(30):
        use(budget, f"s{i}", str(i))
    assert "busy" in budget.controller.streams
    assert budget.tenant("busy") == "tenant"
    assert not budget.settle("busy", "x", p=0.5, trigger=False).closed


def test_rest_makes_no_room_for_more_streams_than_allowed() -> None:
    budget = Budget(Controller(ControllerParams()), auto_length=False, max_streams=5, awake=2)
    for i in range(5):
        use(budget, f"s{i}", str(i))
    with pytest.raises(Unavailable):
        budget.open("one more", "tenant")
    use(budget, "s0", "again")
