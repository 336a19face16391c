"""POST /v1/diagnose:batch: results in order, few calls of the ensemble, no item harms another."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from sidecar_api.gate import Rendezvous
from tcd.rows import ScoreRow
from tcd.triton.batcher import MicroBatcher
from tests.unit.shim.conftest import Client, ScriptedScorer
from tests.unit.surfaces.ways import app_of
from tests.unit.triton.conftest import FakeClient

PATH = "/v1/diagnose:batch"


def steps(n: int, *, width: int = 1) -> list[dict[str, Any]]:
    return [{"session": f"s{i}", "step_id": 0, "trace_vector": [-1.0] * width} for i in range(n)]


@pytest.mark.parametrize("n", [1, 2, 127, 128, 129, 256])
async def test_calls_of_the_ensemble(n: int) -> None:
    triton = FakeClient()
    client = Client(app_of(MicroBatcher(triton)))
    reply = await client.post(steps(n), PATH)
    assert reply.status == 200
    assert len(reply.json()["results"]) == n
    assert sum(triton.sizes) == n
    assert len(triton.sizes) == math.ceil(n / 128)


async def test_keyed_items_too_and_each_width_has_its_own_calls() -> None:
    triton = FakeClient()
    client = Client(app_of(MicroBatcher(triton)))
    items = steps(100) + [{**s, "session": "w" + s["session"], "window": "full"} for s in steps(100, width=300)]
    items = [{**item, "request_id": f"r{i}"} for i, item in enumerate(items)]
    reply = await client.post(items, PATH)
    assert all("response" in r for r in reply.json()["results"])
    assert sorted(triton.sizes) == [100, 100]
    again = await client.post(items, PATH)
    assert again.body == reply.body
    assert len(triton.sizes) == 2


async def test_items_answer_and_fail_on_their_own_in_order() -> None:
    client = Client(app_of())
    items: list[Any] = [
        {"session": "a", "step_id": 0},
        {"session": "a", "step_id": 0, "entropy": -1},
        {"nope": 1},
        7,
        {"session": "b", "step_id": 3, "request_id": "mine"},
        {"session": "b", "step_id": 3},
        {"session": "a", "step_id": 1},
    ]
    results = (await client.post(items, PATH)).json()["results"]
    found = [r["problem"]["code"] if "problem" in r else r["response"]["step"] for r in results]
    assert found == [0, "validation_failed", "validation_failed", "validation_failed", 3, "conflict", 1]
    assert results[2]["problem"]["pointer"] == "/nope"
    assert results[4]["response"]["request_id"] == "mine"
    ids = {(r.get("problem") or r["response"])["request_id"] for r in results}
    assert len(ids) == len(items)


async def test_the_same_key_in_one_batch_decides_once() -> None:
    scorer = ScriptedScorer()
    client = Client(app_of(scorer))
    item = {"session": "a", "idempotency_key": "k"}
    results = (await client.post([item, {"session": "z"}, item, {**item, "session": "b"}], PATH)).json()["results"]
    assert results[0] == results[2]
    assert results[3]["problem"]["code"] == "conflict"
    assert len(scorer.rows) == 2


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"[]", 422), (b"{}", 422), (b"[", 400), (b"[" + b",".join([b"{}"] * 257) + b"]", 422)],
)
async def test_what_is_no_batch(body: bytes, status: int) -> None:
    assert (await Client(app_of()).raw(body, PATH)).status == status


async def test_too_many_bytes() -> None:
    assert (await Client(app_of()).raw(b" " * ((4 << 20) + 1), PATH)).status == 413


async def test_each_item_costs_a_token_of_the_address() -> None:
    client = Client(app_of(edge_rate_cap=10.0, edge_rate_refill=0.001))
    assert (await client.post(steps(8), PATH)).status == 200
    assert (await client.post(steps(8), PATH)).status == 429


async def test_one_that_is_held_up_elsewhere_holds_up_nobody() -> None:
    held, inside = asyncio.Event(), asyncio.Event()

    async def wait(row: ScoreRow) -> None:
        if row.trace.shape[0] == 5:
            inside.set()
            await held.wait()

    client = Client(app_of(ScriptedScorer(before=wait)))
    first = asyncio.ensure_future(client.post({"session": "s0", "trace_vector": [-1.0] * 5}))
    await inside.wait()
    batch = asyncio.ensure_future(client.post([{"session": "s0"}, {"session": "s1"}], PATH))
    other = await client.post({"session": "s2"})
    assert other.status == 200
    held.set()
    assert (await first).status == 200
    results = (await batch).json()["results"]
    assert ["response" in r for r in results] == [True, True]


async def test_the_rendezvous_opens_when_all_are_there_or_gone() -> None:
    gate = Rendezvous(3)
    seen: list[int] = []

    async def lane(number: int, rounds: int) -> None:
        for _ in range(rounds):
            await gate.arrive()
            seen.append(number)
        gate.leave()

    await asyncio.gather(lane(1, 1), lane(2, 2), lane(3, 3))
    assert [sorted(seen[:3]), sorted(seen[3:5]), seen[5:]] == [[1, 2, 3], [2, 3], [3]]
