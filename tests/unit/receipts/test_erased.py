"""Chains and bundles with records whose bodies were erased: what is left is checked, and the answer says `erased`."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tcd.receipts import Receipt, VerifyPolicy, verify_chain
from tcd.receipts.bundle import verify_bundle, write_bundle
from tcd.receipts.erasure import ErasedBody, Left
from tcd.receipts.verify_erased import verify_erased
from tests.unit.receipts.conftest import Session, issuer
from tests.unit.receipts.simulator import LogSimulator

VERIFIER = Path(__file__).resolve().parents[3] / "docs" / "verifier" / "verify.mjs"
NODE = shutil.which("node")


def body_of(receipt: Receipt, **changes: str) -> ErasedBody:
    told = {"kid": receipt.kid, "suite": "Ed25519", "origin": "tcd.example", "tenant": receipt.tenant}
    return ErasedBody(**{**told, **changes})


def left_of(receipt: Receipt, **changes: str) -> Left:
    return Left(receipt.head, receipt.sig, receipt.seq, receipt.prev, body_of(receipt, **changes))


def chain(made: list[Receipt], gone: set[int], policy: VerifyPolicy, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "heads": [r.head_hex for r in made], "sigs": [r.sig_hex for r in made], "policy": policy, **changes
    }  # fmt: skip
    return verify_chain([body_of(r) if at in gone else r.body for at, r in enumerate(made)], **given)


@pytest.fixture
def made(session: Session) -> list[Receipt]:
    """An opening, three decisions, a close."""
    session.decision()
    session.decision()
    session.close()
    return session.receipts


@pytest.mark.parametrize("gone", [{0}, {1}, {1, 2}, {0, 1, 2, 3}, {4}, {0, 1, 2, 3, 4}, {0, 2, 4}])
def test_the_rest_of_a_chain_verifies(made: list[Receipt], policy: VerifyPolicy, gone: set[int]) -> None:
    report = chain(made, gone, policy)
    assert (report.ok, report.code, report.first_bad) == (False, "erased", min(gone))
    failed = {check.name for check in report.checks if check.status == "fail"}
    assert failed == {"erased"}


def test_a_chain_with_all_bodies_has_no_such_check(made: list[Receipt], policy: VerifyPolicy) -> None:
    report = chain(made, set(), policy)
    assert report.ok
    assert "erased" not in {check.name for check in report.checks}


def swap(items: list[Any], at: int, value: Any) -> list[Any]:
    return [*items[:at], value, *items[at + 1 :]]


@pytest.mark.parametrize(
    ("where", "code"),
    [("head", "prev_mismatch"), ("sig", "bad_signature"), ("short", "head_mismatch"), ("dropped", "seq_gap")],
)
def test_what_is_left_is_not_believed(made: list[Receipt], policy: VerifyPolicy, where: str, code: str) -> None:
    """Another failure comes before `erased`, wherever it is."""
    heads, sigs = [r.head_hex for r in made], [r.sig_hex for r in made]
    if where == "head":
        report = chain(made, {1}, policy, heads=swap(heads, 1, heads[2]))
    elif where == "sig":
        report = chain(made, {1}, policy, sigs=swap(sigs, 1, sigs[2]))
    elif where == "short":
        report = chain(made, {1}, policy, heads=swap(heads, 1, "ab"))
    else:
        report = chain([*made[:1], *made[2:]], {1}, policy)
    assert not report.ok
    assert code in {check.code for check in report.checks}
    assert report.code != "erased"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"kid": "0" * 32}, "unknown_key"), ({"origin": "other"}, "key_not_authorised"),
        ({"suite": "Ed25519+ML-DSA-44"}, "key_not_authorised"), ({}, "erased"),
    ],
)  # fmt: skip
def test_one_by_itself(made: list[Receipt], policy: VerifyPolicy, changes: dict[str, str], code: str) -> None:
    report = verify_erased(body_of(made[1], **changes), head=made[1].head_hex, sig=made[1].sig_hex, policy=policy)
    assert (report.ok, report.code) == (False, code)
    assert report.trust == ("server" if code == "erased" else "none")


def test_a_stolen_key_needs_the_log_to_say_that_the_receipt_is_older(session: Session, log: LogSimulator) -> None:
    receipt = session.receipts[1]
    for size, code in ((100, "erased"), (1, "key_not_valid")):
        policy = log.policy(session.issuer.pinned(compromised_after_size=size))
        proof = log.proof(3 + receipt.seq)
        for given, expected in ((proof, code), (None, "key_not_valid")):
            report = verify_erased(
                body_of(receipt), head=receipt.head_hex, sig=receipt.sig_hex, policy=policy, proof=given
            )
            assert expected in {check.code for check in report.checks}


def test_every_bit_of_head_and_signature_counts(made: list[Receipt], policy: VerifyPolicy) -> None:
    receipt = made[1]
    for text, name in ((receipt.head, "head"), (receipt.sig, "sig")):
        for at in range(8 * len(text)):
            flipped = bytearray(text)
            flipped[at >> 3] ^= 1 << (at & 7)
            given = {"head": receipt.head_hex, "sig": receipt.sig_hex, name: flipped.hex()}
            report = verify_erased(body_of(receipt), **given, policy=policy)
            assert report.code == "bad_signature", (name, at)


def test_a_bundle_says_so_and_a_worse_failure_comes_first(
    session: Session, log: LogSimulator, log_policy: VerifyPolicy
) -> None:
    made = session.receipts
    proofs = [log.proof(3 + receipt.seq) for receipt in made]
    items: list[Receipt | Left] = [left_of(r) if at in {0, 2} else r for at, r in enumerate(made)]
    report = verify_bundle(write_bundle(items, proofs=proofs), policy=log_policy)
    assert (report.ok, report.code, report.log) == (False, "erased", "ok")
    assert [r.code for r in report.receipts] == ["erased", "ok", "erased", "ok"]
    other = Session(issuer=issuer(9))
    other.open()
    items[2] = left_of(other.receipts[0], kid=made[2].kid)
    assert verify_bundle(write_bundle(items, proofs=proofs), policy=log_policy).code not in {"ok", "erased"}


@pytest.mark.skipif(NODE is None, reason="node: the second verifier needs it")
@pytest.mark.parametrize("gone", [{0}, {1, 2}, {0, 1, 2, 3, 4}, set()])
def test_the_second_verifier_agrees(tmp_path: Path, made: list[Receipt], policy: VerifyPolicy, gone: set[int]) -> None:
    keys, file = tmp_path / "keys.json", tmp_path / "receipts.json"
    keys.write_text(json.dumps(policy.keys.to_json()))

    def run(items: list[dict[str, Any]]) -> Any:
        file.write_text(json.dumps(items))
        done = subprocess.run([str(NODE), str(VERIFIER), str(keys), str(file)], capture_output=True, check=False)
        return json.loads(done.stdout)

    items = [
        {"receipt": r.head_hex, "receipt_sig": r.sig_hex}
        | ({"erased": body_of(r).members()} if at in gone else {"receipt_body": r.body_text})
        for at, r in enumerate(made)
    ]
    expected = "erased" if gone else "ok"
    assert run(items)["code"] == expected == chain(made, gone, policy).code
    for at in gone:
        altered = [{**item, "receipt_sig": made[at - 1].sig_hex} if n == at else item for n, item in enumerate(items)]
        assert run(altered)["code"] == "bad_signature"
    if 1 in gone and 3 not in gone:
        assert run([*items[:1], *items[2:]])["code"] == "seq_gap"
