"""The auditor's checks: honest receipts pass, and each kind of damage fails the check that is for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from tcd.demo import verify
from tcd.demo.records import Answer, Receipt, Route, Token
from tcd.demo.result import Check
from tcd.receipts import ChainState, Issuer, SigningKey, chain_id
from tcd.receipts.records import admin_members

KEY = SigningKey(hashlib.sha256(b"demo").digest())
DIGEST = "sha256:" + "ab" * 32


def session(count: int = 6, key: SigningKey = KEY) -> list[Receipt]:
    """Receipts 1… of a chain whose record 0 the caller never got, as the shim's answers have them."""
    issuer = Issuer(key, origin="tcd.demo")
    chain = ChainState(chain_id("session", "demo"))
    out = []
    for n in range(count + 1):
        issued = issuer.issue(
            chain=chain,
            typ="open" if n == 0 else "admin",
            tenant="demo",
            config=DIGEST,
            policy=DIGEST,
            members=_open() if n == 0 else admin_members(action=f"a{n}", actor="demo", object_digest=DIGEST),
            ts_us=1_760_000_000_000_000 + n,
            nonce=hashlib.sha256(bytes([n])).digest()[:16],
        )
        chain = issued.next()
        out.append(Receipt(issued.head_hex, issued.body_text, issued.sig_hex, issuer.verify_key_hex))
    return out[1:]


def _open() -> dict[str, object]:
    from tcd.receipts.records import Model, open_session_members  # noqa: PLC0415 - only here

    return open_session_members(
        subject=DIGEST, model=Model("m"), unit="session", keys=(1, 2, 3), mask=15, assets=(1, 2, 3), weight=0.5
    )


def tokens(receipts: list[Receipt | None]) -> list[Token]:
    answer = Answer(score=0.1, p_value=1.0, tier=0, verdict=False, route=Route(0.8, 0.95, 9.0))
    return [
        Token(
            step=i,
            token=1,
            text="a",
            lp=-1.0,
            entropy=1.0,
            temperature=0.8,
            top_p=0.95,
            decoder=0,
            asked=0.8,
            answer=replace(answer, receipt=receipt),
        )
        for i, receipt in enumerate(receipts)
    ]


def checks(receipts: list[Receipt | None], monkeypatch: pytest.MonkeyPatch, key: SigningKey = KEY) -> dict[str, Check]:
    monkeypatch.setattr(verify, "_online", lambda *_: [])
    found = verify.verify_session(tokens(receipts), public=key.public, origin="tcd.demo", shim_url="http://x")
    return {check.name: check for check in found}


def test_honest_receipts_pass_and_the_forged_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks([*session()], monkeypatch)
    assert len(found) == 4
    assert all(check.ok for check in found.values())
    assert found["each one offline, with the pinned key"].detail == "6 of 6 verify"
    assert "refused" in found["a forged body is refused offline"].detail


def test_a_missing_receipt_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = checks([*session(), None], monkeypatch)
    assert not found["a receipt for every token"].ok


def swap(receipts: list[Receipt]) -> list[Receipt]:
    return [receipts[1], receipts[0], *receipts[2:]]


@pytest.mark.parametrize(
    ("damage", "singles", "chain"),
    [
        (lambda r: [r[0], verify.forge(r[1]), *r[2:]], False, False),
        (lambda r: [r[0], replace(r[1], signature=r[2].signature), *r[2:]], False, False),
        (lambda r: [r[0], replace(r[1], head=r[2].head), *r[2:]], False, False),
        (lambda r: [r[0], *r[2:]], True, False),
        (swap, True, False),
    ],
    ids=["body", "signature", "head", "dropped", "swapped"],
)
def test_damage_fails_the_check_that_is_for_it(
    monkeypatch: pytest.MonkeyPatch, *, damage: Callable[[list[Receipt]], list[Receipt]], singles: bool, chain: bool
) -> None:
    found = checks([*damage(session())], monkeypatch)
    assert found["each one offline, with the pinned key"].ok is singles
    assert found["the session's chain offline"].ok is chain


def test_another_key_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = SigningKey(hashlib.sha256(b"other").digest())
    found = checks([*session(key=other)], monkeypatch)
    assert not found["each one offline, with the pinned key"].ok


def test_a_forged_body_is_still_canonical_json() -> None:
    receipt = session()[0]
    forged = verify.forge(receipt)
    assert forged.body != receipt.body
    assert len(forged.body) == len(receipt.body)
    assert json.loads(forged.body).keys() == json.loads(receipt.body).keys()


def test_a_shim_that_is_away_fails_the_check() -> None:
    found = verify.verify_session(
        tokens([*session()]), public=KEY.public, origin="tcd.demo", shim_url="http://127.0.0.1:1"
    )
    assert {check.name: check.ok for check in found}["POST /verify"] is False
