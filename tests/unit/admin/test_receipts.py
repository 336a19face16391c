"""Receipts over the admin plane: filters, pages, and tenants that see only their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.admin.principals import SCOPES, KeySet, Principals
from tcd.ledger import Batch
from tcd.receipts import Issuer, SigningKey
from tcd.receipts.chain import ChainState, chain_id
from tcd.receipts.records import Model, admin_members, open_session_members
from tests.unit.admin.kit import Admin

DIGEST = "sha256:" + "1" * 64
ACT = admin_members(action="act", actor="x", object_digest=DIGEST)
OPEN = open_session_members(
    subject=DIGEST, model=Model("m"), unit="none", keys=(0, 0, 0), mask=0, assets=(0, 0, 0), weight=0.0
)


@pytest.fixture
async def admin(tmp_path: Path) -> Admin:
    """A ledger with two receipts of each of two tenants."""
    made = Admin(tmp_path)
    issuer = Issuer(SigningKey(b"\1" * 32), origin="test")
    receipts = []
    for tenant in ("acme", "other"):
        chain = ChainState(chain_id("admin", tenant))
        for number, (typ, members) in enumerate((("open", OPEN), ("admin", ACT))):
            receipts.append(
                issuer.issue(
                    chain=chain, typ=typ, members=members, tenant=tenant, config=DIGEST, policy=DIGEST,
                    ts_us=1000 + number, nonce=bytes([number]) * 16,
                )
            )  # fmt: skip
            chain = receipts[-1].next()
    await made.shim.kept.append(Batch(receipts=tuple(receipts)), now_us=2000)
    return made


async def found(admin: Admin, query: str, by: Any = None) -> Any:
    reply = await admin.get(f"/receipts{query}", by or admin.alice)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_pages_by_cursor(admin: Admin) -> None:
    first = await found(admin, "?limit=3")
    assert first["indexed"] == 4
    second = await found(admin, f"?limit=3&cursor={first['next']}")
    assert second["next"] is None
    heads = [r["head"] for r in (*first["receipts"], *second["receipts"])]
    assert len(set(heads)) == 4
    assert [r["ts_us"] for r in (*first["receipts"], *second["receipts"])] == [1001, 1001, 1000, 1000]


async def test_filters(admin: Admin) -> None:
    assert len((await found(admin, "?tenant=acme"))["receipts"]) == 2
    assert len((await found(admin, "?tenant=acme&since_us=1001"))["receipts"]) == 1
    assert len((await found(admin, "?until_us=1001&typ=open"))["receipts"]) == 2
    assert (await found(admin, "?verdict=true"))["receipts"] == []
    assert (await found(admin, "?tenant=acme&user=u&session=s"))["receipts"] == []


@pytest.mark.parametrize(
    "query",
    [
        "?nothing=1", "?limit=0", "?limit=1001", "?limit=x", "?tenant=a&tenant=b", "?cursor=AAAA", "?verdict=1",
        "?cursor=!", "?subject=abc", "?user=u", "?session=s&user=u", "?since_us=-1", "?action=%27%3B--",
        "?since_us=99999999999999999999", "?typ=admin%0A",
    ],
)  # fmt: skip
async def test_what_is_no_search_is_refused(admin: Admin, query: str) -> None:
    assert (await admin.get(f"/receipts{query}", admin.alice)).status_code == 422


async def test_a_tenant_sees_its_own_and_others_are_as_if_missing(admin: Admin) -> None:
    carol = admin.carol.public(["receipts:read"], tenant="acme")
    keys = [*admin.keys().model_dump(mode="json")["keys"][:2], carol]
    Principals(KeySet.model_validate_json(json.dumps({"keys": keys}))).save(admin.folder / "principals.json")
    mine = await found(admin, "", admin.carol)
    assert {r["tenant"] for r in mine["receipts"]} == {"acme"}
    assert (await found(admin, "?tenant=other", admin.carol))["receipts"] == []
    every = (await found(admin, ""))["receipts"]
    for receipt in every:
        reply = await admin.get(f"/receipts/{receipt['head']}", admin.carol)
        missing = await admin.get(f"/receipts/{'0' * 64}", admin.carol)
        if receipt["tenant"] == "acme":
            assert reply.json()["head"] == receipt["head"]
        else:
            said, same = reply.json(), missing.json()
            said.pop("request_id")
            same.pop("request_id")
            assert (reply.status_code, said) == (missing.status_code, same)
            assert reply.status_code == 404


async def test_a_receipt_comes_whole(admin: Admin) -> None:
    head = (await found(admin, ""))["receipts"][0]["head"]
    said = (await admin.get(f"/receipts/{head}", admin.alice, ["receipts:read"])).json()
    assert said["body"].startswith("{")
    assert len(said["sig"]) == 128
    others = [scope for scope in SCOPES if scope != "receipts:read"]
    assert (await admin.get(f"/receipts/{head}", admin.alice, others)).status_code == 403
