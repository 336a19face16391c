"""The log of a shim: checkpoints, tiles, proofs and bundles over HTTP, and what they verify as."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.app import Edges
from sidecar_api.log.assemble import verify_policy
from tcd.errors import ConfigError, Unavailable
from tcd.ledger import MemoryLedger, SqliteLedger
from tcd.ledger.audit_log import audit_log
from tcd.receipts import Anchor, KeySet, VerifyPolicy, verify_single
from tcd.receipts.bundle import verify_bundle
from tcd.receipts.checkpoint import LogHead, TlogProof
from tcd.receipts.errors import Truncated
from tcd.receipts.heads import HeadsProof, check_tail
from tcd.receipts.merkle import check_consistency, check_inclusion, leaf_hash
from tcd.receipts.note import parse_note
from tcd.receipts.tile_proofs import TileLog
from tcd.receipts.tiles import Tile, unpack_entries

TOKEN = "a-token-of-the-tests"
TOKENS = [{"token": TOKEN, "scopes": ["receipts:read"]}]
BEARER = {"authorization": f"Bearer {TOKEN}"}
BOTH = frozenset({"Ed25519", "ML-DSA-44"})


@asynccontextmanager
async def serving(client: Any) -> AsyncIterator[Any]:
    """The app with its background work."""
    async with client.app.router.lifespan_context(client.app):
        yield client


@pytest.fixture
def make_log_client(make_client: Callable[..., Any]) -> Callable[..., Any]:
    def make(**changes: Any) -> Any:
        return make_client(**{"log_interval_s": 0.02, "log_decisions": False, "api_tokens": TOKENS, **changes})

    return make


async def proof_of(client: Any, head: str) -> bytes:
    reply = await client.get(f"/v1/log/proof/{head}", query="wait=30")
    assert reply.status == 200, reply.body
    found: bytes = reply.body
    return found


async def note_of(client: Any) -> tuple[LogHead, bytes]:
    reply = await client.get("/v1/log/checkpoint")
    assert reply.status == 200, reply.body
    return LogHead.from_text(parse_note(reply.body)[0]), reply.body


async def test_a_receipt_gets_its_proof_with_the_next_checkpoint(make_log_client: Callable[..., Any]) -> None:
    async with serving(make_log_client()) as client:
        answer = await client.step(entropy=1.0)
        assert answer["receipt_proof"] is None
        proof = await proof_of(client, answer["receipt"])
        keys = KeySet.from_json((await client.get("/v1/log/keys")).json())
        report = verify_single(
            answer["receipt_body"],
            head=answer["receipt"],
            sig=answer["receipt_sig"],
            policy=VerifyPolicy(keys, log_algorithms=BOTH, require=frozenset({"signature", "inclusion", "checkpoint"})),
            proof=proof,
        )
        assert (report.ok, report.code) == (True, "ok")
        parsed = TlogProof.parse(proof)
        assert parsed.extra == bytes.fromhex(answer["receipt"])
        lines = parse_note(parsed.checkpoint)[1]
        assert [len(line.signature) for line in lines] == [64, 8 + 2420]
        page = (await client.get("/metrics")).body.decode()
        size = LogHead.from_text(parse_note(parsed.checkpoint)[0]).size
        assert f"tcd_log_size {float(size)}" in page
        assert 'tcd_log_checkpoints_total{result="signed"}' in page


async def test_an_auditor_follows_the_log(make_log_client: Callable[..., Any]) -> None:
    async with serving(make_log_client()) as client:
        heads: dict[str, bytes] = {}
        notes: dict[int, LogHead] = {}
        for number in range(6):
            answers = [await client.step(session=f"s{number}-{i}") for i in range(60)]
            heads |= {answer["receipt"]: await proof_of(client, answer["receipt"]) for answer in answers[-3:]}
            head, _ = await note_of(client)
            notes[head.size] = head
        newest, _ = await note_of(client)
        assert newest.size > 512
        found: dict[str, bytes] = {}

        async def fetch(tile: Tile) -> bytes:
            reply = await client.get(f"/v1/log/{tile.path()}")
            assert reply.status == 200, reply.body
            assert ("immutable" in reply.headers["cache-control"]) is (tile.width == 256)
            content: bytes = reply.body
            return content

        full, rest = divmod(newest.size, 256)
        bundles = [await fetch(Tile(-1, i)) for i in range(full)] + [await fetch(Tile(-1, full, rest))]
        entries = [unpack_entries(raw, 256 if i < full else rest) for i, raw in enumerate(bundles)]
        leaves = [leaf_hash(item) for page in entries for item in page]
        for tile in [*(Tile(0, i) for i in range(full)), Tile(0, full, rest), Tile(1, 0, full)]:
            found[tile.path()] = await fetch(tile)
        log = TileLog(newest.size, lambda tile: found[tile.path()])
        assert log.root() == newest.root
        assert b"".join(found[Tile(0, i).path()] for i in range(full)) == b"".join(leaves[: full * 256])
        for receipt, proof in heads.items():
            parsed = TlogProof.parse(proof)
            assert leaves[parsed.index] == leaf_hash(bytes.fromhex(receipt))
        for size, old in notes.items():
            reply = (await client.get(f"/v1/log/consistency/{size}")).json()
            assert (reply["old"], reply["size"]) == (size, newest.size)
            check_consistency(size, newest.size, old.root, newest.root, [bytes.fromhex(x) for x in reply["path"]])
        reply = (await client.get("/v1/log/inclusion/7", query="size=300")).json()
        check_inclusion(7, 300, leaves[7], [bytes.fromhex(x) for x in reply["path"]], log.root(300))


async def test_a_bundle_is_the_whole_chain_for_whoever_may_read(make_log_client: Callable[..., Any]) -> None:
    client = make_log_client()
    async with serving(client):
        answers = [await client.step(session="one", step_id=i) for i in range(4)]
        await proof_of(client, answers[-1]["receipt"])
        head = answers[2]["receipt"]
        for path in (f"/v1/receipts/{head}", f"/v1/receipts/{head}/bundle"):
            for headers in ({}, {"authorization": "Bearer of-something-else"}):
                assert (await client.get(path, **headers)).status == 403
        single = await client.get(f"/v1/receipts/{head}", **BEARER)
        assert (single.status, single.headers["cache-control"]) == (200, "no-store")
        for name in ("receipt", "receipt_body", "receipt_sig", "verify_key"):
            assert single.json()[name] == answers[2][name]
        assert TlogProof.parse(single.json()["receipt_proof"].encode()).index == single.json()["index"]
        raw = (await client.get(f"/v1/receipts/{head}/bundle", **BEARER)).body
        later = (await client.get(f"/v1/receipts/{head}/bundle", query="first=2", **BEARER)).body
        policy = verify_policy(client.app.runtime.keyring.keys, None)
        report = verify_bundle(raw, policy=policy)
        assert (report.ok, report.complete, report.log, len(report.receipts)) == (True, False, "ok", 5)
        assert [json.loads(item["body"])["typ"] for item in json.loads(raw)["receipts"]] == ["open"] + ["decision"] * 4
        assert (await client.get(f"/v1/receipts/{head}/bundle", query="first=9", **BEARER)).status == 404
        assert verify_bundle(later, policy=policy).ok
        assert json.loads(later)["start"] == {"seq": 1, "head": answers[0]["receipt"]}


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/v1/log/proof/" + "0" * 64, "", 404),
        ("/v1/log/proof/" + "0" * 63, "", 422),
        ("/v1/log/proof/" + "A" * 64, "", 422),
        ("/v1/log/proof/" + "0" * 64, "wait=31", 422),
        ("/v1/log/proof/" + "0" * 64, "wait=nan", 422),
        ("/v1/log/proof/" + "0" * 64, "wait=1&wait=2", 422),
        ("/v1/log/proof/" + "0" * 64, "weight=1", 422),
        ("/v1/log/checkpoint", "x=1", 422),
        ("/v1/log/inclusion/0", "size=0", 404),
        ("/v1/log/inclusion/999999", "", 404),
        ("/v1/log/inclusion/01", "", 422),
        ("/v1/log/inclusion/-1", "", 422),
        ("/v1/log/inclusion/" + "9" * 500, "", 422),
        ("/v1/log/inclusion/0", "size=%2B1", 422),
        ("/v1/log/consistency/2", "size=1", 422),
        ("/v1/log/consistency/0", "size=9223372036854775808", 422),
        ("/v1/log/consistency/1", "size=99999", 404),
        ("/v1/log/tile/0/000", "", 404),
        ("/v1/log/tile/0/000.p/256", "", 404),
        ("/v1/log/tile/0/000.p/200", "", 404),
        ("/v1/log/tile/0/0", "", 404),
        ("/v1/log/tile/63/000.p/1", "", 404),
        ("/v1/log/tile/../../etc/passwd", "", 404),
        ("/v1/log/tile/entries/x001/000", "", 404),
        ("/v1/receipts/" + "0" * 64, "", 404),
        ("/v1/receipts/zz", "", 422),
        ("/v1/receipts/" + "0" * 64 + "/bundle", "first=-1", 422),
        ("/v1/receipts/" + "0" * 64 + "/bundle", "", 404),
    ],
)
async def test_hostile_paths_and_queries(
    make_log_client: Callable[..., Any], path: str, query: str, status: int
) -> None:
    async with serving(make_log_client()) as client:
        await proof_of(client, (await client.step())["receipt"])
        reply = await client.get(path, query=query, **BEARER)
        assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json"), reply.body
        assert (await client.call("POST", path)).status in {404, 405}


async def test_before_the_first_checkpoint_and_with_the_log_off(make_log_client: Callable[..., Any]) -> None:
    client = make_log_client()
    answer = await client.step()
    assert (await client.get("/v1/log/checkpoint")).status == 404
    waiting = await client.get(f"/v1/log/proof/{answer['receipt']}", query="wait=0.01")
    assert (waiting.status, waiting.headers["retry-after"]) == (503, "1")
    pending = await client.get(f"/v1/receipts/{answer['receipt']}", **BEARER)
    assert (pending.status, pending.json()["receipt_proof"]) == (200, None)
    assert (await client.get(f"/v1/receipts/{answer['receipt']}/bundle", **BEARER)).status == 503
    off = make_log_client(log_enable=False)
    async with serving(off):
        answer = await off.step()
        for path in ("/v1/log/checkpoint", "/v1/log/keys", f"/v1/log/proof/{answer['receipt']}", "/v1/log/tile/0/000"):
            assert (await off.get(path)).status == 404


async def test_a_shutdown_signs_what_is_there(make_log_client: Callable[..., Any], tmp_path: Path) -> None:
    """With an interval of an hour the last receipts are covered all the same, closing records too."""
    ledger = SqliteLedger(tmp_path)
    client = make_log_client(edges=Edges(ledger=ledger), log_interval_s=3600.0)
    async with serving(client):
        await client.step()
    newest, stats = await ledger.checkpoint(), await ledger.stats()
    await ledger.close()
    assert newest is not None
    assert newest.size == stats.receipts


async def test_proofs_wait_for_no_longer_than_asked_and_are_woken(make_log_client: Callable[..., Any]) -> None:
    client = make_log_client(edges=Edges(ledger=MemoryLedger()))
    answer = await client.step()
    waiting = [asyncio.ensure_future(proof_of(client, answer["receipt"])) for _ in range(20)]
    await asyncio.sleep(0)
    async with serving(client):
        proofs = await asyncio.gather(*waiting)
    assert len(set(proofs)) == 1


async def test_heads_records_show_a_tail_that_was_cut(make_log_client: Callable[..., Any]) -> None:
    """Row 15 through a shim: the holder of a chain learns that its newest records were kept from him."""
    async with serving(make_log_client(log_heads_s=0.02)) as client:
        answers = [await client.step(session="one", step_id=i) for i in range(4)]
        last = json.loads(answers[-1]["receipt_body"])["chain"]
        path = f"/v1/log/heads/{last['id'].removeprefix('sha256:')}"
        for _ in range(6000):
            reply = await client.get(path)
            assert reply.status in {200, 404}
            if reply.status == 200 and reply.json()["seq"] == last["seq"]:
                break
            await asyncio.sleep(0.01)
        found = reply.json()
        policy = verify_policy(client.app.runtime.keyring.keys, None)
        report = verify_single(
            found["receipt_body"],
            head=found["receipt"],
            sig=found["receipt_sig"],
            policy=policy,
            proof=await proof_of(client, found["receipt"]),
        )
        assert report.ok, report.code
        proof = HeadsProof(found["index"], [bytes.fromhex(item) for item in found["path"]])
        newest = Anchor(found["seq"], found["head"])
        assert newest == Anchor(last["seq"], answers[-1]["receipt"])
        for place, error in ((3, None), (2, Truncated)):
            held = Anchor(json.loads(answers[place]["receipt_body"])["chain"]["seq"], answers[place]["receipt"])
            body = report.verified()
            if error is None:
                check_tail(body, proof, chain=last["id"], newest=newest, held=held)
            else:
                with pytest.raises(error):
                    check_tail(body, proof, chain=last["id"], newest=newest, held=held)
        assert (await client.get("/v1/log/heads/" + "0" * 64)).status == 404
        assert (await client.get("/v1/log/heads/" + last["id"])).status == 422
        # the chain of the heads records themselves is one, and goes on
        bundle = await client.get(f"/v1/receipts/{found['receipt']}/bundle", **BEARER)
        types = [json.loads(item["body"])["typ"] for item in json.loads(bundle.body)["receipts"]]
        assert types == ["open"] + ["heads"] * (len(types) - 1)
        assert verify_bundle(bundle.body, policy=policy).ok
    off = make_log_client()
    assert (await off.get(path)).status == 404


async def test_a_failed_commit_of_a_heads_record_begins_a_new_chain(make_log_client: Callable[..., Any]) -> None:
    client = make_log_client(log_heads_s=3600.0)
    log = client.app.runtime.log
    writer = log.heads
    await client.step()
    await writer.write()
    first = writer.newest.record
    ledger = client.app.runtime.ledger
    append = ledger.append

    async def fail(*_: Any, **__: Any) -> None:
        msg = "away"
        raise Unavailable(msg)

    ledger.append = fail
    with pytest.raises(Unavailable):
        await writer.write()
    assert writer.newest.record == first
    ledger.append = append
    await writer.write()
    assert (writer.newest.record.seq, writer.newest.record.chain != first.chain) == (1, True)


async def test_an_export_that_goes_on_in_another_run(make_log_client: Callable[..., Any], tmp_path: Path) -> None:
    """The directory is one shim's at a time, and let go at the end."""
    options = {"log_dir": tmp_path / "log", "ledger": "sqlite"}
    for number in range(2):
        ledger = SqliteLedger(tmp_path / "data")
        client = make_log_client(edges=Edges(ledger=ledger), **options)
        with pytest.raises(ConfigError, match="another process exports"):
            make_log_client(**options)
        async with serving(client):
            await proof_of(client, (await client.step(session=str(number)))["receipt"])
            policy = verify_policy(client.app.runtime.keyring.keys, None)
        heads = iter(await ledger.heads())
        audit = audit_log(tmp_path / "log", policy=policy, origin="tcd.localhost", heads=heads)
        assert (audit.ok, audit.counts["ledger ahead of the log"]) == (True, 0)
        await ledger.close()
