"""Leases: nothing is spent twice, lost ones stay lost, the fold keeps the order of the sequence numbers."""

from __future__ import annotations

import math

import pytest

from tcd.errors import Conflict, NotFound, Unavailable
from tcd.risk_av import (
    Controller,
    ControllerParams,
    Drawn,
    LeaseHolder,
    LevelMismatch,
    ReplayError,
    event_from_json,
    event_to_json,
    lease_limit,
)
from tcd.risk_av.eprocess import START, advance, mixture
from tcd.risk_av.exact import to_float

PARAMS = ControllerParams(schedule=("uniform", 40), credit_cap=2)


def leased(replicas: int = 2) -> tuple[Controller, LeaseHolder]:
    controller = Controller(PARAMS)
    return controller, LeaseHolder(controller.lease(stream="s", holder="a", replicas=replicas))


def replayed(controller: Controller, log: list[object]) -> Controller:
    again = [event_from_json(event_to_json(event)) for event in log]  # type: ignore[arg-type]
    return Controller.replay(again, PARAMS)


def test_a_lease_is_a_fourth_of_an_epoch_by_replica_at_most() -> None:
    assert [lease_limit(40, n) for n in (1, 2, 4, 100)] == [10, 5, 2, 1]
    controller, holder = leased()
    assert (holder.lease.count, holder.lease.index, holder.lease.seq) == (5, 1, 1)
    assert math.isclose(controller.state("s").spent, 5 * 0.05 / 40)
    second = controller.lease(stream="s", holder="b", replicas=2)
    assert (second.index, second.seq, second.number) == (6, 6, 2)
    # the last lease of an epoch is what is left, then the next epoch opens
    counts = [controller.lease(stream="s", holder="c", replicas=2) for _ in range(7)]
    assert [(lease.epoch, lease.count) for lease in counts[-2:]] == [(1, 5), (2, 5)]
    assert controller.state("s").spent == 5 * 0.05 / 40


def test_two_replicas_spend_no_more_than_one_and_replay_bit_for_bit() -> None:
    controller = Controller(PARAMS)
    log: list[object] = []
    holders = {name: LeaseHolder(controller.lease(stream="s", holder=name, replicas=2)) for name in "ab"}
    evidence: dict[str, float] = {}
    costs: dict[int, int] = {}
    for i in range(60):
        name = "ab"[i % 2]
        holder = holders[name]
        if not holder.left:
            controller.accept(holder.take_events())
            controller.end_lease(stream="s", number=holder.lease.number, drawn=holder.drawn)
            holder = holders[name] = LeaseHolder(controller.lease(stream="s", holder=name, replicas=2))
        alpha = holder.reserve(str(i), f"u{i}")
        assert holder.reserve(str(i)) == alpha
        costs[holder.lease.epoch] = costs.get(holder.lease.epoch, 0) + 1
        p = 1e-6 if i % 9 == 4 else (i * 7 % 10) / 10 + 0.05
        assert holder.settle(str(i), p, trigger=p <= alpha) is (p <= alpha)
        holder.close(str(i), "end")
        evidence[str(i)] = p
        controller.accept(holder.take_events())
        log += controller.take_events()
    for holder in holders.values():
        controller.end_lease(stream="s", number=holder.lease.number, drawn=holder.drawn)
    log += controller.take_events()
    assert all(used <= 40 for used in costs.values())
    view = controller.state("s")
    assert (view.folded, view.open) == (60, 0)
    assert view.snapshot.step == 60
    assert replayed(controller, log).digest() == controller.digest()


def test_levels_rise_with_the_rejections_the_holder_knows_up_to_the_cap() -> None:
    controller, holder = leased()
    c = 0.05 / 40
    levels = []
    for i in range(5):
        levels.append(holder.reserve(str(i), "u"))
        holder.settle(str(i), 0.0, trigger=True)
    assert levels == [c, 2 * c, 3 * c, 3 * c, 3 * c]
    controller.accept(holder.take_events())
    view = controller.state("s")
    assert (view.rejections, view.rejections_known) == (5, 2)


def test_a_lost_lease_is_lost_and_what_was_drawn_counts_without_evidence() -> None:
    controller, holder = leased()
    holder.reserve("known")
    holder.settle("known", 0.25, trigger=False)
    controller.accept(holder.take_events())
    holder.reserve("never heard of")
    spent = controller.state("s").spent
    after = controller.reserve(stream="s", hypothesis="next")
    controller.close(stream="s", hypothesis="next", reason="end")
    assert controller.state("s").folded == 0
    controller.end_lease(stream="s", number=1, drawn=2)
    view = controller.state("s")
    assert view.spent == after.spent > spent
    # known, lost (e = kappa), next; the three never drawn are skipped
    state = START
    for p in (0.25, 1.0, 1.0):
        state = advance(state, p)
    assert (view.folded, view.snapshot.step) == (3, 3)
    assert view.e_process == to_float(mixture(state))
    with pytest.raises(ReplayError):
        controller.accept(holder.take_events())
    with pytest.raises(NotFound):
        controller.end_lease(stream="s", number=1, drawn=0)


def test_a_holder_that_lies_about_its_level_is_refused() -> None:
    from dataclasses import replace  # noqa: PLC0415

    controller, holder = leased()
    holder.reserve("x")
    (drawn,) = holder.take_events()
    assert isinstance(drawn, Drawn)
    for forged in (
        replace(drawn, alpha=0.05),
        replace(drawn, known=1, alpha=2 * 0.05 / 40),
        replace(drawn, offset=9),
        replace(drawn, lease=7),
    ):
        before = controller.digest()
        with pytest.raises(ReplayError):
            controller.accept([forged])
        assert controller.digest() == before
    controller.accept([drawn])
    with pytest.raises(ReplayError):
        controller.accept([drawn])


def test_misuse_of_a_holder() -> None:
    _, holder = leased(replicas=100)
    alpha = holder.reserve("x")
    with pytest.raises(Unavailable):
        holder.reserve("y")
    with pytest.raises(LevelMismatch):
        holder.settle("x", alpha, trigger=False)
    with pytest.raises(ValueError, match="outside"):
        holder.settle("x", 1.5, trigger=False)
    with pytest.raises(NotFound):
        holder.settle("y", 0.5, trigger=False)
    with pytest.raises(ValueError, match="reason"):
        holder.close("x", "whim")  # type: ignore[arg-type]
    holder.close("x", "end")
    holder.close("x", "end")
    with pytest.raises((Conflict, Unavailable)):
        holder.reserve("x")


def test_what_cannot_be_leased() -> None:
    with pytest.raises(ValueError, match="uniform"):
        Controller(ControllerParams(schedule=("omega", 0.1))).lease(stream="s", holder="a", replicas=1)
    with pytest.raises(ValueError, match="rai"):
        Controller(ControllerParams(rule="lord")).lease(stream="s", holder="a", replicas=1)
    manual = Controller(ControllerParams(schedule=("uniform", 1), epoch_roll="manual"))
    manual.lease(stream="s", holder="a", replicas=1)
    with pytest.raises(Unavailable):
        manual.lease(stream="s", holder="a", replicas=1)
