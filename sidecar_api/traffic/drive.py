"""Requests through one or two sides: a bounded number in flight, steps of a session in order, results in line order."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sidecar_api.traffic.lines import Bad, Item, Line
from sidecar_api.traffic.outcome import Outcome

#: Lines read ahead of the oldest unanswered one, per connection.
_AHEAD: Final = 8
_SHOWN: Final = 20
#: Upper bounds of latency buckets, seconds: factors of 2^(1/4) from 0.1 ms to 100 s.
_BOUNDS: Final = tuple(1e-4 * 2 ** (i / 4) for i in range(81))


class Side(Protocol):
    """Something that decides.

    Attributes:
        name: for people.
        concurrent: whether several requests may be in work at once; else they come one by one, in line order.
    """

    name: str
    concurrent: bool

    async def decide(self, line: Line) -> Outcome:
        """Answer one request."""
        ...


@dataclass(slots=True)
class Tally:
    """What a side answered, in bounded space.

    Attributes:
        actions, verdicts, problems, receipts, policies, guarantees: how many of each.
        retries: requests that were sent again.
    """

    name: str
    actions: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    receipts: Counter[str] = field(default_factory=Counter)
    policies: Counter[str] = field(default_factory=Counter)
    guarantees: Counter[str] = field(default_factory=Counter)
    first_problem: str = ""
    triggers: int = 0
    retries: int = 0
    _latency: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS) + 1))

    def add(self, line: Line, outcome: Outcome) -> None:
        """Count an outcome."""
        self.retries += outcome.retries
        if outcome.decided is None:
            self.problems[outcome.problem] += 1
            self.first_problem = self.first_problem or f"line {line.number}: {outcome.problem}: {outcome.detail}"
            return
        self.actions[outcome.decided.action] += 1
        self.verdicts[outcome.verdict] += 1
        self.triggers += outcome.decided.trigger
        _bounded(self.policies, outcome.decided.policy_ref)
        _bounded(self.guarantees, _claim(outcome.decided.guarantee))
        if outcome.receipt:
            self.receipts[outcome.receipt] += 1
        self._latency[sum(1 for bound in _BOUNDS if bound < outcome.seconds)] += 1

    @property
    def failed(self) -> bool:
        """Whether a request had no answer, or a receipt did not verify."""
        return bool(self.problems) or any(code != "ok" for code in self.receipts)

    def quantile(self, share: float) -> float | None:
        """Upper bound of a quantile of the latency in seconds, within 19 %; None without answers."""
        total = sum(self._latency)
        seen = 0
        for place, number in enumerate(self._latency):
            seen += number
            if total and seen >= share * total:
                return _BOUNDS[min(place, len(_BOUNDS) - 1)]
        return None

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        quantiles = {f"p{100 * q:g}_ms": self.quantile(q) for q in (0.5, 0.99, 0.999)}
        return {
            "name": self.name,
            "answered": self.actions.total(),
            "triggers": self.triggers,
            "retries": self.retries,
            **{
                name: dict(getattr(self, name))
                for name in ("actions", "verdicts", "problems", "receipts", "policies", "guarantees")
            },
            "first_problem": self.first_problem,
            "latency": {name: None if q is None else round(1e3 * q, 3) for name, q in quantiles.items()},
        }


def _bounded(counter: Counter[str], name: str) -> None:
    counter[name if name in counter or len(counter) < _SHOWN else "other"] += 1


def _claim(guarantee: str) -> str:
    """A guarantee without its epoch, which changes all the time."""
    return "|".join(part for part in guarantee.split("|") if not part.startswith("epoch="))


async def run(
    items: Iterable[Item], sides: Sequence[Side], *, concurrency: int = 1
) -> AsyncIterator[tuple[Item, list[Outcome]]]:
    """Every item with the outcomes of the sides, in the order of the lines.

    Args:
        items: read as far ahead as `concurrency` asks for, no further.
        sides: one or two; those that are not concurrent are asked in line order.
        concurrency: requests in flight at each concurrent side.
    """
    flight = _Flight(sides, concurrency)
    try:
        for item in items:
            flight.begin(item)
            if flight.full:
                yield await flight.oldest()
        while flight.waiting:
            yield await flight.oldest()
    finally:
        flight.cancel()


_Task = asyncio.Task[dict[int, Outcome]]


class _Flight:
    """Items under way, oldest first."""

    def __init__(self, sides: Sequence[Side], concurrency: int) -> None:
        self._sides = sides
        self._most = concurrency * _AHEAD if any(side.concurrent for side in sides) else 1
        self._slots = asyncio.Semaphore(concurrency)
        self._tails: dict[tuple[str, str, str], _Task] = {}
        self.waiting: deque[tuple[Item, _Task | None]] = deque()

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self._most

    def begin(self, item: Item) -> None:
        """Take an item; a step begins when the one before it in its session has ended."""
        task = None
        if isinstance(item, Line):
            task = self._tails[item.session] = asyncio.ensure_future(self._ask(item, self._tails.get(item.session)))
        self.waiting.append((item, task))

    async def _ask(self, line: Line, before: _Task | None) -> dict[int, Outcome]:
        if before is not None:
            await asyncio.wait([before])
        async with self._slots:
            chosen = [(i, side) for i, side in enumerate(self._sides) if side.concurrent]
            found = await asyncio.gather(*(side.decide(line) for _, side in chosen))
        return {i: outcome for (i, _), outcome in zip(chosen, found, strict=True)}

    async def oldest(self) -> tuple[Item, list[Outcome]]:
        """The oldest item and its outcomes."""
        item, task = self.waiting.popleft()
        if task is None or isinstance(item, Bad):
            return item, []
        found = await task
        if self._tails.get(item.session) is task:
            del self._tails[item.session]
        for i, side in enumerate(self._sides):
            if not side.concurrent:
                found[i] = await side.decide(item)
        return item, [found[i] for i in range(len(self._sides))]

    def cancel(self) -> None:
        """Let go of what is under way."""
        for _, task in self.waiting:
            if task is not None:
                task.cancel()
