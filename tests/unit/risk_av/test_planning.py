"""Leases that are planned before they are durable: the plan follows from the log, and changes nothing."""

from __future__ import annotations

import sys

import pytest

from tcd.risk_av import (
    BudgetUsedUp,
    Configured,
    Controller,
    ControllerParams,
    EpochOpened,
    Event,
    Leased,
    LeaseHolder,
    LeaseRequest,
    Pool,
    PoolShared,
    Rested,
)

PARAMS = ControllerParams(alpha=0.05, schedule=("uniform", 10))


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


def test_a_plan_covers_what_is_wanted_over_epochs_and_follows_from_the_log() -> None:
    controller = Controller(PARAMS)
    before = controller.digest()
    events, refused = controller.plan_leases([LeaseRequest("s", "a", 2, wanted=12)])
    assert (controller.digest(), refused) == (before, {})
    leases = [event for event in events if isinstance(event, Leased)]
    assert [(lease.epoch, lease.index, lease.seq) for lease in leases] == [
        *((1, i, i) for i in range(1, 11)),
        (2, 1, 11),
        (2, 2, 12),
    ]
    assert kinds(events).count(EpochOpened) == 2
    controller.fold(events)
    assert controller.state("s").reserved_total == 12
    assert len(controller.leases("a")) == 12
    assert controller.leases("b") == ()


def test_the_schedule_of_a_calibration_is_the_streams_own() -> None:
    controller = Controller(PARAMS)
    events, _ = controller.plan_leases([LeaseRequest("s", "a", 1, schedule=("uniform", 40))])
    assert kinds(events) == [Configured, EpochOpened, Leased]
    controller.fold(events)
    assert controller.params_of("s").schedule == ("uniform", 40)
    assert controller.granted(stream="s", number=1).count == 10
    again, _ = controller.plan_leases([LeaseRequest("s", "a", 1, schedule=("uniform", 40))])
    assert kinds(again) == [Leased]


def test_streams_of_one_plan_take_different_shares_of_a_pool() -> None:
    controller = Controller(PARAMS)
    pool = Pool("p", 4, 2)
    events, _ = controller.plan_leases([LeaseRequest(f"s{i}", "a", 1, pool=pool) for i in range(3)])
    shares = [(event.epoch, event.share) for event in events if isinstance(event, PoolShared)]
    assert shares == [(1, 1), (1, 2), (2, 1)]
    controller.fold(events)
    assert controller.pool("p") == (2, 1, 0.025)


def test_a_used_up_epoch_refuses_one_stream_and_not_the_others() -> None:
    manual = ControllerParams(alpha=0.05, schedule=("uniform", 1), epoch_roll="manual")
    controller = Controller(manual)
    events, refused = controller.plan_leases([LeaseRequest("s", "a", 1, wanted=2), LeaseRequest("t", "a", 1)])
    assert refused == {}
    controller.fold(events)
    events, refused = controller.plan_leases([LeaseRequest("s", "a", 1), LeaseRequest("u", "a", 1)])
    assert set(refused) == {"s"}
    assert {event.stream for event in events if isinstance(event, Leased)} == {"u"}
    with pytest.raises(BudgetUsedUp):
        controller.lease(stream="s", holder="a", replicas=1)


def test_the_end_of_a_lost_lease_is_planned_and_the_stream_rests_then() -> None:
    controller = Controller(PARAMS)
    lease = controller.lease(stream="s", holder="a", replicas=1)
    holder = LeaseHolder(lease)
    holder.reserve("h")
    controller.accept(holder.take_events())
    assert controller.plan_rest(8) == []
    controller.fold(controller.plan_end(stream="s", number=1, drawn=sys.maxsize))
    view = controller.state("s")
    assert (view.open, view.waiting, view.folded) == (0, 0, lease.count)
    assert controller.plan_rest(8) == [Rested("s")]


def test_a_holder_learns_of_rejections_elsewhere() -> None:
    controller = Controller(ControllerParams(alpha=0.05, schedule=("uniform", 40)))
    one = LeaseHolder(controller.lease(stream="s", holder="a", replicas=2))
    two = LeaseHolder(controller.lease(stream="s", holder="b", replicas=2))
    one.reserve("h")
    one.settle("h", 0.0, trigger=True)
    controller.accept(one.take_events())
    two.learn(controller.known(stream="s", epoch=1))
    assert two.reserve("i") == 2 * 0.05 / 40
    two.learn(0)
    assert two.reserve("j") == 2 * 0.05 / 40
    controller.accept(two.take_events())
    assert controller.known(stream="s", epoch=9) == 0
