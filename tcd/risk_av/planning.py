"""The events that grant or end leases, found by reading: nothing is applied before they are durable in a shared log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tcd.risk_av.catalogue import open_rule
from tcd.risk_av.errors import BudgetUsedUp
from tcd.risk_av.events import Closed, Configured, EpochOpened, Event, Leased, LeaseEnded
from tcd.risk_av.hypothesis import Epoch, Granted
from tcd.risk_av.lease import lease_limit
from tcd.risk_av.params import ControllerParams, Schedule, Terms
from tcd.risk_av.pool import Pool, PoolState
from tcd.risk_av.rules import Rai
from tcd.risk_av.stream import Stream


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a replica asks of a stream's budget.

    Attributes:
        stream: whose.
        holder: name of the replica.
        replicas: how many share the stream; a lease is at most L/(4 replicas) reservations, at least one.
        wanted: reservations that are waited for; leases are granted until there are as many.
        schedule: of the stream's next epochs, where its calibration gives one; None = as it is.
        pool: what pays the stream's epochs; None = they have alpha to themselves.
    """

    stream: str
    holder: str
    replicas: int
    wanted: int = 1
    schedule: Schedule | None = None
    pool: Pool | None = None


def plan_leases(
    request: LeaseRequest, *, state: Stream | None, params: ControllerParams, pool: PoolState | None
) -> list[Event]:
    """Events that grant what is asked for, as far as there is budget.

    Args:
        request: of a replica.
        state: the stream; None before its first epoch.
        params: of new streams.
        pool: a copy of the pool's state, where the request names one; shares that are planned are given in it.

    Raises:
        BudgetUsedUp: the epoch is used up and does not roll by itself.
        ValueError: the stream's rule or schedule cannot be leased.
    """
    now = state.params if state is not None else params
    out: list[Event] = []
    if request.schedule is not None and request.schedule != now.schedule:
        # the schedule is the stream's own, all else is everybody's
        now = replace(params, schedule=request.schedule)
        out.append(Configured(request.stream, now))
    if now.rule != "rai" or now.schedule[0] != "uniform":
        msg = "only a uniform schedule of rai can be leased: its costs do not depend on evidence"
        raise ValueError(msg)
    left = request.wanted
    for event in _grants(request, state, now, params, pool):
        out.append(event)
        if isinstance(event, Leased):
            left -= event.count
            if left <= 0:
                return out
    if not any(isinstance(event, Leased) for event in out):
        msg = "the epoch's budget is used up"
        raise BudgetUsedUp(msg, retry_after=60.0)
    return out


def _grants(
    request: LeaseRequest, state: Stream | None, now: ControllerParams, params: ControllerParams, pool: PoolState | None
) -> Iterator[Event]:
    """Leases one after the other, and the epochs that they need; ends where the budget does."""
    epoch: Epoch | None = state.epoch if state is not None else None
    number, index, terms = (0, 0, None) if epoch is None else (epoch.number, epoch.rule.index, epoch.rule.terms)
    seq, leased = (0, 0) if state is None else (state.seq, state.leased)
    while True:
        if terms is None or (index >= int(terms.schedule[1]) and now.epoch_roll == "auto"):
            if request.pool is not None and pool is not None:
                now = request.pool.params(params)
                share = pool.next(request.pool.name, request.stream, now)
                pool.apply(share)
                yield share
            number, index, terms = number + 1, 0, Terms.of(now)
            yield EpochOpened(request.stream, number, now)
        length = int(terms.schedule[1])
        count = min(lease_limit(length, request.replicas), length - index)
        if count < 1:
            return
        leased += 1
        cost = _cost(terms, index)
        yield Leased(request.stream, leased, request.holder, number, index + 1, seq + 1, count, cost)
        index, seq = index + count, seq + count


def _cost(terms: Terms, index: int) -> float:
    """What each of the next reservations costs."""
    rule = open_rule(terms)
    if isinstance(rule, Rai):
        rule.take(index)
    return rule.level().cost


def plan_end(stream: str, granted: Granted, *, drawn: int) -> list[Event]:
    """Events that end a lease, returned or lost; see `Controller.end_lease`."""
    out: list[Event] = [
        Closed(stream, slot.name, "abandoned") for slot in granted.slots if slot.name and not slot.reason
    ]
    out.append(LeaseEnded(stream, granted.number, min(max(drawn, 0), len(granted.slots))))
    return out
