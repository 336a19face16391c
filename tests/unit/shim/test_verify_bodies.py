"""/verify says whether the log still has the body of what was shown, to nobody else and about nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.app import Edges
from sidecar_api.grpc.server import GrpcServer
from tcd.client import AsyncClient, Bodies
from tcd.errors import Unavailable
from tcd.ledger import Ledger, MemoryLedger, SqliteLedger
from tcd.receipts.erasure import runs_of

MISSING = (422, "/receipt_body_json")


class Shim:
    """A shim of two tenants, each with a session of three steps."""

    def __init__(self, client: Any, ledger: Ledger, answers: dict[str, list[Any]]) -> None:
        self.client, self.ledger, self.answers = client, ledger, answers

    async def place(self, answer: Any) -> int:
        stored = await self.ledger.get(answer["receipt"])
        assert stored is not None
        return stored.index

    async def erase(self, *answers: Any) -> Any:
        """As `POST /receipts:erase` does."""
        judge = self.client.app.runtime.service.judge
        places = sorted([await self.place(answer) for answer in answers])
        heads = [(await self.ledger.heads(first=place, limit=1))[0] for place in places]
        made = judge.receipts.erased(actor="a + b", reason="subject", places=places, heads=heads)
        await judge.put(made, erase=tuple(places))
        return made[1]

    async def verify(self, **request: Any) -> Any:
        reply = await self.client.post(request, "/verify")
        assert reply.status == 200, reply.body
        return reply.json()

    async def refused(self, **request: Any) -> Any:
        reply = await self.client.post(request, "/verify")
        return reply.status, {k: v for k, v in reply.json().items() if k != "request_id"}


@pytest.fixture(params=["memory", "sqlite"])
async def shim(request: pytest.FixtureRequest, make_client: Callable[..., Any], tmp_path: Path) -> AsyncIterator[Shim]:
    ledger: Ledger = MemoryLedger() if request.param == "memory" else SqliteLedger(tmp_path)
    client = make_client(edges=Edges(ledger=ledger))
    answers = {
        tenant: [await client.step(tenant=tenant, session=tenant, step_id=i) for i in range(3)]
        for tenant in ("acme", "other")
    }
    yield Shim(client, ledger, answers)
    await ledger.close()


def whole(answer: Any) -> dict[str, Any]:
    return {
        "receipt_head_hex": answer["receipt"],
        "receipt_body_json": answer["receipt_body"],
        "receipt_sig_hex": answer["receipt_sig"],
    }


def left(answer: Any) -> dict[str, Any]:
    return {"receipt_head_hex": answer["receipt"], "receipt_sig_hex": answer["receipt_sig"]}


def chain(answers: Sequence[Any], **more: Any) -> dict[str, Any]:
    first = json.loads(answers[0]["receipt_body"])["chain"]
    start = {"seq": first["seq"] - 1, "head": first["prev"]}
    heads, bodies = ([answer[name] for answer in answers] for name in ("receipt", "receipt_body"))
    return {"heads": heads, "bodies": bodies, "start": start, **more}


async def test_who_shows_a_receipt_learns_that_its_body_was_erased_and_by_which_record(shim: Shim) -> None:
    mine = shim.answers["acme"]
    before = await shim.verify(**whole(mine[0]))
    assert (before["ok"], before["bodies"]) == (True, {"kept": 1, "erased": 0, "erasures": []})
    record = await shim.erase(*mine[:2])
    after = await shim.verify(**whole(mine[0]))
    assert {**before, "bodies": None} == {**after, "bodies": None}
    (erasure,) = after["bodies"]["erasures"]
    assert (after["bodies"]["kept"], after["bodies"]["erased"]) == (0, 1)
    assert erasure["receipt"] == mine[0]["receipt"]
    assert erasure["record"] == record.head_hex
    # the record is in the log where the answer says, and names the leaf of the answer
    stored = (await shim.ledger.records(first=erasure["record_index"], limit=1))[0]
    assert stored.receipt is not None
    assert (stored.head, stored.receipt.typ) == (record.head_hex, "erase")
    assert any(a <= erasure["index"] < b for a, b in runs_of(json.loads(stored.receipt.body)))
    assert erasure["index"] == await shim.place(mine[0])
    # a chain: how many, and each
    told = (await shim.verify(**chain(mine)))["bodies"]
    assert (told["kept"], told["erased"]) == (1, 2)
    assert {(e["receipt"], e["record"]) for e in told["erasures"]} == {
        (a["receipt"], record.head_hex) for a in mine[:2]
    }
    # and nothing of it is anybody else's
    assert (await shim.verify(**whole(shim.answers["other"][0])))["bodies"]["kept"] == 1


async def test_head_and_signature_are_enough_when_the_body_is_gone(shim: Shim) -> None:
    mine = shim.answers["acme"][0]
    status, problem = await shim.refused(**left(mine))
    assert (status, problem["pointer"]) == MISSING
    record = await shim.erase(mine)
    told = await shim.verify(**left(mine))
    assert (told["ok"], told["code"], told["trust"]) == (False, "erased", "server")
    passed = {check["name"] for check in told["checks"] if check["status"] == "pass"}
    assert passed == {"signature"}
    assert told["bodies"]["erasures"][0]["record"] == record.head_hex


async def test_who_cannot_show_it_is_told_nothing(shim: Shim) -> None:
    mine, foreign = shim.answers["acme"][0], shim.answers["other"][0]
    nowhere = await shim.refused(receipt_head_hex="0" * 64, receipt_sig_hex=foreign["receipt_sig"])
    assert (nowhere[0], nowhere[1]["pointer"]) == MISSING
    await shim.erase(foreign)
    for sig in ("00" * 64, mine["receipt_sig"], "", "zz"):
        # a foreign head is answered as one that never was, erased or not
        assert await shim.refused(receipt_head_hex=foreign["receipt"], receipt_sig_hex=sig) == nowhere
    assert await shim.refused(receipt_head_hex=foreign["receipt"]) == nowhere
    assert await shim.refused(receipt_head_hex=foreign["receipt"].upper(), receipt_sig_hex="00" * 64) == nowhere
    # without a signature of ours there is no word about bodies, whatever else is shown
    for changed in ({"receipt_sig_hex": "00" * 64}, {"receipt_sig_hex": mine["receipt_sig"]}):
        assert "bodies" not in await shim.verify(**(whole(foreign) | changed))
    wrong = chain(shim.answers["other"])
    wrong["heads"][0] = mine["receipt"]
    assert "bodies" not in await shim.verify(**wrong)


async def test_a_body_that_went_without_a_record_has_none(shim: Shim) -> None:
    mine = shim.answers["acme"][0]
    place = await shim.place(mine)
    await shim.client.app.runtime.service.judge.put((), erase=(place,))
    assert (await shim.verify(**whole(mine)))["bodies"]["erasures"] == [
        {"receipt": mine["receipt"], "index": place, "record": None, "record_index": None}
    ]


async def test_a_ledger_that_points_at_another_record_is_not_believed(
    shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, more = shim.answers["acme"][:2]
    await shim.erase(mine)
    other = await shim.erase(more)
    found = await shim.ledger.get(other.head_hex)

    async def lie(_: int) -> Any:
        return found

    monkeypatch.setattr(shim.ledger, "erasure", lie)
    assert (await shim.verify(**whole(mine)))["bodies"]["erasures"][0]["record"] is None


async def test_a_ledger_that_cannot_be_read_does_not_stop_verification(
    shim: Shim, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = shim.answers["acme"]

    async def away(*_: Any, **__: Any) -> Any:
        msg = "away"
        raise Unavailable(msg)

    for name in ("get", "chain_records"):
        monkeypatch.setattr(shim.ledger, name, away)
    for request in (whole(mine[0]), chain(mine)):
        told = await shim.verify(**request)
        assert (told["ok"], "bodies" in told) == (True, False)
    assert (await shim.refused(**left(mine[0])))[0] == MISSING[0]


async def test_a_chain_of_many_erasures_counts_all_and_tells_some(shim: Shim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar_api.kept_bodies.TOLD", 2)
    mine = shim.answers["acme"]
    await shim.erase(*mine)
    told = (await shim.verify(**chain(mine)))["bodies"]
    assert (told["erased"], len(told["erasures"])) == (3, 2)


async def test_grpc_and_its_client_say_the_same(shim: Shim) -> None:
    mine = shim.answers["acme"]
    await shim.erase(mine[0])
    server = GrpcServer(shim.client.app.runtime, host="127.0.0.1", port=0)
    await server.start()
    try:
        async with AsyncClient(f"grpc://127.0.0.1:{server.port}", deadline=60) as client:
            for request in (whole(mine[0]), left(mine[0]), whole(mine[1]), chain(mine)):
                over_http = await shim.verify(**request)
                report = await client.verify(**request)
                assert isinstance(report.bodies, Bodies)
                assert (report.ok, report.code) == (over_http["ok"], over_http["code"])
                told = report.bodies
                assert over_http["bodies"] == {
                    "kept": told.kept,
                    "erased": told.erased,
                    "erasures": [{name: getattr(e, name) for name in e.__struct_fields__} for e in told.erasures],
                }
    finally:
        await server.stop(grace=0)
