"""The small parts on which nothing may go wrong: deadlines, the session's lock, group commit, verification limits."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram

from sidecar_api.assembly import follow
from sidecar_api.commit import Committer
from sidecar_api.cutoff import Cutoff
from sidecar_api.http.context import RequestContext
from sidecar_api.sessions import Session
from tcd.background import end, running
from tcd.errors import Conflict, ScoringTimeout, TcdError, Unavailable
from tcd.ledger import Batch, MemoryLedger
from tcd.ledger.shared import Fenced, InDoubt
from tcd.risk_av import Controller
from tcd.rows import ScoreRow
from tcd.telemetry import LogWriter
from tcd.telemetry.histogram import LotHistogram
from tcd.telemetry.logs import QueueHandler
from tcd.triton.batcher import MicroBatcher


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_cutoff_ends_what_hangs() -> None:
    with pytest.raises(ScoringTimeout, match="late"), Cutoff(now() + 0.02, "late"):
        await asyncio.Event().wait()
    await asyncio.sleep(0)


async def test_a_cutoff_lets_a_foreign_cancellation_through() -> None:
    async def work() -> None:
        with Cutoff(now() + 600, "late"):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cutoff_and_a_foreign_cancellation_at_once_is_a_cancellation() -> None:
    async def work() -> None:
        with Cutoff(now() + 0.01, "late"):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                task.cancel()
                raise

    task = asyncio.ensure_future(work())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_swallowed_cutoff_does_not_spoil_the_next() -> None:
    with Cutoff(now() + 0.01, "first"), contextlib.suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    with pytest.raises(ScoringTimeout, match="second"), Cutoff(now() + 0.01, "second"):
        await asyncio.Event().wait()


async def test_end_insists() -> None:
    refusals = 0

    async def swallow() -> None:
        nonlocal refusals
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            refusals += 1

    async def stubborn() -> None:
        while refusals < 3:
            await swallow()

    task = asyncio.ensure_future(stubborn())
    await asyncio.sleep(0)
    await end(task)
    assert (task.done(), refusals) == (True, 3)
    async with running(asyncio.Event().wait()):
        pass


def a_session() -> Session:
    return Session(("t", "u", "s"), "sha256:0", "stream", "user", ("m", "g", "t", "l"), 0.0)


async def test_the_place_in_flight_goes_round_in_order() -> None:
    session, order = a_session(), []

    async def one(number: int) -> None:
        await session.acquire(wait=60.0, waiters=100)
        order.append(number)
        await asyncio.sleep(0)
        session.release()

    await asyncio.gather(*(one(i) for i in range(20)))
    assert order == list(range(20))
    assert session.idle


async def test_a_cancelled_waiter_never_keeps_the_place() -> None:
    """Cancelled while it waits, in the tick in which it gets the place, and after."""
    for ticks in range(4):
        session = a_session()
        await session.acquire(wait=0, waiters=0)
        waiter = asyncio.ensure_future(session.acquire(wait=60.0, waiters=1))
        await asyncio.sleep(0)
        session.release()
        for _ in range(ticks):
            await asyncio.sleep(0)
        waiter.cancel()
        [outcome] = await asyncio.gather(waiter, return_exceptions=True)
        if outcome is None:
            session.release()
        assert session.idle, ticks


async def test_waiting_ends_and_leaves_no_trace() -> None:
    session = a_session()
    await session.acquire(wait=0, waiters=0)
    with pytest.raises(Conflict):
        await session.acquire(wait=0.01, waiters=1)
    with pytest.raises(Conflict):
        await session.acquire(wait=0.01, waiters=0)
    assert not session.waiters
    session.release()
    assert session.idle


class Counting(MemoryLedger):
    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Batch] = []
        self.refuse: set[int] = set()

    async def append(self, batch: Batch, *, now_us: int, expected_size: int | None = None) -> Any:
        await asyncio.sleep(0)
        if any(id(e) in self.refuse for e in batch.events):
            msg = "no"
            raise Unavailable(msg)
        self.batches.append(batch)
        return await super().append(batch, now_us=now_us, expected_size=expected_size)


def some_events(count: int) -> list[Any]:
    controller = Controller()
    for i in range(count):
        controller.reserve(stream="s", hypothesis=str(i))
    return list(controller.take_events())


async def test_what_is_ready_together_is_one_append_in_order() -> None:
    ledger = Counting()
    committer = Committer(ledger, now_us=lambda: 1)
    events = some_events(9)
    done = [committer.put(events=(event,)) for event in events]
    await asyncio.gather(*done)
    assert [len(batch.events) for batch in ledger.batches] == [len(events)]
    assert list((await ledger.events()).events) == events


async def test_whoever_waits_for_commits_sees_how_many_there_are_and_that_one_ended() -> None:
    ledger = Counting()
    committer = Committer(ledger, now_us=lambda: 1)
    seen: list[int] = []
    committer.ended = lambda: seen.append(committer.under_way)
    events = some_events(3)
    done = [committer.put(events=(event,)) for event in events[:2]]
    assert committer.under_way == 2
    ledger.refuse = {id(events[1])}
    await asyncio.gather(*done, return_exceptions=True)
    ledger.refuse = set()
    await committer.put(events=tuple(events[2:]))
    assert (seen, committer.under_way) == ([0, 0], 0)


class Silent:
    """A server that never answers."""

    def __init__(self) -> None:
        self.called = asyncio.Event()

    async def infer(self, *_: Any, **__: Any) -> Any:
        self.called.set()
        await asyncio.Event().wait()

    async def ready(self, *, timeout: float = 1.0) -> bool:
        return True

    async def close(self) -> None:
        pass


async def test_rows_wait_until_a_commit_has_ended() -> None:
    ledger, client = Counting(), Silent()
    committer, batcher = Committer(ledger, now_us=lambda: 1), MicroBatcher(client, eager=1, together=2)
    follow(batcher, committer)
    done = committer.put(events=tuple(some_events(1)))
    task = asyncio.ensure_future(batcher.score(ScoreRow(), timeout=600))
    await asyncio.sleep(0)
    assert (committer.under_way, batcher.depth, batcher.in_flight) == (1, 1, 0)
    await done
    await client.called.wait()
    assert (committer.under_way, batcher.depth, batcher.in_flight) == (0, 0, 1)
    task.cancel()
    assert not await batcher.drain(timeout=0)


async def test_one_bad_commit_does_not_take_the_others_with_it() -> None:
    ledger = Counting()
    committer = Committer(ledger, now_us=lambda: 1)
    events = some_events(5)
    ledger.refuse = {id(events[2])}
    done = [committer.put(events=(event,)) for event in events[:4]]
    results = await asyncio.gather(*done, return_exceptions=True)
    assert [isinstance(r, Unavailable) for r in results] == [False, False, True, True]
    ledger.refuse = set()
    await committer.put(events=(events[4],))
    assert list((await ledger.events()).events) == events[:5]


async def test_a_defect_of_the_ledger_loses_no_event_and_leaves_nobody_waiting() -> None:
    ledger = Counting()
    committer = Committer(ledger, now_us=lambda: 1)
    events = some_events(3)
    whole, ledger.append = ledger.append, None  # type: ignore[method-assign, assignment]
    done = [committer.put(events=(event,)) for event in events[:2]]
    results = await asyncio.gather(*done, return_exceptions=True)
    assert [isinstance(r, Unavailable) for r in results] == [True, True]
    ledger.append = whole  # type: ignore[method-assign]
    assert committer.carries
    await committer.put(events=tuple(events[2:]))
    assert list((await ledger.events()).events) == events


@pytest.mark.parametrize("error", [Fenced("lost"), InDoubt("lost")])
async def test_what_a_fenced_shim_still_had_to_say_is_dropped_and_what_is_in_doubt_comes_again(error: TcdError) -> None:
    ledger = Counting()
    committer = Committer(ledger, now_us=lambda: 1)
    events = some_events(3)
    whole, tries = ledger.append, 0

    async def fails(*_: Any, **__: Any) -> Any:
        nonlocal tries
        tries += 1
        raise error

    class Watcher:
        def fenced(self) -> None:
            committer.discard()

        def appended(self, appended: Any, events: Any) -> None:
            pass

    committer.watcher = Watcher()
    ledger.append = fails  # type: ignore[method-assign]
    done = [committer.put(events=(event,)) for event in events[:2]]
    results = await asyncio.gather(*done, return_exceptions=True)
    assert ([type(r) for r in results], tries) == ([type(error)] * 2, 1)
    ledger.append = whole  # type: ignore[method-assign]
    await committer.put(events=tuple(events[2:]))
    assert list((await ledger.events()).events) == (events[2:] if isinstance(error, Fenced) else events)


async def test_a_waiter_that_goes_away_leaves_its_commit() -> None:
    ledger = Counting()
    committer = Committer(ledger, now_us=lambda: 1)
    future = committer.put(events=tuple(some_events(1)))

    async def wait() -> None:
        await asyncio.shield(future)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    await committer.flush()
    assert len((await ledger.events()).events) == 2


def test_trace_context_is_random_where_none_came() -> None:
    scope: dict[str, Any] = {"headers": [], "client": None}
    one, two = (RequestContext.of(scope, config_hash=b"x") for _ in range(2))
    assert len(one.trace_id) == 32
    assert len(one.span_id) == 16
    assert len({one.trace_id, two.trace_id, one.request_id, two.request_id, one.span_id, two.span_id}) == 6


def test_logs_are_json_lines_with_bounded_waiting() -> None:
    stream = io.StringIO()
    writer = LogWriter(level="info", limit=3, stream=stream, clock=lambda: 0.25)
    for i in range(5):
        writer.write("info", "e", number=i)
    writer.write("debug", "hidden")
    assert writer.dropped == 2
    writer.start()
    writer.stop()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2]
    assert lines[0] == {"level": "info", "event": "e", "number": 0, "ts": "1970-01-01T00:00:00.250000Z"}


def test_the_standard_librarys_records_go_the_same_way() -> None:
    stream = io.StringIO()
    writer = LogWriter(stream=stream)
    logger = logging.getLogger("tcd.test_logs")
    handler = QueueHandler(writer)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        _ = 1 / int("0")
    except ZeroDivisionError:
        logger.exception("boom %s", 1)
    logger.removeHandler(handler)
    writer.start()
    writer.stop()
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["error"]) == ("boom 1", "error", "ZeroDivisionError")
    assert "ZeroDivisionError" in line["trace"]


async def test_metrics_of_the_contract(make_client: Any) -> None:
    client = make_client()
    await client.step(step_id=0)
    await client.raw(b"{")
    page = (await client.get("/metrics")).body.decode()
    for name in (
        *("tcd_requests_total", "tcd_request_duration_seconds_bucket", "tcd_stage_duration_seconds_bucket"),
        *("tcd_decisions_total", "tcd_detector_score_bucket", "tcd_p_value_bucket", "tcd_e_value_log10_bucket"),
        *("tcd_alpha_wealth_ratio_bucket", "tcd_alpha_spent_total", "tcd_av_rejections_total", "tcd_build_info"),
        *("tcd_budget_exhausted_total", "tcd_slo_violations_total", "tcd_receipts_total", "tcd_chain_gap_total"),
        *("tcd_receipt_size_bytes_bucket", "tcd_ledger_commit_duration_seconds_bucket", "tcd_triton_batch_size_bucket"),
    ):
        assert f"\n{name}" in page, name
    assert 'tcd_requests_total{outcome="ok",surface="http"} 1.0' in page
    assert 'tcd_requests_total{outcome="invalid_request",surface="http"} 1.0' in page
    assert 'tcd_alpha_spent_total{policy="default"} 0.005' in page
    assert 'tcd_decisions_total{action="allow",enforced="allow",policy="default"} 1.0' in page
    open_metrics = await client.get("/metrics", accept="application/openmetrics-text")
    assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
    assert b"trace_id=" in open_metrics.body


def test_the_lot_histogram_is_prometheus_own() -> None:
    bounds = (0.1, 0.5, 1.0)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    lot = LotHistogram("h", "doc", bounds, registry=ours, label="stage")
    plain = Histogram("h", "doc", ["stage"], buckets=bounds, registry=theirs)
    rng = np.random.default_rng(1)
    values = [*rng.uniform(0, 1.5, 3000).tolist(), 0.1, 0.5, 1.0, 0.0, 2.0]
    for i, value in enumerate(values):
        lot.observe(value, "ab"[i % 2])
        plain.labels("ab"[i % 2]).observe(value)
    for stage in "ab":
        for bound in ("0.1", "0.5", "1.0", "+Inf"):
            names = {"stage": stage, "le": bound}
            assert ours.get_sample_value("h_bucket", names) == theirs.get_sample_value("h_bucket", names)
        assert ours.get_sample_value("h_sum", {"stage": stage}) == pytest.approx(
            theirs.get_sample_value("h_sum", {"stage": stage})
        )
        assert ours.get_sample_value("h_count", {"stage": stage}) == theirs.get_sample_value(
            "h_count", {"stage": stage}
        )
