"""A saved state and the events after it give what the whole log gives, bit for bit, wherever the log is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tcd.errors import Conflict
from tcd.risk_av import RULES, Controller, ControllerParams, Event, LeaseHolder, Pool, ReplayError

PS = st.sampled_from([0.0, 1e-4, 0.004, 0.3, 0.6, 1.0])
ACTS = ("reserve", "settle", "settle", "close", "close", "fail", "rest", "acknowledge", "configure", "roll")
LEASES = ("lease", "draw", "draw", "return")


class Driver:
    """Does what a list of drawn numbers says, as far as it is possible."""

    def __init__(self, params: ControllerParams) -> None:
        self.controller = Controller(params)
        self.open: list[tuple[str, str]] = []
        self.holders: list[LeaseHolder] = []
        self.count = 0

    def act(self, name: str, pick: int, p: float) -> None:
        stream = f"s{pick % 3}"
        if name in {"settle", "close", "fail"}:
            if self.open:
                self._of_one(name, *self.open[pick % len(self.open)], p)
        elif name in LEASES:
            self._lease(name, stream, pick, p)
        elif name == "reserve":
            self.count += 1
            pool = Pool("pool", 12, 4) if pick % 3 == 2 and self.controller.params.rule == "rai" else None
            user = f"u{pick % 2}"
            self.controller.reserve(stream=stream, hypothesis=str(self.count), user=user, pool=pool)
            self.open.append((stream, str(self.count)))
        elif name == "configure":
            alpha = (0.05, 0.02, 0.3)[pick % 3]
            self.controller.configure(replace(self.controller.params, alpha=alpha), stream=stream if pick % 2 else "")
        elif self.controller.knows(stream):
            {"rest": self.controller.rest, "acknowledge": self.controller.acknowledge, "roll": self.controller.roll}[
                name
            ](stream=stream)

    def _of_one(self, name: str, stream: str, hypothesis: str, p: float) -> None:
        found = self.controller.find(stream=stream, hypothesis=hypothesis)
        assert found is not None
        if name == "settle":
            self.controller.settle(stream=stream, hypothesis=hypothesis, p=p, trigger=p <= found.alpha)
        elif name == "fail":
            self.controller.fail(stream=stream, hypothesis=hypothesis)
        else:
            self.open.remove((stream, hypothesis))
            self.controller.close(stream=stream, hypothesis=hypothesis, reason="end")

    def _lease(self, name: str, stream: str, pick: int, p: float) -> None:
        params = self.controller.params
        if params.rule != "rai" or params.schedule[0] != "uniform":
            return
        if name == "lease" and stream != "s2":
            self.holders.append(LeaseHolder(self.controller.lease(stream=stream, holder=f"h{pick}", replicas=1)))
        elif self.holders:
            holder = self.holders[pick % len(self.holders)]
            if name == "draw" and holder.left:
                self.count += 1
                level = holder.reserve(str(self.count), "u0")
                holder.settle(str(self.count), p, trigger=p <= level)
                if pick % 3:
                    holder.close(str(self.count), "end")
                self.controller.accept(holder.take_events())
            elif name == "return":
                self.holders.remove(holder)
                self.controller.end_lease(stream=holder.lease.stream, number=holder.lease.number, drawn=holder.drawn)
                gone = self.controller.open_hypotheses(holder.lease.stream)
                self.open = [o for o in self.open if o[0] != holder.lease.stream or o[1] in gone]


def history(params: ControllerParams, steps: list[tuple[str, int, float]]) -> tuple[Event, ...]:
    driver = Driver(params)
    for step in steps:
        driver.act(*step)
    return driver.controller.take_events()


STEPS = st.lists(st.tuples(st.sampled_from(ACTS + LEASES), st.integers(0, 11), PS), min_size=1, max_size=40)
PARAMS = st.builds(
    ControllerParams,
    rule=st.sampled_from(RULES),
    schedule=st.just(("uniform", 8)),
    keep_closed=st.sampled_from([0, 2, 1024]),
    credit_cap=st.sampled_from([None, 1]),
)
#: What random steps seldom meet at once: a lease with drawn, closed and untouched places, and a stream at rest.
LONG = [
    *[("reserve", i, 1.0) for i in range(4)],
    ("settle", 0, 1e-4),
    *[("close", 0, 1.0)] * 4,
    ("rest", 0, 1.0),
    ("lease", 1, 1.0),
    ("draw", 1, 0.3),
    ("draw", 0, 1e-4),
    ("configure", 2, 1.0),
    ("reserve", 1, 1.0),
    ("return", 0, 1.0),
    ("rest", 2, 1.0),
    ("reserve", 0, 1.0),
]


@settings(max_examples=120, deadline=None, derandomize=True)
@given(PARAMS, STEPS)
@example(ControllerParams(schedule=("uniform", 8), keep_closed=1), LONG)
@example(ControllerParams(schedule=("omega", 0.2)), LONG)
def test_a_cut_anywhere_gives_the_same_bits(params: ControllerParams, steps: list[tuple[str, int, float]]) -> None:
    log = history(params, steps)
    whole = Controller.replay(log, params)
    wanted = whole.save()
    running = Controller(params)
    for cut in range(len(log) + 1):
        saved = running.save()
        restored = Controller()
        restored.restore(saved)
        assert restored.save() == saved
        assert {s: restored.state(s) for s in restored.streams} == {s: running.state(s) for s in running.streams}
        restored.fold(log[cut:])
        assert restored.save() == wanted
        assert restored.digest() == whole.digest()
        running.fold(log[cut : cut + 1])


def test_the_long_history_has_every_kind_of_event_that_a_state_has_to_hold() -> None:
    kinds = {event.kind for event in history(ControllerParams(schedule=("uniform", 8)), LONG)}
    assert {"reserve", "settle", "close", "rest", "lease", "draw", "lease_end", "configure", "share"} <= kinds


@settings(max_examples=40, deadline=None, derandomize=True)
@given(PARAMS, STEPS, STEPS)
def test_a_restored_controller_goes_on_as_the_live_one(
    params: ControllerParams, before: list[tuple[str, int, float]], after: list[tuple[str, int, float]]
) -> None:
    driver = Driver(params)
    for step in before:
        driver.act(*step)
    driver.controller.take_events()
    twin = Driver(params)
    twin.controller.restore(driver.controller.save())
    # a holder's memory is its own: both drivers hold no lease
    twin.open, twin.count, driver.holders = list(driver.open), driver.count, []
    for step in after:
        driver.act(*step)
        twin.act(*step)
    assert twin.controller.take_events() == driver.controller.take_events()
    assert twin.controller.save() == driver.controller.save()


def test_nothing_is_lowered_because_only_an_empty_controller_takes_a_state() -> None:
    empty = Controller().save()
    used = Controller()
    used.reserve(stream="s", hypothesis="h")
    before = used.save()
    with pytest.raises(Conflict):
        used.restore(empty)
    with pytest.raises(Conflict):
        used.take_over(Controller())
    assert used.save() == before
    used.take_events()
    with pytest.raises(Conflict):
        used.restore(empty)
    fresh = Controller(ControllerParams(alpha=0.5))
    fresh.take_over(used)
    assert fresh.save() == before


def alarmed() -> Controller:
    controller = Controller(ControllerParams(schedule=("uniform", 100)))
    for i in range(20):
        level = controller.reserve(stream="s", hypothesis=str(i)).alpha
        controller.settle(stream="s", hypothesis=str(i), p=1e-6, trigger=level >= 1e-6)
        controller.close(stream="s", hypothesis=str(i), reason="end")
    assert controller.state("s").alarm
    return controller


def test_alarms_and_what_is_spent_are_kept() -> None:
    controller = alarmed()
    again = Controller()
    again.restore(controller.save())
    assert again.state("s") == controller.state("s")
    assert controller.rest(stream="s")
    resting = Controller()
    resting.restore(controller.save())
    assert resting.state("s") == controller.state("s")


def test_damaged_bytes_are_refused_and_never_half_taken() -> None:
    """The ledger has a digest of the bytes; even without it most damage is seen, and none raises anything else."""
    data = alarmed().save()
    refused = 0
    for at in range(0, len(data), 7):
        for changed in (data[:at], data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]):
            controller: Any = Controller()
            try:
                controller.restore(changed)
            except ReplayError:
                refused += 1
                assert controller.count == 0
    assert refused > len(data) // 7
