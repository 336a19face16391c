"""The one event loop is never blocked: not by the ledger, and not by a whole batch that is answered at once.

Nothing here measures wall time: a blocked loop makes these tests wait for something that never comes, or counts too
many answers between two turns of the loop.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from sidecar_api import snapshot
from sidecar_api.app import Edges
from sidecar_api.snapshot import Key, Snapshot
from sidecar_api.state import SLICE
from tcd.ledger import SqliteLedger
from tcd.ledger.sqlite_store import Store
from tcd.triton.batcher import _SLICE, MicroBatcher

PATIENCE = 60.0


class Beats:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0
        self.changed = threading.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Beats]:
        async def beat() -> None:
            while True:
                self.count += 1
                self.changed.set()
                await asyncio.sleep(0)

        task = asyncio.ensure_future(beat())
        try:
            yield self
        finally:
            task.cancel()


class Rows:
    """An `InferenceClient` that answers every row alike, after all of them were sent."""

    def __init__(self, kit: Any, wanted: int) -> None:
        self._kit = kit
        self._wanted = wanted
        self._together = asyncio.Event()
        self._rows = 0

    async def infer(self, tensors: Any, *, model: Any = None, timeout: float) -> Any:
        n = tensors["ALPHA"].shape[0]
        self._rows += n
        if self._rows >= self._wanted:
            self._together.set()
        await self._together.wait()
        ones, zeros = np.ones((n, 1)), np.zeros((n, 1))
        table = np.zeros((n, 4, 3), np.float32)
        table[:, :, 1] = 1.0
        return {
            "SCORE": zeros.astype(np.float32),
            "P_STEP": np.ones((n, 2)),
            "SUP_OUT": tensors["SUP"],
            "COMPONENTS": table,
            "MV": np.array([[0, 0, 0, 1]] * n, np.float32),
            "P_VALUE": ones,
            **{name: zeros.astype(np.int32) for name in ("TRIGGER", "VERDICT", "TIER", "STATUS")},
            "ROUTE": np.array([[1, 1, 0, 0]] * n, np.float32),
            "ASSETS": np.zeros((n, 3), np.uint64),
        }

    async def ready(self, *, timeout: float = 1.0) -> bool:
        return True

    async def close(self) -> None: ...


def turning(beats: Beats, work: Callable[..., Any]) -> Callable[..., Any]:
    """`work`, which takes so long that the loop turns meanwhile; where it cannot, the test fails."""

    def waits(*args: Any, **kwargs: Any) -> Any:
        for _ in range(3):
            beats.changed.clear()
            assert beats.changed.wait(PATIENCE), f"the loop stands still in {work.__name__}"
        return work(*args, **kwargs)

    return waits


async def test_a_slow_ledger_does_not_block_the_loop(
    make_client: Any, kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = Beats()
    # the disk answers only after the loop has turned again
    monkeypatch.setattr(Store, "append", turning(beats, Store.append))
    ledger = SqliteLedger(tmp_path)
    client = make_client(kit.ScriptedScorer(0.9), edges=Edges(ledger=ledger))
    try:
        async with beats.running():
            answers = await asyncio.gather(*(client.step(session=f"s{i}") for i in range(32)))
        assert all(answer["receipt"] for answer in answers)
    finally:
        await ledger.close()


@pytest.mark.parametrize("receipts", [True, False])
async def test_a_large_batch_is_answered_in_slices(make_client: Any, kit: Any, *, receipts: bool) -> None:
    rows = 128
    batcher = MicroBatcher(Rows(kit, rows))
    client = make_client(batcher, receipts_enable=receipts)
    beats = Beats()
    concluded: list[int] = []
    judge = client.app.runtime.service.judge
    conclude = judge._settle

    def counted(*args: Any) -> Any:
        concluded.append(beats.count)
        return conclude(*args)

    judge._settle = counted
    async with beats.running():
        answers = await asyncio.gather(*(client.step(session=f"s{i}") for i in range(rows)))
    assert len(answers) == len(concluded) == rows
    per_turn = np.bincount(concluded)
    assert per_turn.max() <= 2 * _SLICE, "a whole batch is settled before the loop turns"
    assert np.count_nonzero(per_turn) >= rows // (2 * _SLICE)


async def test_moving_many_sessions_does_not_block_the_loop(
    make_client: Any, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = Beats()
    client, other = (make_client(kit.ScriptedScorer(0.5)) for _ in range(2))
    sessions = 4 * SLICE + 1
    for number in range(sessions):
        await client.step(session=f"s{number}", trace_vector=[float(number)] * 8)
    for name in ("snapshot_of", "written", "check", "read_session"):
        monkeypatch.setattr(f"sidecar_api.state.{name}", turning(beats, getattr(snapshot, name)))
    copied: list[int] = []
    dump = snapshot.dump_session

    def counted(session: Any) -> Any:
        copied.append(beats.count)
        return dump(session)

    monkeypatch.setattr("sidecar_api.state.dump_session", counted)
    key = Key(model_id="model0", gpu_id="gpu0", task="chat", lang="en")
    async with beats.running():
        found = msgspec.json.decode(await client.app.runtime.state.get_json(key), type=Snapshot)
        assert await other.app.runtime.state.load(key, found) == sessions == len(found.sessions)
        pages = [await one.app.runtime.state.get(key, first=3, limit=2) for one in (client, other)]
    assert np.bincount(copied).max() <= SLICE
    assert pages[0] == pages[1]
    assert (len(pages[0].sessions), pages[0].more) == (2, True)


async def test_an_excess_is_refused_before_its_body_is_read(make_client: Any, kit: Any) -> None:
    """The refusal needs nothing of the request but that it is there: its body never comes."""
    client = make_client(kit.ScriptedScorer(0.9), max_inflight=1)
    client.app.runtime.in_flight = 1
    sent: list[Any] = []

    async def receive() -> Any:
        msg = "the body was asked for"
        raise AssertionError(msg)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"x-request-id", b"r1")]
    scope = {"type": "http", "method": "POST", "path": "/diagnose", "headers": headers, "client": ("127.0.0.1", 1)}
    await client.app(scope, receive, send)
    start, body = sent
    found = dict(start["headers"])
    assert start["status"] == 503
    assert found[b"retry-after"] == b"1"
    assert found[b"ratelimit"] == b'"inflight";r=0;t=1'
    assert found[b"ratelimit-policy"] == b'"inflight";q=1;qu="concurrent-requests"'
    assert found[b"content-type"] == b"application/problem+json"
    problem = json.loads(body["body"])
    assert (problem["code"], problem["request_id"]) == ("unavailable", "r1")
