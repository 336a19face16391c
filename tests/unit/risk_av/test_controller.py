"""Reserve, settle, close, epochs, alarms and hot reload of the controller."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tcd.errors import Conflict, NotFound
from tcd.risk_av import (
    Controller,
    ControllerParams,
    LevelMismatch,
    ReplayError,
    Reserved,
    Settled,
    event_from_json,
    event_to_json,
)

ALPHA = 0.05


def run(controller: Controller, name: str, p: float, *, stream: str = "s", user: str = "") -> float:
    """Reserve, settle and close one hypothesis; returns its level."""
    level = controller.reserve(stream=stream, hypothesis=name, user=user).alpha
    controller.settle(stream=stream, hypothesis=name, p=p, trigger=p <= level)
    controller.close(stream=stream, hypothesis=name, reason="end")
    return level


def test_what_is_unmoved_need_not_be_settled() -> None:
    controller = Controller(ControllerParams(schedule=("uniform", 10)))
    level = controller.reserve(stream="s", hypothesis="a").alpha

    def unmoved(p: float, *, trigger: bool | None = None, name: str = "a") -> bool:
        trigger = p <= level if trigger is None else trigger
        return controller.unmoved(stream="s", hypothesis=name, p=p, trigger=trigger)

    rng, skipped = np.random.default_rng(5), 0
    assert not unmoved(1.0), "no evidence yet"
    for _ in range(300):
        p = float(rng.choice((rng.random(), level, rng.random() * level, 0.0, 1.0)))
        skip = unmoved(p)
        before = controller.find(stream="s", hypothesis="a"), len(controller.events)
        controller.settle(stream="s", hypothesis="a", p=p, trigger=p <= level)
        after = controller.find(stream="s", hypothesis="a"), len(controller.events)
        assert skip == (before == after)
        skipped += skip
    assert 200 < skipped < 300
    # what `settle` would refuse is told to it
    assert not any((unmoved(1.5), unmoved(math.nan), unmoved(-0.1), unmoved(1.0, trigger=True), unmoved(1.0, name="b")))
    controller.close(stream="s", hypothesis="a", reason="end")
    assert not unmoved(1.0)


def test_uniform_levels_are_the_product_of_a_share_and_known_rejections() -> None:
    controller = Controller(ControllerParams(schedule=("uniform", 10)))
    share = ALPHA / 10
    assert run(controller, "a", 0.001) == share
    assert run(controller, "b", 0.5) == share * 2
    assert run(controller, "c", share * 2) == share * 2  # on the lattice: p == level rejects
    assert run(controller, "d", 1.0) == share * 3
    view = controller.state("s")
    assert (view.spent, view.rejections_known, view.epoch) == (4 * share, 2, 1)
    assert view.wealth == (ALPHA - 4 * share) * 3


def test_levels_stop_at_one() -> None:
    controller = Controller(ControllerParams(alpha=1.0, schedule=("uniform", 2)))
    run(controller, "a", 0.0)
    assert controller.reserve(stream="s", hypothesis="b").alpha == 1.0


def test_reserving_again_costs_nothing_and_returns_the_same_level() -> None:
    controller = Controller()
    first = controller.reserve(stream="s", hypothesis="a")
    run(controller, "b", 0.0)
    again = controller.reserve(stream="s", hypothesis="a")
    assert (again.alpha, again.seq, again.index) == (first.alpha, first.seq, first.index)
    assert (again.cost, again.new) == (0.0, False)
    assert controller.state("s").reservations == 2


def test_auto_roll_opens_epochs_as_events_and_starts_rejections_at_zero() -> None:
    controller = Controller(ControllerParams(schedule=("uniform", 3)))
    late = controller.reserve(stream="s", hypothesis="late")
    run(controller, "b", 0.0)
    run(controller, "c", 0.0)
    fourth = controller.reserve(stream="s", hypothesis="d")
    assert (fourth.epoch, fourth.index, fourth.alpha) == (2, 1, ALPHA / 3)
    settled = controller.settle(stream="s", hypothesis="late", p=0.0, trigger=True)
    assert (settled.first, settled.credited, settled.epoch) == (True, True, 1)
    assert controller.reserve(stream="s", hypothesis="e").alpha == late.alpha  # epoch 1's rejection raised nothing
    kinds = [event.kind for event in controller.take_events()]
    assert kinds.count("epoch") == 2


def test_manual_roll_exhausts_with_level_zero() -> None:
    controller = Controller(ControllerParams(schedule=("uniform", 2), epoch_roll="manual"))
    run(controller, "a", 0.5)
    run(controller, "b", 0.5)
    third = controller.reserve(stream="s", hypothesis="c")
    assert (third.alpha, third.cost, third.exhausted, third.epoch) == (0.0, 0.0, True, 1)
    assert third.spent == ALPHA
    assert controller.state("s").exhausted
    assert not controller.settle(stream="s", hypothesis="c", p=0.1, trigger=False).trigger
    controller.roll(stream="s")
    assert controller.reserve(stream="s", hypothesis="d").alpha == ALPHA / 2


def test_omega_schedule_reports_exhaustion_under_the_p_floor() -> None:
    controller = Controller(ControllerParams(schedule=("omega", 0.5), p_floor=0.004))
    assert [controller.reserve(stream="s", hypothesis=str(i)).exhausted for i in range(4)] == [False] * 3 + [True]


def test_p_is_folded_by_minimum_and_the_trigger_latches_and_counts_once() -> None:
    controller = Controller(ControllerParams(schedule=("uniform", 10)))
    controller.reserve(stream="s", hypothesis="a")
    steps = [(0.5, False), (0.004, True), (0.3, False), (0.001, True)]
    got = [controller.settle(stream="s", hypothesis="a", p=p, trigger=t) for p, t in steps]
    assert [s.p for s in got] == [0.5, 0.004, 0.004, 0.001]
    assert [s.trigger for s in got] == [False, True, True, True]
    assert [s.first for s in got] == [False, True, False, False]
    assert controller.state("s").rejections == 1


def test_settling_twice_is_a_no_op_without_an_event() -> None:
    controller = Controller()
    controller.reserve(stream="s", hypothesis="a")
    first = controller.settle(stream="s", hypothesis="a", p=0.0, trigger=True)
    before, events = controller.digest(), len(controller.events)
    second = controller.settle(stream="s", hypothesis="a", p=0.0, trigger=True)
    assert (second.trigger, second.first, first.first) == (True, False, True)
    assert controller.digest() == before
    assert len(controller.events) == events


def test_a_trigger_that_is_not_the_comparison_is_refused() -> None:
    controller = Controller()
    level = controller.reserve(stream="s", hypothesis="a").alpha
    before = controller.digest()
    for p, trigger in ((level, False), (level * (1 + 1e-15), True)):
        with pytest.raises(LevelMismatch):
            controller.settle(stream="s", hypothesis="a", p=p, trigger=trigger)
    assert controller.digest() == before


@pytest.mark.parametrize("p", [float("nan"), -0.1, 1.1, float("inf")])
def test_what_is_no_p_value_is_refused(p: float) -> None:
    controller = Controller()
    controller.reserve(stream="s", hypothesis="a")
    with pytest.raises(ValueError, match="outside"):
        controller.settle(stream="s", hypothesis="a", p=p, trigger=False)


def test_unknown_and_closed_hypotheses() -> None:
    controller = Controller()
    with pytest.raises(NotFound):
        controller.settle(stream="s", hypothesis="a", p=0.5, trigger=False)
    with pytest.raises(NotFound):
        controller.fail(stream="s", hypothesis="a")
    with pytest.raises(NotFound):
        controller.acknowledge(stream="s")
    assert controller.close(stream="s", hypothesis="a", reason="end") is None
    run(controller, "a", 0.5)
    with pytest.raises(Conflict):
        controller.settle(stream="s", hypothesis="a", p=0.4, trigger=False)
    controller.fail(stream="s", hypothesis="a")
    assert controller.reserve(stream="s", hypothesis="a").closed
    with pytest.raises(ValueError, match="unknown reason"):
        controller.close(stream="s", hypothesis="a", reason="bored")  # type: ignore[arg-type]


def test_failures_and_abandoned_hypotheses_keep_their_cost_and_fold_kappa() -> None:
    controller = Controller()
    controller.reserve(stream="s", hypothesis="a")
    controller.fail(stream="s", hypothesis="a")
    done = controller.close(stream="s", hypothesis="a", reason="abandoned")
    assert done is not None
    assert (done.e_value, done.p, done.folded[0].x) == (0.5, 1.0, 1.0)
    assert controller.state("s").spent == ALPHA / 10


def test_an_abandoned_hypothesis_that_settled_folds_its_last_p() -> None:
    controller = Controller()
    controller.reserve(stream="s", hypothesis="a")
    controller.settle(stream="s", hypothesis="a", p=0.25, trigger=False)
    done = controller.close(stream="s", hypothesis="a", reason="abandoned")
    assert done is not None
    assert (done.e_value, done.folded[0].x) == (1.0, 0.25)


def test_the_fold_follows_reservation_order_and_waits_for_its_head() -> None:
    by_reservation, by_close = Controller(), Controller()
    ps = [0.9, 0.01, 0.3, 0.0004]
    for controller, order in ((by_reservation, [0, 1, 2, 3]), (by_close, [3, 1, 2, 0])):
        for i in range(4):
            controller.reserve(stream="s", hypothesis=str(i))
        for i in order:
            level = controller.reserve(stream="s", hypothesis=str(i)).alpha
            controller.settle(stream="s", hypothesis=str(i), p=ps[i], trigger=ps[i] <= level)
        for i in order[:-1]:
            controller.close(stream="s", hypothesis=str(i), reason="end")
        if order[0] == 3:
            assert (controller.state("s").folded, controller.state("s").waiting) == (0, 3)
        done = controller.close(stream="s", hypothesis=str(order[-1]), reason="end")
        assert done is not None
        if order[0] == 3:
            assert [snapshot.x for snapshot in done.folded] == ps
            links = [s.prev for s in done.folded[1:]]
            assert links == [s.digest() for s in done.folded[:-1]]
    assert by_close.state("s").snapshot == by_reservation.state("s").snapshot


def test_alarms_latch_until_acknowledged_and_a_new_claim_starts_clean() -> None:
    controller = Controller(ControllerParams(schedule=("uniform", 1000), cusum_arl=50.0))
    controller.reserve(stream="s", hypothesis="old")
    for i in range(6):
        run(controller, f"bad{i}", 0.0001)
    assert not controller.state("s").alarm  # the head is not settled yet
    controller.close(stream="s", hypothesis="old", reason="idle")
    view = controller.state("s")
    assert view.alarm
    assert view.cusum_alarm
    assert view.e_process >= view.alarm_threshold == 1 / 0.05
    for i in range(200):
        run(controller, f"good{i}", 1.0)
    assert controller.state("s").alarm
    assert controller.state("s").e_process < 1.0
    controller.reserve(stream="s", hypothesis="straddles")
    assert controller.acknowledge(stream="s") == 1
    controller.settle(stream="s", hypothesis="straddles", p=0.0, trigger=True)
    controller.close(stream="s", hypothesis="straddles", reason="end")
    view = controller.state("s")
    assert (view.alarm, view.cusum_alarm, view.e_process, view.snapshot.step) == (False, False, 1.0, 0)
    run(controller, "fresh", 0.5)
    assert (controller.state("s").snapshot.step, controller.state("s").snapshot.claim) == (1, 1)
    assert controller.state("s").spent > 0.0  # an acknowledgement refunds nothing


def test_hot_reload_keeps_what_is_spent_and_names_the_larger_claim() -> None:
    controller = Controller(ControllerParams(schedule=("uniform", 10)))
    pending = controller.reserve(stream="s", hypothesis="p")
    for i in range(3):
        run(controller, str(i), 0.9)
    spent = controller.state("s").spent
    controller.configure(ControllerParams(alpha=0.03, schedule=("uniform", 10)))
    view = controller.state("s")
    assert (view.spent, view.alpha, view.claim_level) == (spent, 0.03, 0.03)
    assert controller.reserve(stream="s", hypothesis="p").alpha == pending.alpha
    nexts = [controller.reserve(stream="s", hypothesis=f"n{i}") for i in range(6)]
    assert [n.alpha for n in nexts] == [(0.03 - spent) / 6] * 6
    assert controller.state("s").spent == pytest.approx(0.03, rel=1e-12)
    assert controller.reserve(stream="s", hypothesis="next").epoch == 2
    assert controller.state("s").next_alpha == 0.003
    controller.configure(ControllerParams(alpha=0.001, schedule=("uniform", 10)), stream="s")
    view = controller.state("s")
    assert (view.exhausted, view.budget_remaining, view.claim_level) == (True, 0.0, view.spent)
    assert Controller.replay(controller.take_events()).digest() == controller.digest()


def test_hot_reload_of_the_omega_schedule() -> None:
    controller = Controller(ControllerParams(schedule=("omega", 0.1)))
    first = controller.reserve(stream="s", hypothesis="a")
    controller.configure(ControllerParams(alpha=0.02, schedule=("omega", 0.1)))
    second = controller.reserve(stream="s", hypothesis="b")
    assert second.alpha == 0.1 * (0.02 - first.cost)
    assert second.spent == first.cost + second.cost


def test_rejections_of_one_user_are_credited_up_to_the_cap() -> None:
    controller = Controller(ControllerParams(schedule=("uniform", 100), credit_cap=2))
    for i in range(5):
        run(controller, str(i), 0.0, user="eve")
    run(controller, "b", 0.0, user="bob")
    view = controller.state("s")
    assert (view.rejections, view.rejections_known) == (6, 3)


def test_streams_do_not_touch_each_other() -> None:
    controller = Controller()
    for i in range(5):
        run(controller, str(i), 0.0, stream="a")
    assert controller.reserve(stream="b", hypothesis="0").alpha == ALPHA / 10
    assert controller.streams == ("a", "b")


def test_memory_is_bounded_and_forgotten_hypotheses_cost_again() -> None:
    controller = Controller(ControllerParams(keep_closed=4))
    for i in range(50):
        run(controller, str(i), 0.5)
    state = controller._streams["s"]
    assert (len(state.live), len(state.queue), len(state.closed), len(state.epochs)) == (0, 0, 4, 1)
    assert not controller.reserve(stream="s", hypothesis="49").new
    assert controller.reserve(stream="s", hypothesis="0").new
    with pytest.raises(NotFound):
        controller.settle(stream="s", hypothesis="1", p=0.5, trigger=False)


def _events(controller: Controller) -> list[object]:
    return [json.loads(json.dumps(event_to_json(event))) for event in controller.events]


def test_replay_of_the_json_log_is_bit_exact_and_a_changed_log_is_refused() -> None:
    params = ControllerParams(schedule=("uniform", 3))
    controller = Controller(params)
    for i in range(10):
        run(controller, str(i), (i % 4) / 300, user="u")
    controller.reserve(stream="s", hypothesis="open")
    controller.fail(stream="s", hypothesis="open")
    controller.acknowledge(stream="s")
    log = [event_from_json(obj) for obj in _events(controller)]  # type: ignore[arg-type]
    assert log == list(controller.events)
    assert Controller.replay(log, params).digest() == controller.digest()
    reserve = next(i for i, event in enumerate(log) if isinstance(event, Reserved))
    settle = next(i for i, event in enumerate(log) if isinstance(event, Settled))
    for i in (0, reserve, settle):
        with pytest.raises(ReplayError):
            Controller.replay([*log[:i], *log[i + 1 :]], params)
    with pytest.raises(ReplayError):
        Controller.replay([*log[: settle + 1], *log[settle:]], params)


@pytest.mark.parametrize(
    "change",
    [
        {"t": "grant"},
        {"t": None},
        {"extra": 1},
        {"index": -1},
        {"index": True},
        {"cost": 0.005},
        {"cost": "7ff0000000000000"},
        {"stream": 3},
    ],
)
def test_malformed_events_are_refused(change: dict[str, object]) -> None:
    controller = Controller()
    controller.reserve(stream="s", hypothesis="a")
    good = event_to_json(controller.events[-1])
    assert event_from_json(good) == controller.events[-1]
    with pytest.raises(ValueError, match=r"event|hex64"):
        event_from_json({**good, **change})


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.0},
        {"alpha": 1.5},
        {"alpha": float("nan")},
        {"schedule": ("uniform", 0)},
        {"schedule": ("uniform", 2.5)},
        {"schedule": ("omega", 0.0)},
        {"schedule": ("linear", 3)},
        {"kappa": 0.4},
        {"rule": "bonferroni"},
        {"rule": "lord", "schedule": ("omega", 0.1)},
        {"epoch_roll": "never"},
        {"alpha_e": 0.0},
        {"cusum_arl": 1.0},
        {"p_floor": -1.0},
        {"credit_cap": -1},
        {"keep_closed": -1},
    ],
)
def test_parameters_outside_the_theorems_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        ControllerParams(**options)  # type: ignore[arg-type]
