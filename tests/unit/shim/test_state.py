"""State moves to another server and goes on there bit for bit; it never lowers spent nor clears an alarm."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from sidecar_api.pins import FixedAssets
from sidecar_api.snapshot import Snapshot, digest_of
from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.scoring import LibraryScorer

TOKEN = "a-token-of-32-characters-for-test"
BEARER = {"authorization": f"Bearer {TOKEN}"}
TOKENS = [{"token": TOKEN, "scopes": ["state:read", "state:load"]}]


@pytest.fixture(scope="module")
def demo() -> Any:
    return AssetDirectory(default_asset_dir()).current()


def steps(n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    return [
        {
            "trace_vector": [float(-rng.exponential())],
            "entropy": float(rng.exponential()),
            "spectrum": [float(x) for x in rng.exponential(size=16)],
            "features": [float(x) for x in rng.normal(size=16)],
            "step_id": i,
            "session": "moved",
        }
        for i in range(n)
    ]


def comparable(answer: Any) -> Any:
    """What must be equal on both servers: the evidence, not budgets and records, which are each server's own."""
    kept = ("verdict", "score", "threshold", "trigger", "p_value", "step", "action", "route")
    parts = {k: v for k, v in answer["components"].items() if k != "av"}
    return {name: answer[name] for name in kept} | {"components": parts}


async def test_a_second_server_continues_bit_identically(make_client: Any, demo: Any) -> None:
    def server() -> Any:
        return make_client(LibraryScorer(demo), assets=demo, api_tokens=TOKENS)

    stays, source, target = server(), server(), server()
    requests = steps(60)
    for request in requests[:40]:
        await stays.post(request)
        await source.post(request)
    snapshot = (await source.get("/state/get", **BEARER)).json()["detector"]
    assert [s["session"] for s in snapshot["sessions"]] == ["moved"]
    loaded = await target.post({"detector": snapshot}, "/state/load", **BEARER)
    assert (loaded.status, loaded.json()["sessions"]) == (200, 1)
    assert (await target.get("/state/get", **BEARER)).json()["detector"] == snapshot
    for request in requests[40:]:
        here, there = (await stays.post(request)).json(), (await target.post(request)).json()
        assert comparable(here) == comparable(there)
    assert "session loaded from a snapshot" in there["guarantee"]


async def test_a_snapshot_holds_no_budget_no_head_and_no_key(make_client: Any) -> None:
    client = make_client(api_tokens=TOKENS)
    answer = await client.step()
    body = (await client.get("/state/get", **BEARER)).body.decode()
    assert answer["receipt"] not in body
    names = set(json.loads(body)["detector"]["sessions"][0])
    assert not names & {"alpha", "spent", "wealth", "reservation", "hypothesis", "chain", "e_process"}


async def test_loading_never_lowers_spent_and_never_clears_an_alarm(make_client: Any, kit: Any) -> None:
    quiet = make_client(kit.ScriptedScorer(0.9), api_tokens=TOKENS)
    for i in range(5):
        await quiet.step(step_id=i)
    snapshot = (await quiet.get("/state/get", **BEARER)).json()["detector"]
    loud = make_client(kit.ScriptedScorer(1e-5, changes={"sup": (5.0, 5.0)}), api_tokens=TOKENS)
    before = await loud.step(step_id=0)
    assert before["trigger"] is True
    assert (await loud.post({"detector": snapshot}, "/state/load", **BEARER)).status == 200
    merged = (await loud.get("/state/get", **BEARER)).json()["detector"]["sessions"][0]
    assert (merged["triggered"], merged["steps"]) == (True, 5)
    loud.app.runtime.service._scorer.p = 1.0
    after = await loud.step(step_id=9)
    assert (after["trigger"], after["action"], after["p_value"]) == (True, "block", 1e-5)
    assert after["alpha_spent"] >= before["alpha_spent"]
    assert loud.app.runtime.service._scorer.rows[-1].sup == (5.0, 5.0)


async def test_a_snapshot_that_was_altered_is_refused(make_client: Any) -> None:
    client = make_client(api_tokens=TOKENS)
    await client.step(step_id=0)
    good = (await client.get("/state/get", **BEARER)).json()["detector"]
    changes: list[tuple[list[Any], Any, int, str | None]] = [
        (["digest"], "sha256:" + "0" * 64, 422, "/detector/digest"),
        (["v"], "tcd.state/2", 422, "/detector/v"),
        (["sessions", 0, "steps"], 7, 422, "/detector/digest"),
        (["sessions", 0, "triggered"], True, 422, "/detector/digest"),
        (["sessions", 0, "sup", 0], "7ff8000000000000", 422, "/detector/digest"),
        (["sessions", 0, "trace"], 7, 422, "/detector/sessions/trace"),
        (["more"], 1, 422, "/detector/more"),
        (["extra"], 1, 422, "/detector/extra"),
    ]
    for path, value, status, pointer in changes:
        bad = json.loads(json.dumps(good))
        place = bad
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        reply = await client.post({"detector": bad}, "/state/load", **BEARER)
        assert reply.status == status, (path, reply.body)
        if path[-1] != "trace":
            assert reply.json()["pointer"] == pointer
    other = await client.post({"detector": good, "model_id": "other"}, "/state/load", **BEARER)
    assert (other.status, other.json()["code"]) == (409, "conflict")


async def test_a_refused_snapshot_replaces_no_session(make_client: Any) -> None:
    source, target = make_client(api_tokens=TOKENS), make_client(api_tokens=TOKENS)
    for name in ("a", "b"):
        for i in range(3):
            await source.step(session=name, step_id=i)
        await target.step(session=name, step_id=0)
    snapshot = (await source.get("/state/get", **BEARER)).json()["detector"]
    before = (await target.get("/state/get", **BEARER)).json()["detector"]
    assert [state["session"] for state in snapshot["sessions"]] == ["a", "b"]
    # no p-value, under a digest that is right
    bad = msgspec.convert(snapshot, Snapshot)
    wrong = msgspec.structs.replace(bad.sessions[1], p="4000000000000000")
    bad = msgspec.structs.replace(bad, sessions=[bad.sessions[0], wrong])
    bad = msgspec.structs.replace(bad, digest=digest_of(bad))
    reply = await target.post({"detector": msgspec.to_builtins(bad)}, "/state/load", **BEARER)
    assert (reply.status, reply.json()["pointer"]) == (422, "/detector/sessions/1/p")
    assert (await target.get("/state/get", **BEARER)).json()["detector"] == before
    (last,) = (s for s in target.app.runtime.service.sessions if s.subject[2] == "b")
    await last.acquire(wait=1.0, waiters=1)
    reply = await target.post({"detector": snapshot}, "/state/load", **BEARER)
    assert (reply.status, reply.json()["pointer"]) == (409, "/detector/sessions/1")
    last.release()
    assert (await target.get("/state/get", **BEARER)).json()["detector"]["sessions"] == before["sessions"]
    assert (await target.post({"detector": snapshot}, "/state/load", **BEARER)).status == 200


async def test_a_snapshot_of_other_assets_is_refused(make_client: Any, kit: Any) -> None:
    source, target = (
        make_client(api_tokens=TOKENS),
        make_client(assets=kit.synthetic_assets(digest="b"), api_tokens=TOKENS),
    )
    await source.step()
    snapshot = (await source.get("/state/get", **BEARER)).json()["detector"]
    reply = await target.post({"detector": snapshot}, "/state/load", **BEARER)
    assert (reply.status, reply.json()["pointer"]) == (409, "/detector/manifest")


async def test_state_is_closed_without_a_token_of_the_scope(make_client: Any) -> None:
    closed = make_client()
    assert (await closed.get("/state/get", **BEARER)).status == 403
    assert (await closed.post({}, "/state/load", **BEARER)).status == 403
    reader = make_client(api_tokens=[{"token": TOKEN, "scopes": ["state:read"]}])
    assert (await reader.get("/state/get", **BEARER)).status == 200
    assert (await reader.post({}, "/state/load", **BEARER)).status == 403
    for bad in ("", "Bearer", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"bearer {TOKEN[:-1]}"):
        reply = await reader.get("/state/get", authorization=bad)
        assert (reply.status, reply.json()["code"]) == (403, "forbidden"), bad
        assert TOKEN.encode() not in reply.body


async def test_loading_is_logged_and_recorded(make_client: Any) -> None:
    client = make_client(api_tokens=TOKENS)
    await client.step()
    snapshot = (await client.get("/state/get", **BEARER)).json()["detector"]
    assert (await client.post({"detector": snapshot}, "/state/load", **BEARER)).status == 200
    runtime = client.app.runtime
    await runtime.service.judge.flush()
    lines = [runtime.logs._inbox._queue.get_nowait() for _ in range(runtime.logs._inbox._queue.qsize())]
    assert [line["digest"] for line in lines if line["event"] == "state loaded"] == [snapshot["digest"]]


async def test_bad_input_of_the_state_routes(make_client: Any) -> None:
    client = make_client(api_tokens=TOKENS)
    for body in (b"", b"{", b"[]", b"{}", b'{"detector":1}', b"[" * 100_000):
        reply = await client.raw(body, "/state/load", **BEARER)
        assert reply.status in {400, 422}, body[:20]
    assert (await client.raw(b"{}", "/state/load", content_length="9" * 12, **BEARER)).status == 413
    assert (await client.get("/state/get", query="model_id=" + "x" * 129, **BEARER)).status == 422
    assert (await client.get("/state/get", query="model_id=%00", **BEARER)).status == 422


def test_fixed_assets_are_what_they_are(kit: Any) -> None:
    known = kit.synthetic_assets()
    assert FixedAssets(known).current() is known
