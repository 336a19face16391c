"""The false-alarm guarantee over cells: leases, a tenant split over cells, shims and databases that die.

A cell is a controller with its log, as one PostgreSQL holds it, and shims that draw from leases. A tenant that is too
large for a cell has a part of its alpha in each of several. The worlds below use the controller of `tcd.risk_av`;
`Broken` names what a deployment could get wrong, and each of these has to break the bound.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tcd.bench.controller.rate import Rate
from tcd.risk_av import Controller, ControllerParams, Event, LeaseHolder
from tcd.risk_av.errors import ReplayError

ALPHA = 0.05
#: Reservations of a tenant in an epoch, over all its cells.
LENGTH = 32
Broken = Literal["", "whole alpha in each cell", "standby behind", "moved without its log"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What happens to a tenant.

    Attributes:
        cells: over how many its alpha and its length are split.
        shims: per cell.
        kill: chance per request that a shim dies: what it leased is lost, what was in flight is sent to another one.
        zombie: chance that a dead shim goes on answering until it notices.
        failover: chance per request that a cell's database dies and its synchronous standby takes over.
        move: chance per request that a cell's part of the tenant goes to another cell, with its log.
        again: chance that a caller repeats a request at another shim, with the same evidence and another session name.
        broken: what is done wrong.
    """

    cells: int = 1
    shims: int = 3
    kill: float = 0.0
    zombie: float = 0.0
    failover: float = 0.0
    move: float = 0.0
    again: float = 0.0
    broken: Broken = ""


@dataclass
class Cell:
    """One controller and the shims that draw from it; `answered`: epochs, and whether somebody was told a trigger."""

    plan: Plan
    rng: np.random.Generator
    controller: Controller
    log: list[Event] = field(default_factory=list)
    holders: dict[int, LeaseHolder] = field(default_factory=dict)
    answered: dict[int, bool] = field(default_factory=dict)
    names: int = 0
    shim_names: int = 0

    def request(self, p: float, shim: int, *, tries: int = 3) -> None:
        """A session of one step with p-value `p` at a shim; whoever dies under it makes its caller try another one."""
        if tries == 0:
            return
        if self.rng.random() < self.plan.failover:
            self._failover()
        if self.rng.random() < self.plan.move:
            self._move()
        holder = self._holder(shim)
        epoch = holder.lease.epoch
        self.names += 1
        name = str(self.names)
        alpha = holder.reserve(name)
        # the reservation is durable before the row is scored
        self._commit(holder)
        if self.rng.random() < self.plan.kill:
            self._lost(shim)
            if self.rng.random() < self.plan.zombie:
                self._zombie(holder, name, p, alpha)
            self.request(p, (shim + 1) % self.plan.shims, tries=tries - 1)
            return
        trigger = holder.settle(name, p, trigger=p <= alpha)
        holder.close(name, "end")
        # durable, then answered
        self._commit(holder)
        self.answered[epoch] = self.answered.get(epoch, False) or trigger
        if not holder.left:
            self.controller.end_lease(stream="t", number=holder.lease.number, drawn=holder.drawn)
            del self.holders[shim]
            self._keep()

    def _holder(self, shim: int) -> LeaseHolder:
        holder = self.holders.get(shim)
        if holder is None:
            self.shim_names += 1
            lease = self.controller.lease(stream="t", holder=f"{shim}-{self.shim_names}", replicas=self.plan.shims)
            holder = self.holders[shim] = LeaseHolder(lease)
            self._keep()
        return holder

    def _commit(self, holder: LeaseHolder) -> None:
        self.controller.accept(holder.take_events())
        self._keep()

    def _keep(self) -> None:
        self.log += self.controller.take_events()

    def _lost(self, shim: int) -> None:
        """The others declare it lost: what it was leased stays spent."""
        holder = self.holders.pop(shim)
        self.controller.end_lease(stream="t", number=holder.lease.number, drawn=holder.lease.count)
        self._keep()

    def _zombie(self, holder: LeaseHolder, name: str, p: float, alpha: float) -> None:
        """It settles what it had begun; the log does not take it, so it is no answer."""
        holder.settle(name, p, trigger=p <= alpha)
        try:
            self.controller.accept(holder.take_events())
        except ReplayError:
            self.controller.take_events()
            return
        msg = "the log took what a lost shim said"
        raise AssertionError(msg)

    def _failover(self) -> None:
        """The standby has every commit; one that is behind has forgotten what was spent in the running epoch."""
        if self.plan.broken == "standby behind":
            at = max((i for i, e in enumerate(self.log) if e.kind == "epoch"), default=0)
            self.log = self.log[: at + 1]
            self.holders.clear()
        self.controller = Controller.replay(self.log, self.controller.params)
        if self.plan.broken != "standby behind":
            # shims join again under their names: what they had is declared lost
            for shim in tuple(self.holders):
                self._lost(shim)

    def _move(self) -> None:
        """To another cell: the old one ends all leases and is fenced, the new one goes on from its log."""
        for shim in tuple(self.holders):
            self._lost(shim)
        if self.plan.broken == "moved without its log":
            # the same epoch again, with all of its alpha
            self.log = [event for event in self.log if event.kind == "epoch"]
        self.controller = Controller.replay(self.log, self.controller.params)


def run(plan: Plan, *, epochs: int, seed: int) -> tuple[int, int]:
    """Epochs of a tenant in which anybody was told a trigger though all p-values are uniform, and epochs.

    The tenant's n-th epoch is the n-th epoch of each of its cells: their alphas add up to ALPHA.
    """
    rng = np.random.default_rng(seed)
    alpha = ALPHA if plan.broken == "whole alpha in each cell" else ALPHA / plan.cells
    params = ControllerParams(alpha=alpha, schedule=("uniform", LENGTH // plan.cells), keep_closed=0)
    triggered: defaultdict[tuple[int, int], bool] = defaultdict(bool)
    # a tenant for every so many epochs: a failover replays a whole log
    for tenant in range(0, epochs, _EPOCHS):
        for _ in range(plan.cells):
            cell = Cell(plan, rng, Controller(params))
            while max(cell.answered, default=0) <= _EPOCHS:
                p, shim = float(rng.random()), int(rng.integers(plan.shims))
                cell.request(p, shim)
                if rng.random() < plan.again:
                    cell.request(p, (shim + 1) % plan.shims)
            for epoch, hit in cell.answered.items():
                if epoch <= _EPOCHS:
                    triggered[tenant, epoch] |= hit
    return sum(triggered.values()), len(range(0, epochs, _EPOCHS)) * _EPOCHS


_EPOCHS = 5


SOUND = {
    "one cell, leases": (Plan(), "contains"),
    "split over 4 cells": (Plan(cells=4), "contains"),
    "split over 8 cells, shims die": (Plan(cells=8, kill=0.05, zombie=0.5), "at_most"),
    "4 cells, everything dies and moves, callers repeat": (
        Plan(cells=4, kill=0.03, zombie=0.5, failover=0.02, move=0.01, again=0.2),
        "at_most",
    ),
}
BROKEN = {
    "whole alpha in each cell": Plan(cells=4, broken="whole alpha in each cell"),
    "standby behind": Plan(failover=0.05, broken="standby behind"),
    "moved without its log": Plan(move=0.05, broken="moved without its log"),
}
#: P(any trigger) of an epoch in which every reservation was drawn and settled.
EXACT = 1.0 - (1.0 - ALPHA / LENGTH) ** LENGTH


def sound(name: str, *, epochs: int, seed: int) -> Rate:
    """A world of `SOUND` against its bound: EXACT where nothing is lost, ALPHA where something is."""
    plan, check = SOUND[name]
    hits, n = run(plan, epochs=epochs, seed=seed)
    if check == "contains":
        return Rate.of_hits("scale", name, hits, n, bound=EXACT, check="contains")
    return Rate.of_hits("scale", name, hits, n, bound=ALPHA, check="at_most")


def broken(name: str, *, epochs: int, seed: int) -> Rate:
    """A world of `BROKEN`: it has to be seen that it is above ALPHA."""
    hits, n = run(BROKEN[name], epochs=epochs, seed=seed)
    return Rate.of_hits("scale", name, hits, n, bound=ALPHA, check="above")


def power(cells: int, *, sessions: int, share: float, seed: int, length: int = 64) -> float:
    """Share of unsafe sessions that trigger, when a share of all is unsafe (p = u^8) and a tenant is split."""
    rng = np.random.default_rng(seed)
    params = ControllerParams(alpha=ALPHA / cells, schedule=("uniform", length // cells), keep_closed=0)
    controllers = [Controller(params) for _ in range(cells)]
    found = unsafe = 0
    for number in range(sessions):
        controller = controllers[int(rng.integers(cells))]
        bad = rng.random() < share
        p = float(rng.random() ** (8 if bad else 1))
        got = controller.reserve(stream="t", hypothesis=str(number))
        settled = controller.settle(stream="t", hypothesis=str(number), p=p, trigger=p <= got.alpha)
        controller.close(stream="t", hypothesis=str(number), reason="end")
        controller.take_events()
        unsafe += bad
        found += bad and settled.trigger
    return found / unsafe
