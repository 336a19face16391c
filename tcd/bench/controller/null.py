"""Experiment 1: under the global null an epoch triggers with 1 - prod(1 - alpha_t), whatever the interleaving."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tcd.bench.controller.arrays import rai
from tcd.bench.controller.naive import NoReservation
from tcd.bench.controller.rate import Rate
from tcd.risk_av import Controller, ControllerParams, Event, LeaseHolder

ALPHA = 0.05
_CHUNK_VALUES = 20_000_000


def target(length: int) -> float:
    """P(any trigger) of an epoch of `length` reservations."""
    return 1.0 - (1.0 - ALPHA / length) ** length


def vectorised(streams: int, length: int, seed: int) -> Rate:
    """`streams` epochs of `length` hypotheses each, in numpy."""
    rng = np.random.default_rng(seed)
    hits, left = 0, streams
    while left:
        n = min(left, max(1, _CHUNK_VALUES // length))
        _, rejected = rai(rng.random((n, length)), alpha=ALPHA)
        hits += int(rejected.any(axis=1).sum())
        left -= n
    label = f"numpy, {streams:,} streams x {length}"
    return Rate.of_hits("null", label, hits, streams, bound=target(length), check="contains")


def equal_to_the_controller(streams: int, length: int, seed: int) -> bool:
    """Whether the numpy levels and decisions are the controller's, bit for bit."""
    p = np.random.default_rng(seed).random((streams, length)) ** 6
    levels, rejected = rai(p, alpha=ALPHA)
    for i in range(streams):
        controller = Controller(ControllerParams(alpha=ALPHA, schedule=("uniform", length), keep_closed=0))
        for t in range(length):
            got = controller.reserve(stream="s", hypothesis=str(t))
            value = float(p[i, t])
            settled = controller.settle(stream="s", hypothesis=str(t), p=value, trigger=value <= got.alpha)
            controller.close(stream="s", hypothesis=str(t), reason="end")
            if got.alpha != levels[i, t] or settled.trigger is not bool(rejected[i, t]):
                return False
    return True


@dataclass
class _World:
    """Sessions of one stream, some in flight; p of a session falls to a uniform one over its calls."""

    length: int
    concurrency: int
    rng: np.random.Generator
    hit: dict[int, bool] = field(default_factory=dict)
    pending: list[tuple[str, int, float, list[float]]] = field(default_factory=list)
    count: int = 0

    def path(self) -> list[float]:
        """The p-values of one session's calls."""
        final = float(self.rng.random())
        return [1.0 - (1.0 - final) * float(self.rng.random()), final] if self.rng.random() < 0.5 else [final]  # noqa: PLR2004

    def pick(self) -> int:
        """A session in flight."""
        return int(self.rng.integers(len(self.pending)))

    @property
    def starts(self) -> bool:
        """Whether the next thing that happens is a new session."""
        return len(self.pending) < self.concurrency and (not self.pending or self.rng.random() < 0.5)  # noqa: PLR2004


def concurrent(epochs: int, *, concurrency: int, seed: int, length: int = 10, retries: float = 0.2) -> tuple[int, int]:
    """Epochs with a trigger, of how many, through the real controller; some calls are sent twice."""
    params = ControllerParams(alpha=ALPHA, schedule=("uniform", length), keep_closed=0)
    controller = Controller(params)
    world = _World(length, concurrency, np.random.default_rng(seed))
    while True:
        if world.starts:
            got = controller.reserve(stream="s", hypothesis=str(world.count))
            if got.epoch > epochs:
                break
            world.hit.setdefault(got.epoch, False)
            world.pending.append((str(world.count), got.epoch, got.alpha, world.path()))
            world.count += 1
            continue
        at = world.pick()
        name, epoch, alpha, path = world.pending[at]
        for _ in range(2 if world.rng.random() < retries else 1):
            settled = controller.settle(stream="s", hypothesis=name, p=path[0], trigger=path[0] <= alpha)
        world.hit[epoch] |= settled.trigger
        path.pop(0)
        if not path:
            controller.close(stream="s", hypothesis=name, reason="end")
            world.pending.pop(at)
        controller.take_events()
    for _, epoch, alpha, path in world.pending:
        world.hit[epoch] |= min(path) <= alpha
    return sum(world.hit.values()), len(world.hit)


def naive(epochs: int, *, concurrency: int, seed: int, length: int = 10) -> tuple[int, int]:
    """The same without reservations: a level is read, the state written back at the end."""
    controller = NoReservation(ControllerParams(alpha=ALPHA, schedule=("uniform", length)))
    world = _World(length, concurrency, np.random.default_rng(seed))
    while len(world.hit) <= epochs:
        # all places stay taken, as under load
        while len(world.pending) < concurrency:
            epoch, index, level = controller.begin()
            world.hit.setdefault(epoch, False)
            world.pending.append((str(index), epoch, level, world.path()))
        name, epoch, level, path = world.pending.pop(world.pick())
        rejected = min(path) <= level
        controller.end(epoch, int(name), rejected=rejected)
        world.hit[epoch] |= rejected
    world.hit.pop(max(world.hit))
    return sum(world.hit.values()), len(world.hit)


def crashing(epochs: int, *, concurrency: int, seed: int, length: int = 10, crash: float = 0.02) -> tuple[int, int]:
    """Kill and restart at random events: what was durable is replayed, open hypotheses are abandoned.

    Runs worlds of 20 epochs. An answer counts when its events were durable before the crash.
    """
    params = ControllerParams(alpha=ALPHA, schedule=("uniform", length), keep_closed=0)
    rng = np.random.default_rng(seed)
    hits = total = 0
    while total < epochs:
        world = _World(length, concurrency, rng)
        controller = Controller(params)
        log: list[Event] = []
        while True:
            spent = controller.state("s").spent, controller.state("s").epoch
            if rng.random() < crash:
                # whatever was not taken is lost with the process
                controller = Controller.replay(log, params)
                after = controller.state("s")
                assert (after.epoch, after.spent) >= (spent[1], spent[0]) or after.epoch == spent[1]  # noqa: S101
                for name in controller.open_hypotheses("s"):
                    controller.close(stream="s", hypothesis=name, reason="abandoned")
                log += controller.take_events()
                world.pending.clear()
            if world.starts:
                got = controller.reserve(stream="s", hypothesis=str(world.count))
                if got.epoch > _EPOCHS_PER_WORLD:
                    break
                log += controller.take_events()
                world.hit.setdefault(got.epoch, False)
                world.pending.append((str(world.count), got.epoch, got.alpha, world.path()))
                world.count += 1
                continue
            at = world.pick()
            name, epoch, alpha, path = world.pending[at]
            settled = controller.settle(stream="s", hypothesis=name, p=path[0], trigger=path[0] <= alpha)
            path.pop(0)
            if not path:
                controller.close(stream="s", hypothesis=name, reason="end")
                world.pending.pop(at)
            log += controller.take_events()
            world.hit[epoch] |= settled.trigger
        hits += sum(world.hit.values())
        total += len(world.hit)
    return hits, total


_EPOCHS_PER_WORLD = 20


def replicas(epochs: int, *, seed: int, length: int = 80, lose: float = 0.0) -> tuple[int, int]:
    """Two replicas that draw from leases, in any interleaving; with `lose` a replica dies with its lease at times."""
    params = ControllerParams(alpha=ALPHA, schedule=("uniform", length), keep_closed=0)
    rng = np.random.default_rng(seed)
    controller = Controller(params)
    holders: list[LeaseHolder | None] = [None, None]
    hit: dict[int, bool] = {}
    count = 0
    while True:
        at = int(rng.integers(2))
        holder = holders[at]
        if holder is None or not holder.left or rng.random() < lose:
            if holder is not None:
                controller.end_lease(stream="s", number=holder.lease.number, drawn=holder.drawn)
            holder = holders[at] = LeaseHolder(controller.lease(stream="s", holder=str(at), replicas=2))
            hit.setdefault(holder.lease.epoch, False)
            if holder.lease.epoch > epochs:
                break
        name = str(count)
        count += 1
        alpha = holder.reserve(name)
        p = float(rng.random())
        hit[holder.lease.epoch] |= holder.settle(name, p, trigger=p <= alpha)
        holder.close(name, "end")
        controller.accept(holder.take_events())
        controller.take_events()
    for holder in holders:
        if holder is not None and holder.lease.epoch <= epochs:
            for _ in range(holder.left):
                name, count = str(count), count + 1
                alpha = holder.reserve(name)
                p = float(rng.random())
                hit[holder.lease.epoch] |= holder.settle(name, p, trigger=p <= alpha)
    whole = {epoch: value for epoch, value in hit.items() if epoch <= epochs}
    return sum(whole.values()), len(whole)


def experiment(epochs: int, streams: tuple[tuple[int, int], ...], concurrencies: tuple[int, ...]) -> list[Rate]:
    """All of experiment 1 but the shim's part."""
    out = [vectorised(n, length, seed=1) for n, length in streams]
    bound = target(10)
    for concurrency in concurrencies:
        hits, n = concurrent(epochs, concurrency=concurrency, seed=10 + concurrency)
        label = f"controller, {concurrency} at once, 20 % of the calls twice"
        out.append(Rate.of_hits("null", label, hits, n, bound=bound, check="contains"))
    hits, n = crashing(epochs, concurrency=16, seed=3)
    note = "abandoned hypotheses cannot trigger"
    out.append(
        Rate.of_hits(
            "null",
            "controller, 16 at once, killed at 2 % of the events",
            hits,
            n,
            bound=ALPHA,
            check="at_most",
            note=note,
        )
    )
    hits, n = replicas(epochs // 4, seed=4)
    out.append(Rate.of_hits("null", "two replicas with leases", hits, n, bound=target(80), check="contains"))
    hits, n = replicas(epochs // 4, seed=5, lose=0.05)
    out.append(
        Rate.of_hits(
            "null",
            "two replicas, 5 % of the draws lose the lease",
            hits,
            n,
            bound=ALPHA,
            check="at_most",
            note="what was never drawn is spent",
        )
    )
    for concurrency in (2, 4, 16):
        hits, n = naive(max(200, epochs // 4), concurrency=concurrency, seed=concurrency)
        label = f"BROKEN: no reservation, {concurrency} at once"
        out.append(Rate.of_hits("null", label, hits, n, bound=bound, check="above"))
    return out
