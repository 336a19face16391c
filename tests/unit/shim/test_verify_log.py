"""/verify with proofs of the shim's own log: order, codes, the rows of the mutation table that need it, limits."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from sidecar_api.app import Edges
from sidecar_api.log.keyring import seed_keys
from tcd.config import load
from tcd.ledger import MemoryLedger
from tcd.receipts import SigningKey
from tcd.receipts.checkpoint import LogHead, TlogProof
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.merkle import MerkleTree
from tcd.receipts.note import parse_note, sign_note, write_note
from tcd.receipts.report import CHAIN, SINGLE

SEED = b"\x11" * 32
ORIGIN = "tcd.localhost"


class Held:
    """A shim with a session of five decisions, and what a holder of its chain has.

    Attributes:
        answers: of the shim.
        records: of the chain, with `body`, `head`, `sig`, `proof`.
    """

    def __init__(self, client: Any, answers: list[Any], records: list[dict[str, str]], heads: list[bytes]) -> None:
        self.client, self.answers, self.records = client, answers, records
        self.tree = MerkleTree(heads)

    async def single(self, place: int = 2, **changes: Any) -> Any:
        record = self.records[place]
        request = {
            "receipt_head_hex": record["head"],
            "receipt_body_json": record["body"],
            "receipt_sig_hex": record["sig"],
            "proof": record["proof"],
        }
        reply = await self.client.post(request | changes, "/verify")
        assert reply.status == 200, reply.body
        return reply.json()

    async def chain(self, records: Sequence[dict[str, str]] | None = None, **changes: Any) -> Any:
        """Of `records`, by default all."""
        taken = self.records if records is None else records
        names = {"bodies": "body", "heads": "head", "sigs": "sig", "proofs": "proof"}
        request = {name: [record[part] for record in taken] for name, part in names.items()}
        reply = await self.client.post(request | changes, "/verify")
        assert reply.status == 200, reply.body
        return reply.json()

    def parsed(self, place: int = 2) -> TlogProof:
        return TlogProof.parse(self.records[place]["proof"].encode())

    def reproved(self, place: int = 2, **members: Any) -> str:
        return replace(self.parsed(place), extra=None, **members).write().decode()


@pytest.fixture
async def held(make_client: Callable[..., Any]) -> AsyncIterator[Held]:
    ledger = MemoryLedger()
    token = "a-token-of-the-tests"
    client = make_client(
        edges=Edges(ledger=ledger),
        log_interval_s=0.01,
        log_decisions=False,
        api_tokens=[{"token": token, "scopes": ["receipts:read"]}],
    )
    async with client.app.router.lifespan_context(client.app):
        for i in range(9):
            await client.step(session=f"other{i}")
        answers = [await client.step(session="one", step_id=i) for i in range(5)]
        reply = await client.get(f"/v1/log/proof/{answers[-1]['receipt']}", query="wait=30")
        assert reply.status == 200
        bundle = await client.get(f"/v1/receipts/{answers[0]['receipt']}/bundle", authorization=f"Bearer {token}")
        assert bundle.status == 200
        size = LogHead.from_text(parse_note(TlogProof.parse(reply.body).checkpoint)[0]).size
        yield Held(client, answers, json.loads(bundle.body)["receipts"], list(await ledger.heads(limit=size)))


def failed(report: Any) -> dict[str, str]:
    return {check["name"]: check["code"] for check in report["checks"] if check["status"] == "fail"}


async def test_inclusion_and_checkpoint_are_checked_in_their_order(held: Held) -> None:
    report = await held.single()
    assert (report["ok"], report["code"], report["trust"]) == (True, "ok", "server")
    assert [check["name"] for check in report["checks"]] == list(SINGLE)
    status = {check["name"]: check["status"] for check in report["checks"]}
    assert (status["inclusion"], status["checkpoint"], status["signature"]) == ("pass", "pass", "pass")
    chain = await held.chain()
    assert (chain["ok"], chain["code"], chain["trust"]) == (True, "ok", "server")
    assert [check["name"] for check in chain["checks"]] == list(CHAIN)
    assert {c["name"]: c["status"] for c in chain["checks"]}["inclusion"] == "pass"
    # an earlier check decides the code, all are reported
    both = await held.single(receipt_sig_hex="00" * 64, proof=held.reproved(index=0))
    assert both["code"] == "bad_signature"
    assert failed(both) == {"signature": "bad_signature", "inclusion": "bad_inclusion"}
    # same question, same bytes
    assert await held.single() == report


async def test_row_17_wrong_proofs_over_http(held: Held) -> None:
    good = held.parsed()
    size = LogHead.from_text(parse_note(good.checkpoint)[0]).size
    path = good.path
    wrong: list[dict[str, Any]] = [
        *({"index": good.index + step} for step in (-1, 1, 2)),
        *({"path": (*path[:at], *path[at + 1 :])} for at in range(len(path))),
        {"path": (*path, bytes(32))},
        {"path": ()},
        {"index": size},
    ]
    for members in wrong:
        assert failed(await held.single(proof=held.reproved(**members))) == {"inclusion": "bad_inclusion"}, members
        records = list(held.records)
        records[2] = {**records[2], "proof": held.reproved(**members)}
        report = await held.chain(records)
        assert (report["code"], report["first_bad"]) == ("log_chain_mismatch", 2)
    for garbage in ("", "x", held.records[2]["proof"] + "x", held.records[2]["proof"].replace("index", "Index")):
        assert failed(await held.single(proof=garbage)) != {}
    assert failed(await held.single(proof="c2sp.org/tlog-proof@v1\nindex 0\n"))["inclusion"] == "malformed_note"


async def test_row_19_the_proof_of_another_receipt_over_http(held: Held) -> None:
    other = held.records[3]["proof"]
    assert failed(await held.single(proof=other)) == {"inclusion": "leaf_mismatch"}
    assert failed(await held.single(proof=held.reproved(3))) == {"inclusion": "bad_inclusion"}


async def test_row_20_a_chain_whose_records_the_log_does_not_have_in_their_order(held: Held) -> None:
    records = [dict(record) for record in held.records]
    records[1]["proof"], records[2]["proof"] = records[2]["proof"], records[1]["proof"]
    report = await held.chain(records)
    assert (report["ok"], report["code"], report["first_bad"]) == (False, "log_chain_mismatch", 1)
    # a log that has them in another order, signed by its own keys
    keys = seed_keys(load({}).settings, SEED).log
    assert keys is not None
    heads = [bytes.fromhex(record["head"]) for record in held.records]
    tree = MerkleTree([heads[1], heads[0], *heads[2:]])
    note = keys.checkpoint(len(tree), tree.root(), time=1_900_000_000)
    place = [1, 0, *range(2, len(heads))]
    for record, index in zip(records, place, strict=True):
        record["proof"] = TlogProof(index, tree.inclusion(index), note).write().decode()
    report = await held.chain(records)
    assert (report["ok"], report["code"], report["first_bad"]) == (False, "log_chain_mismatch", 1)
    assert (await held.chain(records, proofs=[held.records[0]["proof"]] * 6))["code"] == "log_chain_mismatch"


async def test_row_21_other_origins_and_keys_over_http(held: Held) -> None:
    good, classic = held.parsed(), SigningKey(b"s" * 32)
    head = LogHead.from_text(parse_note(good.checkpoint)[0])
    strangers = LogSigner(ORIGIN, [classic]).checkpoint(head.size, head.root)
    found = failed(await held.single(proof=held.reproved(checkpoint=strangers)))
    assert found == {"checkpoint": "missing_signature"}
    for origin in ("other.example", "tcd.localhost.", "TCD.localhost"):
        text = replace(head, origin=origin).text()
        forged = write_note(text, [sign_note(text, ORIGIN, classic)])
        assert failed(await held.single(proof=held.reproved(checkpoint=forged))) == {"checkpoint": "wrong_origin"}
    # one of the log's two signatures is not enough for a shim whose log makes both
    text, lines = parse_note(good.checkpoint)
    for kept in (lines[:1], lines[1:]):
        stripped = held.reproved(checkpoint=write_note(text, kept))
        assert failed(await held.single(proof=stripped)) == {"checkpoint": "missing_signature"}


async def test_row_22_checkpoints_over_http(held: Held) -> None:
    text, lines = parse_note(held.parsed().checkpoint)
    stranger = sign_note(text, "stranger.example", SigningKey(b"s" * 32))
    for given, expected in (
        ([stranger], {"checkpoint": "missing_signature"}),
        ([*lines, *[stranger] * 15], {"inclusion": "malformed_note"}),
    ):
        found = failed(await held.single(proof=held.reproved(checkpoint=write_note(text, given))))
        assert expected.items() <= found.items()
    first, size, *rest = text.split("\n")
    for bad in (f"+{size}", f"0{size}", f"{size}.0", ""):
        changed = "\n".join([first, bad, *rest])
        found = failed(await held.single(proof=held.reproved(checkpoint=write_note(changed, lines))))
        assert found["inclusion"] == "malformed_checkpoint"


async def test_bits_of_a_proof(held: Held) -> None:
    """Every byte of what a proof says, one bit each; lines that the policy asks for are all of a note here."""
    raw = held.records[2]["proof"].encode()
    seen = 0
    for at in range(0, len(raw), 7):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << (at % 7)
        try:
            proof = flipped.decode()
        except UnicodeDecodeError:
            continue
        report = await held.single(proof=proof)
        assert not report["ok"], at
        seen += 1
    assert seen > len(raw) // 8


async def test_row_30_sizes_of_verify_over_http(held: Held) -> None:
    """Everything too large, too deep or too many is refused before it costs anything, with one bounded allocation."""
    client = held.client
    deep = "[" * 9 + "]" * 9
    limit = {"receipt_head_hex": "0" * 64, "receipt_sig_hex": "0" * 128}
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({**limit, "receipt_body_json": "x" * 512_001}, 422, "validation_failed"),
        ({**limit, "receipt_body_json": '{"a":' + deep + "}"}, 200, "limit"),
        ({**limit, "receipt_body_json": '{"a":' + "1" * 400_000 + "}"}, 200, "bad_number"),
        ({**limit, "receipt_body_json": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"}, 200, "limit"),
        ({**limit, "receipt_body_json": "{}", "proof": "x" * 81_920}, 200, "schema"),
        ({**limit, "receipt_body_json": "{}", "proof": "x" * 81_921}, 422, "validation_failed"),
        ({"heads": ["0"], "bodies": ["{}"], "proofs": ["x"] * 1025}, 422, "validation_failed"),
        ({"heads": ["0"], "bodies": ["{}"], "proofs": []}, 400, "invalid_request"),
        ({"heads": ["0"], "bodies": ["{}"], "proofs": [None]}, 422, "validation_failed"),
    ]
    for body, status, code in cases:
        reply = await client.post(body, "/verify")
        assert (reply.status, reply.json()["code"]) == (status, code), reply.body[:300]
    raw = b'{"receipt_head_hex":"0","receipt_body_json":"{}","req_obj":{"a":'
    for tail in (b"1" * 1_000_000 + b"}}", b"[" * 100_000 + b"]" * 100_000 + b"}}", b"[" * 100_000):
        reply = await client.raw(raw + tail, "/verify")
        assert reply.status in {200, 400, 422}
        assert reply.status != 200 or reply.json()["ok"] is False
    assert (await client.raw(b"{}", "/verify", content_length=str(1 << 30))).status == 413
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        reply = await client.raw([b" " * 65_536] * 2_000, "/verify")
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert reply.status == 413
    # the limit, and the chunks joined: not the 128 MiB that were sent
    assert peak < 12 << 20


async def test_row_30_a_slow_body_of_verify_is_given_up(make_client: Callable[..., Any]) -> None:
    reply = await make_client(body_timeout_s=0.05).raw([], "/verify")
    assert (reply.status, reply.json()["code"]) == (400, "invalid_request")


async def test_long_verifications_do_not_hold_up_the_loop(held: Held) -> None:
    """Chains with proofs are verified in a few threads; steps are answered meanwhile."""
    running = [asyncio.ensure_future(held.chain()) for _ in range(8)]
    answer = await held.client.step(session="meanwhile")
    reports = await asyncio.gather(*running)
    assert answer["receipt"]
    assert all(report["ok"] for report in reports)
