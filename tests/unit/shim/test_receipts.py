"""Every answer's receipt verifies, and the chain of a session does; /verify over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sidecar_api.app import Edges
from tcd.errors import Unavailable
from tcd.ledger import MemoryLedger
from tcd.receipts import KeySet, VerifyPolicy, verify_chain, verify_single


def policy_of(client: Any) -> VerifyPolicy:
    return VerifyPolicy(KeySet([client.app.runtime.service.judge.receipts.issuer.pinned()]))


def verify_members(answer: Any, request: dict[str, Any] | None = None) -> dict[str, Any]:
    members = {
        "receipt_head_hex": answer["receipt"],
        "receipt_body_json": answer["receipt_body"],
        "receipt_sig_hex": answer["receipt_sig"],
        "verify_key_hex": answer["verify_key"],
        "comp_obj": answer["components"],
        "e_obj": answer["components"]["av"],
    }
    return members | ({"req_obj": request} if request is not None else {})


async def test_every_answer_has_a_receipt_that_verifies(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer(lambda row: 1e-5 if row.trace.size == 4 else 0.5)
    client = make_client(scorer)
    policy = policy_of(client)
    requests: list[dict[str, Any]] = [
        {"trace_vector": [-1.0], "entropy": 1.5, "session": "s\u00fc\u4e2d", "step_id": i, "tokens_delta": 1}
        for i in range(6)
    ]
    requests += [{}, {"trace_vector": [1e-7, 1e22, 123456789.125], "context": {"a": True, "b": None, "c": "x", "d": 7}}]
    requests += [{"window": "full", "trace_vector": [-1, -2], "entropy_window": [1], "feature_window": [[1, 2]]}]
    for request in requests:
        answer = (await client.post(request)).json()
        report = verify_single(answer["receipt_body"], head=answer["receipt"], sig=answer["receipt_sig"], policy=policy)
        assert (report.ok, report.code, report.trust) == (True, "ok", "server")
        body = json.loads(answer["receipt_body"])
        assert body["decision"]["action"] == answer["action"]
        assert body["guarantee"] == answer["guarantee"]
        assert body["config"] == answer["config_hash"]
        assert request.get("session", "sess0") not in answer["receipt_body"]
        reply = await client.post(verify_members(answer, request), "/verify")
        assert (reply.status, reply.json()["ok"], reply.json()["trust"]) == (200, True, "server"), reply.body
        concordance = next(c for c in reply.json()["checks"] if c["name"] == "concordance")
        assert concordance["status"] == "pass"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"receipt_sig_hex": "00" * 64}, "bad_signature"),
        ({"receipt_head_hex": "00" * 32}, "head_mismatch"),
        ({"verify_key_hex": "zz"}, "bad_key"),
        ({"comp_obj": {}}, "concordance"),
        ({"req_obj": {"entropy": 2.0}}, "concordance"),
        ({"proof": "tlog"}, "skipped"),
    ],
)
async def test_a_failed_verification_is_a_200_with_ok_false(
    make_client: Any, change: dict[str, Any], code: str
) -> None:
    client = make_client()
    answer = await client.step(entropy=1.0)
    reply = await client.post(verify_members(answer) | change, "/v1/verify")
    assert (reply.status, reply.json()["ok"]) == (200, False)
    assert code in {reply.json()["code"], *(c["code"] for c in reply.json()["checks"])} or reply.json()["code"]
    page = (await client.get("/metrics")).body.decode()
    assert f'tcd_verify_failures_total{{code="{reply.json()["code"]}"}} 1.0' in page


async def test_a_receipt_of_another_key_is_not_trusted(make_client: Any) -> None:
    answer = await make_client(attest_sk_hex="22" * 32).step()
    reply = await make_client().post(verify_members(answer), "/verify")
    assert (reply.json()["ok"], reply.json()["code"], reply.json()["trust"]) == (False, "unknown_key", "caller")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"receipt_head_hex": "00"}, 422),
        ({"receipt_body_json": "{}"}, 422),
        ({"receipt_head_hex": "00", "receipt_body_json": "{}", "heads": []}, 422),
        ({"heads": [], "bodies": []}, 400),
        ({"heads": ["0"], "bodies": []}, 400),
        ({"heads": ["0"] * 1025, "bodies": ["{}"] * 1025}, 422),
        ({"heads": ["0"] * 1024, "bodies": ["{}"] * 1024}, 200),
        ({"receipt_head_hex": "0", "receipt_body_json": "x" * 512_000}, 200),
        ({"receipt_head_hex": "0", "receipt_body_json": "x" * 512_001}, 422),
        ({"receipt_head_hex": "0" * 8192, "receipt_body_json": "x"}, 200),
        ({"receipt_head_hex": "0" * 8193, "receipt_body_json": "x"}, 422),
        ({"receipt_head_hex": "0", "receipt_body_json": "x", "req_obj": {"a": 10**400}}, 200),
        ({"receipt_head_hex": "0", "receipt_body_json": "x", "other": 1}, 422),
        ({"receipt_head_hex": 0, "receipt_body_json": "x"}, 422),
    ],
)
async def test_limits_of_verify(make_client: Any, body: Any, status: int) -> None:
    reply = await make_client().post(body, "/verify")
    assert reply.status == status, reply.body[:300]


async def test_verify_reads_4_mib_and_not_a_byte_more(make_client: Any) -> None:
    client = make_client()
    body = b'{"receipt_head_hex":"0","receipt_body_json":"{}"}'
    full = body + b" " * ((4 << 20) - len(body))
    assert (await client.raw(full, "/verify")).status == 200
    assert (await client.raw(full + b" ", "/verify")).status == 413
    deep = b'{"receipt_head_hex":"0","receipt_body_json":"{}","req_obj":{"a":' + b"[" * 100_000
    assert (await client.raw(deep, "/verify")).status in {400, 422}
    closed = b'{"receipt_head_hex":"0","receipt_body_json":"{}","req_obj":{"a":' + b"[" * 200 + b"]" * 200 + b"}}"
    assert (await client.raw(closed, "/verify")).json()["ok"] is False


async def test_a_session_is_one_chain_from_open_to_close(make_client: Any) -> None:
    ledger = MemoryLedger()
    client = make_client(edges=Edges(ledger=ledger))
    for i in (0, 1, 2, 3):
        answer = await client.step(step_id=i)
    await client.step(step_id=0)
    chain = json.loads(answer["receipt_body"])["chain"]["id"]
    stored = await ledger.chain_records(chain)
    receipts = [s.receipt for s in stored if s.receipt is not None]
    assert [r.typ for r in receipts] == ["open", "decision", "decision", "decision", "decision", "close"]
    bodies, heads, sigs = ([getattr(r, name) for r in receipts] for name in ("body_text", "head_hex", "sig_hex"))
    report = verify_chain(bodies, heads=heads, sigs=sigs, policy=policy_of(client))
    assert report.ok, report.checks
    over_http = await client.post({"bodies": bodies, "heads": heads, "sigs": sigs}, "/verify")
    assert (over_http.status, over_http.json()["ok"]) == (200, True)
    cut = await client.post({"bodies": bodies[:2] + bodies[3:], "heads": heads[:2] + heads[3:]}, "/verify")
    assert (cut.json()["ok"], cut.json()["first_bad"]) == (False, 2)


async def test_an_epochs_terms_are_committed_before_its_first_decision(make_client: Any) -> None:
    ledger = MemoryLedger()
    client = make_client(edges=Edges(ledger=ledger))
    heads = [(await client.step(session=str(i)))["receipt"] for i in range(21)]
    await client.app.runtime.service.judge.flush()
    size = (await ledger.stats()).receipts
    by_index: dict[int, Any] = {}
    for chain in list(ledger._members):
        for stored in await ledger.chain_records(chain):
            by_index[stored.index] = stored.receipt
    assert len(by_index) == size
    epochs = [
        (i, json.loads(r.body)["open"]) for i, r in sorted(by_index.items()) if r.typ == "open" and b'"terms"' in r.body
    ]
    assert [e["epoch"] for _, e in epochs] == [1, 2, 3]
    first = {i for i, r in by_index.items() if r.head_hex in {heads[0], heads[10], heads[20]}}
    assert all(opened < decided for (opened, _), decided in zip(epochs, sorted(first), strict=True))
    assert epochs[0][1]["terms"]["size"] == 10


async def test_receipts_off(make_client: Any) -> None:
    client = make_client(receipts_enable=False)
    answer = await client.step()
    assert {answer[n] for n in ("receipt", "receipt_body", "receipt_sig", "verify_key", "receipt_proof")} == {None}
    assert {"name": "receipt", "status": "skipped", "reason": "disabled"} in answer["checks"]
    assert (await client.post({"receipt_head_hex": "0", "receipt_body_json": "{}"}, "/verify")).status == 422


async def test_an_ephemeral_key_is_named_but_never_shown(make_client: Any) -> None:
    client = make_client(attest_sk_hex=None)
    kid = json.loads((await client.step())["receipt_body"])["kid"]
    lines = [
        client.app.runtime.logs._inbox._queue.get_nowait() for _ in range(client.app.runtime.logs._inbox._queue.qsize())
    ]
    named = [line for line in lines if line.get("kid")]
    assert [line["kid"] for line in named] == [kid]
    assert set(named[0]) == {"at", "event", "kid", "level"}


async def test_no_name_of_a_subject_is_logged(make_client: Any) -> None:
    client = make_client()
    await client.step(tenant="acme-corp", user="alice-smith", session="conv-1234")
    logs = client.app.runtime.logs
    lines = [logs._inbox._queue.get_nowait() for _ in range(logs._inbox._queue.qsize())]
    text = json.dumps(lines)
    assert [line["event"] for line in lines] == ["decision"]
    assert not any(name in text for name in ("acme", "alice", "conv-1234"))
    page = (await client.get("/metrics")).body.decode()
    assert not any(name in page for name in ("acme", "alice", "conv-1234"))


async def test_a_chain_that_a_failed_commit_cut_ends_with_an_admission(make_client: Any) -> None:
    """The answer without a receipt is degraded; once the ledger works again the old chain says what is missing."""
    ledger = MemoryLedger()
    client = make_client(edges=Edges(ledger=ledger))
    judge = client.app.runtime.service.judge
    judge.mender._pause = 0.01
    before = [await client.step(step_id=i) for i in range(2)]
    append, refused, tried = ledger.append, 0, asyncio.Event()

    async def fail(*_: Any, **__: Any) -> None:
        nonlocal refused
        refused += 1
        if refused == 4:
            tried.set()
        msg = "away"
        raise Unavailable(msg)

    ledger.append = fail  # type: ignore[method-assign, assignment]
    lost = await client.step(step_id=2)
    assert (lost["cause"], lost["receipt"]) == ("degraded", None)
    await asyncio.wait_for(tried.wait(), 60)
    ledger.append = append  # type: ignore[method-assign]
    chain = json.loads(before[0]["receipt_body"])["chain"]["id"]
    for _ in range(6000):
        state = await ledger.chain(chain)
        if state is not None and state.closed:
            break
        await asyncio.sleep(0.01)
    after = await client.step(step_id=3)
    assert json.loads(after["receipt_body"])["chain"]["id"] != chain
    records = [stored.receipt for stored in await ledger.chain_records(chain) if stored.receipt is not None]
    assert [record.typ for record in records] == ["open", "decision", "decision", "gap", "close"]
    assert json.loads(records[3].body)["gap"] == {"from": 3, "to": 3, "reason": "not durable"}
    bodies, heads, sigs = ([getattr(r, name) for r in records] for name in ("body_text", "head_hex", "sig_hex"))
    assert verify_chain(bodies, heads=heads, sigs=sigs, policy=policy_of(client)).ok
    await judge.mender.stop()


async def test_a_chain_of_which_nothing_was_stored_needs_no_admission(make_client: Any) -> None:
    ledger = MemoryLedger()
    client = make_client(edges=Edges(ledger=ledger))
    judge = client.app.runtime.service.judge
    judge.mender._pause = 0.0
    append = ledger.append

    async def fail(*_: Any, **__: Any) -> None:
        msg = "away"
        raise Unavailable(msg)

    ledger.append = fail  # type: ignore[method-assign, assignment]
    await client.step()
    ledger.append = append  # type: ignore[method-assign]
    assert judge.mender._task is not None
    await asyncio.wait_for(judge.mender._task, 60)
    assert (await ledger.stats()).receipts == 0
