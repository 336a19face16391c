"""Issuing: chains, sizes, the documented head and signature, and the schema that fails closed."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tcd.errors import VerificationError
from tcd.receipts import ChainState, canonical, chain_id, check_body, subject_digest
from tcd.receipts.errors import ChainMismatch, LimitExceeded, SchemaMismatch, UnknownVersion
from tcd.receipts.records import (
    ack_members,
    admin_members,
    av_off,
    close_members,
    gap_members,
    open_epoch_members,
)
from tcd.risk_av import Terms
from tests.unit.receipts.conftest import CONFIG, POLICY, Session, issuer, nonce

ROOT = Path(__file__).resolve().parents[3]


def test_head_and_signature_are_the_documented_bytes(session: Session) -> None:
    receipt = session.receipts[-1]
    assert receipt.head == hashlib.sha256(b"tcd/receipt/v2/head\0" + receipt.body).digest()
    message = b"tcd/receipt/v2/sig\0Ed25519\0" + bytes.fromhex(receipt.kid) + receipt.head
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(session.issuer.verify_key_hex)).verify(receipt.sig, message)
    value = json.loads(receipt.body)
    assert (value["chain"]["seq"], value["chain"]["prev"]) == (1, session.receipts[0].head_hex)
    assert receipt.body_text.encode() == receipt.body
    assert len(receipt.body) <= 16_384


def test_issuing_is_a_function_of_its_arguments(make_session: Callable[..., Session]) -> None:
    one, two = make_session(), make_session()
    for made in (one, two):
        made.open()
        made.decision()
    assert one.receipts == two.receipts


def test_every_type_of_record(session: Session) -> None:
    terms = Terms.of(session.controller.params)
    session.issue("gap", gap_members(first=2, last=4, reason="crash"))
    session.issue("admin", admin_members(action="state:load", actor="ops", object_digest=CONFIG))
    session.issue("ack", ack_members(actor="ops", stream="acme", claim=1, terms=terms))
    session.decision(av=av_off("acme"))
    snapshot = session.controller.state("acme").snapshot
    session.issue("close", close_members(reason="horizon", count=session.chain.seq + 1, eproc=snapshot))
    assert session.chain.closed
    epoch = ChainState(chain_id("epoch", "acme", "1"))
    session.issuer.issue(
        chain=epoch,
        typ="open",
        tenant="acme",
        config=CONFIG,
        policy=POLICY,
        members=open_epoch_members(stream="acme", epoch=1, claim_level=0.05, terms=terms),
        ts_us=1,
        nonce=nonce(0),
    )


def test_chains_open_once_and_end_at_close(session: Session, make_session: Callable[..., Session]) -> None:
    with pytest.raises(ChainMismatch):
        session.open()
    session.close()
    with pytest.raises(ChainMismatch):
        session.decision()
    with pytest.raises(ChainMismatch):
        make_session().decision()


def test_time_never_goes_back_in_a_chain(session: Session) -> None:
    receipt = session.issuer.issue(
        chain=session.chain,
        typ="gap",
        tenant="acme",
        config=CONFIG,
        policy=POLICY,
        members=gap_members(first=0, last=0, reason="x"),
        ts_us=5,
        nonce=nonce(1),
    )
    assert receipt.ts_us == session.receipts[-1].ts_us


def test_a_body_over_16_kib_is_refused(session: Session) -> None:
    with pytest.raises((LimitExceeded, SchemaMismatch)):
        session.decision(components={f"c{i}": {"x": "0" * 2000} for i in range(16)})
    many = {
        "verdict": True, "trigger": False, "score": "0" * 16, "threshold": "0" * 16, "action": "allow",
        "enforced": "allow", "cause": "", "step": 1, "status": 0, "tags": ["\U0001f602" * 64] * 16,
    }  # fmt: skip
    wide = {"id": "\U0001f602" * 128, "gpu": "é" * 128, "task": "\U0001f602" * 128, "lang": "\U0001f602" * 128}
    receipt = session.decision(decision=many, model=wide)
    assert len(receipt.body) < 16_384


def test_ids_do_not_run_together() -> None:
    assert chain_id("session", "ab", "c") != chain_id("session", "a", "bc")
    assert chain_id("session", "a") != chain_id("epoch", "a")
    key = b"0123456789abcdef"
    assert subject_digest(key, "ab", "c") != subject_digest(key, "a", "bc")
    assert subject_digest(key, "a") != subject_digest(b"x" * 16, "a")


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += _paths(item, (*path, key))
    return found


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def test_every_member_is_required_typed_and_known(session: Session) -> None:
    session.close()
    refused = 0
    for receipt in session.receipts:
        good = canonical.parse(receipt.body)
        check_body(good)
        for path in _paths(good):
            changes: list[Callable[[Any, Any], object]] = [
                lambda holder, key: holder.__setitem__(key, None),
                lambda holder, key: holder.__setitem__(key, 1.5),
                lambda holder, key: holder.__setitem__(key, [[]]),
                lambda holder, key: holder.__setitem__(
                    key, 1 if isinstance(holder[key], bool) else True if isinstance(holder[key], int) else "?" * 600
                ),
            ]
            if isinstance(path[-1], str) and path[0] != "components":
                changes.append(lambda holder, key: holder.pop(key))
                changes.append(lambda holder, key: holder.__setitem__(key + "x", holder.pop(key)))
                changes.append(lambda holder, key: holder.update({"extra_" + key: 1}))
            for change in changes:
                bad = copy.deepcopy(good)
                change(_at(bad, path[:-1]), path[-1])
                with pytest.raises(VerificationError) as caught:
                    check_body(bad)
                assert caught.value.code == "schema" or path in {("v",), ("suite",)}
                refused += 1
    assert refused > 500


@pytest.mark.parametrize(
    ("path", "value", "error"),
    [
        (("v",), "tcd.receipt/1", UnknownVersion),
        (("v",), "tcd.receipt/3", UnknownVersion),
        (("suite",), "ML-DSA-44", UnknownVersion),
        (("suite",), "none", UnknownVersion),
        (("typ",), "rotate", SchemaMismatch),
        (("typ",), "open", SchemaMismatch),
        (("witness", 0, "q"), "affine-u16/1", SchemaMismatch),
        (("witness", 1, "name"), "trace", SchemaMismatch),
        (("eproc", "kind"), "restart-mixture/2", SchemaMismatch),
        (("eproc", "e"), "7ff0000000000000", SchemaMismatch),
        (("decision", "score"), "8000000000000000", SchemaMismatch),
        (("decision", "action"), "ignore", SchemaMismatch),
        (("decision", "tags"), [""], SchemaMismatch),
        (("assets",), ["1", "2", str(2**64)], SchemaMismatch),
        (("assets",), ["1", "2", "03"], SchemaMismatch),
        (("chain", "prev"), "0" * 64, SchemaMismatch),
        (("chain", "seq"), 0, SchemaMismatch),
        (("ts_us",), -1, SchemaMismatch),
    ],
)
def test_unknown_values_are_refused(session: Session, path: tuple[Any, ...], value: Any, error: type) -> None:
    body = canonical.parse(session.receipts[-1].body)
    _at(body, path[:-1])[path[-1]] = value
    with pytest.raises(error):
        check_body(body)


def test_the_pointer_names_the_member(session: Session) -> None:
    body = canonical.parse(session.receipts[-1].body)
    body["witness"][1]["lo"] = 5
    with pytest.raises(SchemaMismatch) as caught:
        check_body(body)
    assert caught.value.pointer == "/witness/1/lo"


def test_domain_prefixes_are_prefix_free() -> None:
    """Every prefix in the source, those of C2SP, and the first byte of a body."""
    sources = [*(ROOT / "tcd").rglob("*.py"), *(ROOT / "sidecar_api").rglob("*.py")]
    found = [match for path in sources for match in re.findall(r'b"(tcd/[a-z0-9/-]+)\\0"', path.read_text())]
    prefixes = {f"{name}\0".encode() for name in found}
    assert len(prefixes) > 15
    prefixes |= {b"subtree/v1\n\0", b"cosignature/v1\n", b"{"}
    for a in prefixes:
        assert sum(b.startswith(a) for b in prefixes) == 1


def test_the_issuer_hides_nothing_but_its_secret() -> None:
    made = issuer(3)
    assert made.kid == made.pinned().kid
    assert made.pinned(tenants=frozenset({"a"})).tenants == frozenset({"a"})
