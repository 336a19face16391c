"""The controller under arbitrary interleavings, against a model kept by the test, and by metamorphic relations."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tcd.risk_av import Controller, ControllerParams, Reserved, e_value, event_from_json, event_to_json
from tcd.risk_av.eprocess import START, advance, mixture
from tcd.risk_av.exact import to_float
from tcd.risk_av.views import CLOSE_REASONS

LENGTH = 5
PARAMS = ControllerParams(schedule=("uniform", LENGTH), keep_closed=6, credit_cap=3)
PS = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.0, 0.01, 0.02, 0.03, 0.0499, 0.05, 1.0]))


class ControllerMachine(RuleBasedStateMachine):
    """The model keeps what a reader of the answers knows: costs, p-values, rejections and the fold order."""

    def __init__(self) -> None:
        super().__init__()
        self.controller = Controller(PARAMS)
        self.log: list[Any] = []
        self.count = 0
        self.open: dict[str, list[float]] = {}
        self.order: list[str] = []
        self.last: dict[str, float | None] = {}
        self.done: set[str] = set()
        self.level: dict[str, float] = {}
        self.epoch: dict[str, int] = {}
        self.rejected: set[str] = set()
        self.costs: dict[int, list[float]] = {}
        self.claim_from = 0

    @rule()
    def reserve(self) -> None:
        name = str(self.count)
        self.count += 1
        before = self.controller.state("s")
        got = self.controller.reserve(stream="s", hypothesis=name, user=str(self.count % 2))
        assert got.new
        assert got.alpha == before.next_alpha
        if got.epoch == before.epoch:
            assert got.spent >= before.spent
        else:
            assert got.epoch == before.epoch + 1
            assert got.known == 0
        known = sum(self.epoch[other] == got.epoch for other in self.rejected)
        assert got.known <= known
        self.open[name] = []
        self.order.append(name)
        self.last[name] = None
        self.level[name] = got.alpha
        self.epoch[name] = got.epoch
        self.costs.setdefault(got.epoch, []).append(got.cost)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), p=PS)
    def settle(self, data: st.DataObject, p: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        reject = p <= self.level[name]
        other = self.controller.state("s")
        got = self.controller.settle(stream="s", hypothesis=name, p=p, trigger=reject)
        assert got.first is (reject and name not in self.rejected)
        if reject:
            self.rejected.add(name)
        self.open[name].append(p)
        self.last[name] = min(self.open[name])
        assert (got.p, got.trigger) == (self.last[name], name in self.rejected)
        assert got.e_value == e_value(got.p)
        after = self.controller.state("s")
        assert after.spent == other.spent
        if self.epoch[name] != after.epoch:
            assert after.next_alpha == other.next_alpha  # a rejection of epoch k raises nothing in epoch k+1

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        before = self.controller.digest()
        got = self.controller.reserve(stream="s", hypothesis=name)
        assert (got.new, got.cost, got.alpha) == (False, 0.0, self.level[name])
        p = self.last[name]
        if p is not None:
            self.controller.settle(stream="s", hypothesis=name, p=p, trigger=p <= got.alpha)
        assert self.controller.digest() == before

    @precondition(lambda self: self.open)
    @rule(data=st.data(), reason=st.sampled_from(CLOSE_REASONS))
    def close(self, data: st.DataObject, reason: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[name]
        self.done.add(name)
        got = self.controller.close(stream="s", hypothesis=name, reason=reason)
        assert got is not None
        assert [s.prev for s in got.folded[1:]] == [s.digest() for s in got.folded[:-1]]
        before = self.controller.digest()
        again = self.controller.close(stream="s", hypothesis=name, reason="idle")
        assert again is None or again.folded == ()
        assert self.controller.digest() == before

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        spent = self.controller.state("s").spent
        self.controller.fail(stream="s", hypothesis=data.draw(st.sampled_from(sorted(self.open))))
        assert self.controller.state("s").spent == spent

    @precondition(lambda self: self.count)
    @rule()
    def acknowledge(self) -> None:
        self.controller.acknowledge(stream="s")
        self.claim_from = len(self.order)
        assert not self.controller.state("s").alarm

    @rule()
    def crash(self) -> None:
        """A restart from the durable log, by way of JSON."""
        self.log += [event_to_json(event) for event in self.controller.take_events()]
        restarted = Controller.replay((event_from_json(obj) for obj in self.log), PARAMS)
        assert restarted.digest() == self.controller.digest()
        assert restarted.state("s") == self.controller.state("s")
        self.controller = restarted

    @invariant()
    def the_budget_holds(self) -> None:
        for costs in self.costs.values():
            assert math.fsum(costs) <= PARAMS.alpha * (1 + 1e-15)
            assert len(costs) <= LENGTH

    @invariant()
    def the_eprocess_is_the_fold_in_reservation_order(self) -> None:
        state, folded = START, 0
        for i, name in enumerate(self.order):
            if name not in self.done:
                break
            folded += 1
            p = self.last[name]
            if i >= self.claim_from:
                state = advance(state, 1.0 if p is None else p)
        view = self.controller.state("s")
        assert view.folded == folded
        assert view.snapshot.step == state.step
        assert view.e_process == to_float(mixture(state))

    @invariant()
    def memory_is_bounded(self) -> None:
        if self.count:
            state = self.controller._streams["s"]
            assert len(state.closed) <= PARAMS.keep_closed
            assert len(state.live) == len(state.queue)
            assert set(state.epochs) <= {self.epoch[n] for n in self.open} | {max(state.epochs)}


TestController = ControllerMachine.TestCase
TestController.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[tuple[str, int]], list[float]]:
    """An interleaving of reserve/settle of up to 12 hypotheses and their p-values."""
    count = draw(st.integers(1, 12))
    settle_after = [draw(st.integers(0, 6)) for _ in range(count)]
    steps: list[tuple[str, int]] = []
    for i in range(count):
        steps.append(("reserve", i))
        steps += [("settle", j) for j in range(i + 1) if j + settle_after[j] == i]
    ps = [draw(PS) for _ in range(count)]
    return steps, ps


def _play(steps: list[tuple[str, int]], ps: list[float], params: ControllerParams) -> list[float]:
    controller = Controller(params)
    levels: list[float] = []
    for step, i in steps:
        if step == "reserve":
            levels.append(controller.reserve(stream="s", hypothesis=str(i)).alpha)
        else:
            controller.settle(stream="s", hypothesis=str(i), p=ps[i], trigger=ps[i] <= levels[i])
    return levels


BOTH = st.sampled_from(
    [
        ControllerParams(schedule=("uniform", 12)),
        ControllerParams(schedule=("uniform", 4)),
        ControllerParams(schedule=("omega", 0.2)),
    ]
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(schedules(), PS, st.data(), BOTH)
def test_a_level_depends_on_nothing_settled_later(
    case: tuple[list[tuple[str, int]], list[float]], p: float, data: st.DataObject, params: ControllerParams
) -> None:
    steps, ps = case
    changed = data.draw(st.integers(0, len(ps) - 1))
    levels = _play(steps, ps, params)
    other = _play(steps, [p if i == changed else q for i, q in enumerate(ps)], params)
    settled_at = next((k for k, step in enumerate(steps) if step == ("settle", changed)), len(steps))
    before = sum(step == "reserve" for step, _ in steps[:settled_at])
    assert levels[:before] == other[:before]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(schedules(), st.randoms(use_true_random=False), BOTH)
def test_levels_depend_on_the_known_at_reserve_sets_only(
    case: tuple[list[tuple[str, int]], list[float]], rng: Any, params: ControllerParams
) -> None:
    steps, ps = case
    shuffled: list[tuple[str, int]] = []
    between: list[tuple[str, int]] = []
    for step in steps:
        if step[0] == "settle":
            between.append(step)
            continue
        rng.shuffle(between)
        shuffled += [*between, step]
        between = []
    assert _play(shuffled, ps, params) == _play(steps, ps, params)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(schedules(), BOTH)
def test_a_kill_at_any_event_never_lowers_what_is_spent(
    case: tuple[list[tuple[str, int]], list[float]], params: ControllerParams
) -> None:
    steps, ps = case
    controller = Controller(params)
    for step, i in steps:
        level = controller.reserve(stream="s", hypothesis=str(i)).alpha
        if step == "settle":
            controller.settle(stream="s", hypothesis=str(i), p=ps[i], trigger=ps[i] <= level)
    log = controller.events
    spent = (0, 0.0)
    for cut in range(len(log) + 1):
        view = Controller.replay(log[:cut], params).state("s")
        assert (view.epoch, view.spent) >= spent
        spent = (view.epoch, view.spent)
        assert view.reserved_total == sum(isinstance(event, Reserved) for event in log[:cut])
