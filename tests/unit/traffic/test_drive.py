"""Steps of a session are answered in order, whatever the concurrency; memory does not grow with the input."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.traffic import Bad, Diff, Line, Outcome, replayed, run
from sidecar_api.traffic.outcome import Decided, Path
from tcd.errors import Unavailable

ROUTE = Path(1.0, 1.0, "sample", 0, "normal")


def decided(action: str = "allow", *, score: float = 0.0) -> Outcome:
    return Outcome(Decided(action != "allow", False, action, action, "", score, 1.0, ROUTE, "default@1", "none", 0))


def lines(count: int, sessions: int, *, bad: int = 0) -> Iterator[Line | Bad]:
    for n in range(count):
        if bad and n % bad == bad - 1:
            yield Bad(n + 1, "why")
        else:
            yield Line(n + 1, DiagnoseRequest(session=f"s{n % sessions}", step_id=n // sessions))


class Slow:
    """Answers after a random number of turns of the loop."""

    name = "slow"

    def __init__(self, *, concurrent: bool = True, seed: int = 0) -> None:
        self.concurrent = concurrent
        self.seen: list[Line] = []
        self.busy: Counter[str] = Counter()
        self.most = 0
        self._random = np.random.default_rng(seed)

    async def decide(self, line: Line) -> Outcome:
        session = line.request.session
        self.busy[session] += 1
        assert self.busy[session] == 1, "two steps of a session at once"
        self.most = max(self.most, sum(self.busy.values()))
        for _ in range(int(self._random.integers(8))):
            await asyncio.sleep(0)
        self.seen.append(line)
        self.busy[session] -= 1
        return decided()


@pytest.mark.parametrize("concurrency", [1, 3, 16])
@pytest.mark.parametrize("sessions", [1, 5, 200])
async def test_sessions_keep_their_order_and_results_come_in_line_order(concurrency: int, sessions: int) -> None:
    side, other = Slow(), Slow(concurrent=False, seed=1)
    found = [item.number async for item, _ in run(lines(400, sessions, bad=50), [side, other], concurrency=concurrency)]
    assert found == list(range(1, 401))
    assert [line.number for line in other.seen] == [n for n in found if n % 50]
    by_session: dict[str, list[int | None]] = {}
    for line in side.seen:
        by_session.setdefault(line.request.session, []).append(line.request.step_id)
    assert all(steps == sorted(steps, key=lambda s: s or 0) for steps in by_session.values())
    assert side.most <= concurrency
    assert side.most == min(concurrency, sessions) or sessions > 1


async def test_no_more_is_read_than_can_be_in_flight() -> None:
    read = 0

    def counted() -> Iterator[Line | Bad]:
        nonlocal read
        for item in lines(1000, 10):
            read += 1
            yield item

    done = 0
    async for _ in run(counted(), [Slow()], concurrency=4):
        done += 1
        assert read - done <= 32


async def test_every_line_is_counted() -> None:
    found = await replayed(lines(1000, 10, bad=100), [Slow()], concurrency=4)
    assert (found.requests, found.bad, found.status) == (990, 10, 2)
    assert found.sides[0].actions == {"allow": 990}
    assert found.to_json()["bad"][0] == {"line": 100, "reason": "why"}


async def test_nothing_read_is_an_error() -> None:
    assert (await replayed(iter(()), [Slow()])).status == 2


async def test_a_server_that_does_not_answer_ends_it() -> None:
    class Dead(Slow):
        async def decide(self, line: Line) -> Outcome:
            return Outcome(None, "transport", f"refused {line.number}")

    with pytest.raises(Unavailable, match="no answer to 64 requests in a row"):
        await replayed(lines(1000, 10), [Dead()], concurrency=4)


def test_the_first_difference_of_each_generation_is_named() -> None:
    diff = Diff()
    for number, (step, other) in enumerate([(0, "allow"), (1, "block"), (2, "block"), (0, "allow"), (1, "degrade")], 1):
        line = Line(number, DiagnoseRequest(session="s", step_id=step))
        diff.add(line, decided(score=0.5), decided(other, score=0.5 if other == "allow" else 0.75))
    diff.add(Line(6, DiagnoseRequest(session="t")), decided(score=0.5), decided(score=0.25))
    diff.add(Line(7, DiagnoseRequest(session="t")), decided(), Outcome(None, "quota-exceeded"))
    shown = diff.to_json()
    assert (shown["same"], shown["changed"], shown["moved"]) == (3, 4, 1)
    assert (shown["sessions"], shown["sessions_differing"]) == (3, 3)
    assert [(f["line"], f["step"]) for f in shown["first_differing"]] == [(2, 1), (5, 1), (7, None)]
    assert shown["actions"] == [
        ["allow", "allow", 3],
        ["allow", "block", 2],
        ["allow", "degrade", 1],
        ["allow", "problem:quota-exceeded", 1],
    ]
    assert ["passed", "failed", 3] in shown["verdicts"]
    assert shown["members"] == {"action": 3, "enforced": 3, "verdict": 3, "problem": 1}
    assert shown["examples"][0]["candidate"]["action"] == "block"


async def test_memory_does_not_grow_with_the_lines() -> None:
    """Ten times the lines, the same peak; the whole command is measured by tests/benchmarks/bench_replay.py."""

    class Other(Slow):
        async def decide(self, line: Line) -> Outcome:
            return decided("block" if line.number % 7 == 0 else "allow")

    async def peak(count: int) -> int:
        tracemalloc.start()
        await replayed(lines(count, 64, bad=11), [Other(), Other(concurrent=False)], concurrency=4)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    await peak(500)
    small, large = await peak(1000), await peak(10_000)
    assert large < 1.5 * small, (small, large)
