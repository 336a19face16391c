"""The micro-batcher: adaptive without a timer, bounded, every row answered by its deadline."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcd.errors import ScoringError, ScoringTimeout, Unavailable
from tcd.rows import ScoreResult, ScoreRow
from tcd.triton.batcher import MicroBatcher
from tcd.triton.client import ScoringUnreachable
from tests.unit.triton.conftest import FakeClient


def row(tag: float = 0.0, *, trace: int = 1) -> ScoreRow:
    """A row whose ALPHA comes back as its P_VALUE."""
    return ScoreRow(trace=np.zeros(trace, np.float32), alpha=tag)


def tagged(tensors: Any, tag: float) -> bool:
    return bool((tensors["ALPHA"] == tag).any())


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


class Observer:
    def __init__(self) -> None:
        self.batches: list[tuple[int, str]] = []
        self.depths: list[int] = []
        self.refusals: list[str] = []

    def batch(self, *, rows: int, seconds: float, outcome: str) -> None:
        assert seconds >= 0
        self.batches.append((rows, outcome))

    def queue(self, *, depth: int) -> None:
        self.depths.append(depth)

    def refused(self, *, reason: str) -> None:
        self.refusals.append(reason)


async def test_a_lone_row_leaves_in_the_same_tick_without_a_timer(client: Any) -> None:
    batcher = MicroBatcher(client)
    client.gate = asyncio.Event()
    task = asyncio.ensure_future(batcher.score(row(0.5), timeout=60))
    await asyncio.sleep(0)  # the row arrives and schedules the flush
    await asyncio.sleep(0)  # the flush runs
    await asyncio.sleep(0)  # the batch's task calls the client
    assert client.sizes == [1]
    client.gate.set()
    result = await task
    assert result.p_value == 0.5


async def test_rows_of_one_tick_travel_together_and_get_their_own_answers(client: Any) -> None:
    batcher = MicroBatcher(client)
    results = await asyncio.gather(*(batcher.score(row(i / 64), timeout=60) for i in range(20)))
    assert client.sizes == [20]
    assert [r.p_value for r in results] == [i / 64 for i in range(20)]


async def test_k_batches_in_flight_then_rows_queue_until_one_returns(client: Any) -> None:
    batcher = MicroBatcher(client, in_flight=4)
    client.gate = asyncio.Event()
    tasks = []
    for _ in range(4):
        tasks.append(asyncio.ensure_future(batcher.score(row(), timeout=60)))
        await settle()
    assert client.sizes == [1, 1, 1, 1]
    tasks += [asyncio.ensure_future(batcher.score(row(), timeout=60)) for _ in range(50)]
    await settle()
    assert client.sizes == [1, 1, 1, 1]
    assert (batcher.depth, batcher.in_flight) == (50, 4)
    client.gate.set()
    await asyncio.gather(*tasks)
    assert client.sizes == [1, 1, 1, 1, 50]
    assert client.most_active == 4
    assert batcher.depth == 0


async def test_rows_wait_for_an_eager_call_and_not_for_a_slow_one(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = MicroBatcher(client, in_flight=3, eager=1)
    client.gate = asyncio.Event()
    tasks = []

    async def arrive(slow: float) -> None:
        monkeypatch.setattr("tcd.triton.batcher._SLOW", slow)
        tasks.append(asyncio.ensure_future(batcher.score(row(), timeout=60)))
        await settle()

    for _ in range(4):
        await arrive(1e9)
    assert (client.sizes, batcher.depth) == ([1], 3)
    # the call that is out is slow by now: who comes takes along those who wait
    await arrive(-1.0)
    assert (client.sizes, batcher.depth) == ([1, 4], 0)
    for _ in range(3):
        await arrive(-1.0)
    assert (client.sizes, batcher.depth) == ([1, 4, 1], 2)
    client.gate.set()
    await asyncio.gather(*tasks)
    assert client.sizes == [1, 4, 1, 2]


class Commit:
    """A commit under way, of so many answers."""

    def __init__(self, batcher: MicroBatcher, answers: int) -> None:
        self.answers = answers
        self._batcher = batcher
        batcher.follow(lambda: self.answers)

    def end(self) -> None:
        self.answers = 0
        self._batcher.committed()


async def arrive(batcher: MicroBatcher, rows: int) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.ensure_future(batcher.score(row(), timeout=60)) for _ in range(rows)]
    await settle()
    return tasks


async def test_rows_wait_for_the_commit_of_those_before_them_and_then_travel_together(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcd.triton.batcher._PATIENCE", 60.0)
    batcher = MicroBatcher(client, eager=1, together=4)
    commit = Commit(batcher, 3)
    tasks: list[asyncio.Task[Any]] = []
    for _ in range(3):
        tasks += await arrive(batcher, 1)
    assert (client.sizes, batcher.depth) == ([], 3)
    commit.end()
    await asyncio.gather(*tasks)
    assert client.sizes == [3]


async def test_many_rows_do_not_wait_for_a_commit_and_few_have_nothing_to_gain(client: Any) -> None:
    batcher = MicroBatcher(client, eager=1, together=4)
    commit = Commit(batcher, 3)
    await asyncio.gather(*await arrive(batcher, 4))
    assert client.sizes == [4]
    commit.answers = 2
    await asyncio.gather(*await arrive(batcher, 1))
    assert client.sizes == [4, 1]


async def test_a_batch_that_returns_leaves_rows_to_the_commit_too(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcd.triton.batcher._PATIENCE", 60.0)
    batcher = MicroBatcher(client, eager=1, together=4)
    client.gate = asyncio.Event()
    commit = Commit(batcher, 0)
    first = await arrive(batcher, 1)
    later = await arrive(batcher, 2)
    commit.answers = 2
    client.gate.set()
    await asyncio.gather(*first)
    await settle()
    assert (client.sizes, batcher.depth) == ([1], 2)
    commit.end()
    await asyncio.gather(*later)
    assert client.sizes == [1, 2]


async def test_a_commit_that_hangs_holds_nobody_up_for_long(client: Any) -> None:
    batcher = MicroBatcher(client, eager=1, together=4)
    Commit(batcher, 100)
    for _ in range(2):
        await asyncio.gather(*await arrive(batcher, 1))
    assert client.sizes == [1, 1]


async def test_rows_that_give_up_leave_no_patience_behind(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcd.triton.batcher._PATIENCE", 60.0)
    batcher = MicroBatcher(client, eager=1, together=4)
    commit = Commit(batcher, 100)
    for task in await arrive(batcher, 2):
        task.cancel()
    await settle()
    assert batcher.depth == 0
    commit.end()
    assert await batcher.drain(timeout=60)
    assert client.sizes == []


async def test_batches_hold_at_most_max_batch_rows_of_equal_widths(client: Any) -> None:
    batcher = MicroBatcher(client, max_batch=128)
    rows = [row(trace=10 if i % 2 else 100) for i in range(300)]
    await asyncio.gather(*(batcher.score(r, timeout=60) for r in rows))
    assert sorted(client.sizes) == [22, 22, 128, 128]
    for call in client.calls:
        counts = call["LENGTHS"][:, 0]
        assert len(set(counts.tolist())) == 1
        assert call["TRACE"].shape[1] == (64 if counts[0] == 10 else 256)


async def test_the_group_with_the_oldest_row_goes_first(client: Any) -> None:
    batcher = MicroBatcher(client, in_flight=1)
    client.gate = asyncio.Event()
    tasks = [asyncio.ensure_future(batcher.score(row(), timeout=60))]
    await settle()
    for trace in (300, 10, 10, 300):
        tasks.append(asyncio.ensure_future(batcher.score(row(trace=trace), timeout=60)))
        await settle()
    client.gate.set()
    await asyncio.gather(*tasks)
    assert [c["LENGTHS"][:, 0].tolist() for c in client.calls] == [[1], [300, 300], [10, 10]]


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(client: Any) -> None:
    observer = Observer()
    batcher = MicroBatcher(client, in_flight=1, queue_limit=3, observer=observer)
    client.gate = asyncio.Event()
    tasks = [asyncio.ensure_future(batcher.score(row(), timeout=60))]
    await settle()
    tasks += [asyncio.ensure_future(batcher.score(row(), timeout=60)) for _ in range(3)]
    await settle()
    with pytest.raises(Unavailable) as refused:
        await batcher.score(row(), timeout=60)
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 5
    assert not isinstance(refused.value, ScoringError)
    client.gate.set()
    await asyncio.gather(*tasks)
    assert observer.refusals == ["full"]
    assert max(observer.depths) == 3
    assert observer.depths[-1] == 0
    await batcher.score(row(), timeout=60)


async def test_each_row_has_its_own_deadline_in_the_queue_and_in_flight(client: Any) -> None:
    batcher = MicroBatcher(client, in_flight=1)
    client.gate = asyncio.Event()
    # the gate stays closed: that a row ends at all is its own deadline's doing
    first = asyncio.ensure_future(batcher.score(row(0.25), timeout=0.05))
    patient = asyncio.ensure_future(batcher.score(row(0.75), timeout=600))
    await settle()
    queued = asyncio.ensure_future(batcher.score(row(), timeout=0.1))
    with pytest.raises(ScoringTimeout):
        await asyncio.wait_for(first, 60)
    with pytest.raises(ScoringTimeout):
        await asyncio.wait_for(queued, 60)
    assert not patient.done()
    assert batcher.depth == 0, "an expired row leaves the queue"
    client.gate.set()
    assert (await patient).p_value == 0.75
    assert client.sizes == [2]
    assert client.timeouts[0] > 500, "the call lives as long as its most patient row"
    assert batcher.stats.expired == 2


async def test_a_failed_batch_is_retried_row_by_row_once(client: Any) -> None:
    batcher = MicroBatcher(client)
    client.fail = lambda tensors: ScoringError("poisoned") if tagged(tensors, 0.5) else None
    outcomes = await asyncio.gather(
        *(batcher.score(row(tag), timeout=60) for tag in (0.25, 0.5, 0.75)), return_exceptions=True
    )
    assert isinstance(outcomes[0], ScoreResult)
    assert outcomes[0].p_value == 0.25
    assert isinstance(outcomes[1], ScoringError)
    assert isinstance(outcomes[2], ScoreResult)
    assert client.sizes == [3, 1, 1, 1]
    assert batcher.stats.retried_rows == 3


async def test_an_unreachable_server_is_asked_twice_not_once_per_row(client: Any) -> None:
    observer = Observer()
    batcher = MicroBatcher(client, observer=observer)
    client.fail = lambda _: ScoringUnreachable("away")
    outcomes = await asyncio.gather(*(batcher.score(row(), timeout=60) for _ in range(30)), return_exceptions=True)
    assert all(isinstance(o, ScoringUnreachable) for o in outcomes)
    assert len({id(o) for o in outcomes}) == 30, "waiters do not share an exception object"
    assert client.sizes == [30, 1]
    assert observer.batches == [(30, "unreachable"), (1, "unreachable")]


async def test_a_timed_out_batch_is_not_retried(client: Any) -> None:
    batcher = MicroBatcher(client)
    client.fail = lambda _: ScoringTimeout("late")
    outcomes = await asyncio.gather(*(batcher.score(row(), timeout=60) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(o, ScoringTimeout) for o in outcomes)
    assert client.sizes == [3]


async def test_a_defect_in_the_client_leaves_nobody_waiting(client: Any) -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    batcher = MicroBatcher(client)
    client.fail = lambda _: RuntimeError("defect")
    with pytest.raises(ScoringError):
        await batcher.score(row(), timeout=60)
    await settle()
    gc.collect()
    client.fail = lambda _: None
    assert (await batcher.score(row(0.5), timeout=60)).p_value == 0.5
    await settle()
    assert batcher.in_flight == 0
    assert "defect" in str(problems[0]["exception"]), "the defect is reported, not swallowed"


async def test_cancelled_rows_are_dropped_from_the_queue(client: Any) -> None:
    batcher = MicroBatcher(client, in_flight=1)
    client.gate = asyncio.Event()
    first = asyncio.ensure_future(batcher.score(row(), timeout=60))
    await settle()
    waiting = [asyncio.ensure_future(batcher.score(row(), timeout=60)) for _ in range(3)]
    await settle()
    waiting[1].cancel()
    await asyncio.wait({waiting[1]})
    assert batcher.depth == 2
    client.gate.set()
    await asyncio.gather(first, waiting[0], waiting[2])
    assert client.sizes == [1, 2]
    assert batcher.stats.dropped == 1


async def test_drain_answers_what_is_under_way_and_refuses_what_comes(client: Any) -> None:
    batcher = MicroBatcher(client, in_flight=1)
    client.gate = asyncio.Event()
    tasks = [asyncio.ensure_future(batcher.score(row(), timeout=60)) for _ in range(2)]
    await settle()
    tasks.append(asyncio.ensure_future(batcher.score(row(), timeout=60)))
    await settle()
    draining = asyncio.ensure_future(batcher.drain(timeout=60))
    await settle()
    with pytest.raises(Unavailable, match="stopping"):
        await batcher.score(row(), timeout=60)
    assert not draining.done()
    client.gate.set()
    assert await draining
    assert all(isinstance(r, ScoreResult) for r in await asyncio.gather(*tasks))


async def test_drain_fails_the_rest_at_its_deadline(client: Any) -> None:
    batcher = MicroBatcher(client, in_flight=1)
    client.gate = asyncio.Event()
    flying = asyncio.ensure_future(batcher.score(row(), timeout=60))
    await settle()
    queued = asyncio.ensure_future(batcher.score(row(), timeout=60))
    await settle()
    assert not await batcher.drain(timeout=0.02)
    for task in (flying, queued):
        with pytest.raises(Unavailable):
            await task
    assert (batcher.depth, batcher.in_flight) == (0, 0)


async def test_an_idle_batcher_drains_at_once(client: Any) -> None:
    batcher = MicroBatcher(client)
    await batcher.score(row(), timeout=60)
    await settle()
    assert await batcher.drain(timeout=0)


@settings(max_examples=40, deadline=None)
@given(
    plan=st.lists(
        st.tuples(
            st.sampled_from((1, 65, 300)),  # width
            st.sampled_from(("ok", "cancel", "poison", "late")),
            st.integers(0, 2),  # ticks before the next arrival
        ),
        max_size=30,
    ),
    slots=st.integers(1, 3),
    limit=st.integers(1, 12),
)
def test_every_row_ends_in_exactly_one_way(plan: list[tuple[int, str, int]], slots: int, limit: int) -> None:
    async def play() -> None:
        client = FakeClient()
        client.fail = lambda tensors: ScoringError("poisoned") if tagged(tensors, 0.5) else None
        batcher = MicroBatcher(client, max_batch=4, in_flight=slots, queue_limit=limit)
        tasks = []
        for index, (width, fate, ticks) in enumerate(plan):
            tag = 0.5 if fate == "poison" else index / 1024
            task = asyncio.ensure_future(batcher.score(row(tag, trace=width), timeout=-1.0 if fate == "late" else 30.0))
            tasks.append((task, fate, tag))
            for _ in range(ticks):
                await asyncio.sleep(0)
            if fate == "cancel":
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*(t for t, _, _ in tasks), return_exceptions=True), 60)
        for task, fate, tag in tasks:
            if task.cancelled():
                assert fate == "cancel"
            elif task.exception() is None:
                assert fate != "poison"
                assert task.result().p_value == tag
            else:
                assert isinstance(task.exception(), Unavailable)
        assert await batcher.drain(timeout=60)
        assert (batcher.depth, batcher.in_flight) == (0, 0)
        assert all(size <= 4 for size in client.sizes)
        assert client.most_active <= slots

    asyncio.run(play())
