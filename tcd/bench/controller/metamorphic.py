"""Experiment 5: relations that hold at every event of any history, for every rule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tcd.risk_av import Controller, ControllerParams, Event, ReplayError, RuleName, event_from_json, event_to_json

Act = tuple[Literal["reserve", "settle", "close"], int, float]
#: Rules whose costs are shares of one budget; the others earn, and what is bounded is their wealth.
_ROUNDING = 1e-12
_BUDGETED = frozenset({"rai", "e_lond", "alpha_spending"})


@dataclass(frozen=True, slots=True)
class History:
    """An interleaving of reservations, settlements and closings of one stream, with their p-values."""

    acts: tuple[Act, ...]
    count: int

    @classmethod
    def draw(cls, rng: np.random.Generator, count: int) -> History:
        """A random history of `count` hypotheses; about one in five p-values is tiny."""
        waiting: list[list[Act]] = []
        acts: list[Act] = []
        started = 0
        while started < count or waiting:
            if started < count and (not waiting or rng.random() < 0.5):  # noqa: PLR2004
                acts.append(("reserve", started, 0.0))
                calls = int(rng.integers(0, 3))
                ps = np.sort(rng.random(calls))[::-1] * (1e-6 if rng.random() < 0.2 else 1.0)  # noqa: PLR2004
                waiting.append([*(("settle", started, float(p)) for p in ps), ("close", started, 0.0)])
                started += 1
                continue
            at = int(rng.integers(len(waiting)))
            acts.append(waiting[at].pop(0))
            if not waiting[at]:
                waiting.pop(at)
        return cls(tuple(acts), count)


def apply(controller: Controller, act: Act) -> float | None:
    """Do one act; the level when it reserved."""
    kind, number, p = act
    name = str(number)
    if kind == "reserve":
        return controller.reserve(stream="s", hypothesis=name, user=str(number % 2)).alpha
    if kind == "settle":
        found = controller.find(stream="s", hypothesis=name)
        assert found is not None  # noqa: S101 - reserved before
        controller.settle(stream="s", hypothesis=name, p=p, trigger=p <= found.alpha)
    else:
        controller.close(stream="s", hypothesis=name, reason="end")
    return None


def levels(history: History, params: ControllerParams) -> list[float]:
    """Levels in the order of the reservations."""
    controller = Controller(params)
    out = (apply(controller, act) for act in history.acts)
    return [level for level in out if level is not None]


def budget_holds(history: History, params: ControllerParams, _: np.random.Generator) -> bool:
    """At every event: costs of a budgeted rule sum to at most alpha, no wealth is negative, spent never falls."""
    controller = Controller(params)
    spent: dict[int, float] = {}
    for act in history.acts:
        apply(controller, act)
        view = controller.state("s")
        if view.spent < spent.get(view.epoch, 0.0) or view.wealth < -_ROUNDING:
            return False
        if params.rule in _BUDGETED and view.spent > params.alpha * (1 + 1e-12):
            return False
        spent[view.epoch] = view.spent
    return True


def later_evidence_changes_nothing(history: History, params: ControllerParams, rng: np.random.Generator) -> bool:
    """Other p-values from some event on leave the levels reserved before it as they are."""
    cut = int(rng.integers(len(history.acts)))
    other = History(
        tuple(
            (kind, number, float(rng.random()) * p if kind == "settle" and i >= cut else p)
            for i, (kind, number, p) in enumerate(history.acts)
        ),
        history.count,
    )
    before = sum(kind == "reserve" for kind, _, _ in history.acts[: cut + 1])
    return levels(history, params)[:before] == levels(other, params)[:before]


def only_what_is_known_counts(history: History, params: ControllerParams, rng: np.random.Generator) -> bool:
    """Any order of the events between two reservations gives the same levels."""
    shuffled: list[Act] = []
    between: dict[int, list[Act]] = {}

    def flush() -> None:
        queues = list(between.values())
        while queues:
            at = int(rng.integers(len(queues)))
            shuffled.append(queues[at].pop(0))
            if not queues[at]:
                queues.pop(at)
        between.clear()

    for act in history.acts:
        if act[0] == "reserve":
            flush()
            shuffled.append(act)
        else:
            between.setdefault(act[1], []).append(act)
    flush()
    return levels(History(tuple(shuffled), history.count), params) == levels(history, params)


def twice_is_once(history: History, params: ControllerParams, _: np.random.Generator) -> bool:
    """Every act done twice is a no-op the second time: same state, same events."""
    one, two = Controller(params), Controller(params)
    for act in history.acts:
        apply(one, act)
        apply(two, act)
        kind, number, p = act
        found = two.find(stream="s", hypothesis=str(number))
        # a settled hypothesis may be forgotten once it is folded
        if found is not None and not (kind == "reserve" and found.closed):
            if kind == "settle":
                two.settle(stream="s", hypothesis=str(number), p=found.p, trigger=found.p <= found.alpha)
            else:
                apply(two, (kind, number, p))
        if one.digest() != two.digest() or one.events != two.events:
            return False
    return True


def a_kill_loses_nothing(history: History, params: ControllerParams, rng: np.random.Generator) -> bool:
    """Restarting from the log at any event gives the same state bit for bit, and never a lower `spent`."""
    controller = Controller(params)
    log: list[Event] = []
    for act in history.acts:
        before = controller.state("s")
        if rng.random() < 0.2:  # noqa: PLR2004 - kills at a fifth of the events
            try:
                again = Controller.replay((event_from_json(event_to_json(event)) for event in log), params)
            except ReplayError:
                return False
            if again.digest() != controller.digest() or again.state("s").spent < before.spent:
                return False
            controller = again
        apply(controller, act)
        log += controller.take_events()
    return True


def a_second_trigger_credits_nothing(history: History, params: ControllerParams, _: np.random.Generator) -> bool:
    """Smaller and smaller p-values of a rejected hypothesis leave the next level as it is."""
    controller = Controller(params)
    for act in history.acts:
        apply(controller, act)
        for name in controller.open_hypotheses("s"):
            found = controller.find(stream="s", hypothesis=name)
            if found is not None and found.trigger and found.p > 0.0:
                view = controller.state("s")
                controller.settle(stream="s", hypothesis=name, p=found.p / 2, trigger=True)
                after = controller.state("s")
                if (after.next_alpha, after.rejections) != (view.next_alpha, view.rejections):
                    return False
    return True


def epochs_are_apart(history: History, params: ControllerParams, _: np.random.Generator) -> bool:
    """A rejection of an earlier epoch raises no level of the present one."""
    controller = Controller(params)
    for i in range(5):
        controller.reserve(stream="s", hypothesis=f"old{i}")
    controller.roll(stream="s")
    expected = levels(history, params)
    got = []
    for act in history.acts:
        for i in range(5):
            found = controller.find(stream="s", hypothesis=f"old{i}")
            if found is not None and not found.trigger:
                controller.settle(stream="s", hypothesis=f"old{i}", p=0.0, trigger=True)
                break
        level = apply(controller, act)
        if level is not None:
            got.append(level)
    return got == expected and math.isfinite(sum(got))


RELATIONS: dict[str, Callable[[History, ControllerParams, np.random.Generator], bool]] = {
    relation.__name__: relation
    for relation in (
        *(budget_holds, later_evidence_changes_nothing, only_what_is_known_counts, twice_is_once),
        *(a_kill_loses_nothing, a_second_trigger_credits_nothing, epochs_are_apart),
    )
}


def violations(rule: RuleName, relation: str, *, histories: int, seed: int) -> int:
    """Histories that break a relation."""
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(histories):
        count = int(rng.integers(1, 16))
        length = int(rng.choice([4, 16]))
        params = ControllerParams(rule=rule, schedule=("uniform", length), credit_cap=3, keep_closed=32)
        if rule == "rai" and rng.random() < 0.5:  # noqa: PLR2004
            params = ControllerParams(schedule=("omega", 0.2), epoch_roll="manual", credit_cap=3, keep_closed=32)
        wrong += not RELATIONS[relation](History.draw(rng, count), params, rng)
    return wrong
