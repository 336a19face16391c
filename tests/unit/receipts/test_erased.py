"""Chains and bundles with records whose bodies were erased: what is left is checked, and the answer says `erased`."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tcd.cli.main import app
from tcd.receipts import ChainState, KeySet, Receipt, VerifyPolicy, chain_id, jcs, verify_chain
from tcd.receipts.bundle import verify_bundle, write_bundle
from tcd.receipts.erased_by import ErasedBy
from tcd.receipts.erasure import ErasedBody, Left, erase_members
from tcd.receipts.records import open_plain_members
from tcd.receipts.verify_erased import verify_erased
from tests.unit.receipts.conftest import CONFIG, POLICY, Session, issuer
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


SHIFT = 2
GONE = (1, 2)
#: After the opening of a chain of its own.
ERASING = ChainState(chain_id("erase", "e"), 1, "ab" * 32)


def log_of(made: list[Receipt], *more: Receipt) -> LogSimulator:
    """Two strangers, the chain, then what is given."""
    log = LogSimulator(witnesses=0)
    log.add([issuer(7).issue(
        chain=ChainState(chain_id("session", f"stranger {n}")), typ="open", tenant="acme", config=CONFIG, policy=POLICY,
        members=open_plain_members(CONFIG), ts_us=1, nonce=bytes(16),
    ) for n in range(SHIFT)])  # fmt: skip
    log.add([*made, *more])
    return log


def erase_record(places: Sequence[int], heads: Sequence[bytes], **changes: Any) -> Receipt:
    members = erase_members(actor='ada + "bob"', reason="subject", places=places, heads=heads)
    return issuer().issue(**{
        "chain": ERASING, "typ": "erase", "tenant": "-", "config": CONFIG, "policy": POLICY, "members": members,
        "ts_us": 1_760_000_000_000_000, "nonce": bytes(16), **changes,
    })  # fmt: skip


def honest(made: list[Receipt], gone: Sequence[int] = GONE) -> Receipt:
    return erase_record([SHIFT + at for at in gone], [made[at].head for at in gone])


def bundled(
    made: list[Receipt], erasures: Sequence[Receipt], gone: Sequence[int] = GONE
) -> tuple[Any, LogSimulator, bytes]:
    """A bundle with these records beside it, all of one log."""
    log = log_of(made, *erasures)
    items: list[Receipt | Left] = [left_of(r) if at in gone else r for at, r in enumerate(made)]
    proofs = [log.proof(SHIFT + at) for at in range(len(made))]
    beside = [(record, log.proof(SHIFT + len(made) + at)) for at, record in enumerate(erasures)]
    raw = write_bundle(items, proofs=proofs, erasures=beside)
    return verify_bundle(raw, policy=VerifyPolicy(KeySet([issuer().pinned(), *log.pinned()]))), log, raw


def test_a_bundle_names_who_erased_a_body(made: list[Receipt]) -> None:
    record, later = honest(made), honest(made, (2,))
    report, *_ = bundled(made, [record, later])
    assert (report.ok, report.code, report.log) == (False, "erased", "ok")
    by = ErasedBy(record.head_hex, SHIFT + len(made), 1_760_000_000_000_000, 'ada + "bob"', "subject")
    # the first of two that name it
    assert report.erased_by == {1: by, 2: by}
    assert report.to_json()["erased_by"][0] == {"receipt": 1, **by.to_json()}
    # without it nothing is said of who it was
    bare, *_ = bundled(made, [])
    assert (bare.code, bare.erased_by, bare.to_json()["erased_by"]) == ("erased", {}, [])


def test_the_command_names_who_erased_a_body(tmp_path: Path, made: list[Receipt]) -> None:
    _, log, raw = bundled(made, [record := honest(made)])
    keys, file = tmp_path / "keys.json", tmp_path / "bundle.json"
    keys.write_text(json.dumps(KeySet([issuer().pinned(), *log.pinned()]).to_json()))
    file.write_bytes(raw)
    done = CliRunner().invoke(app, ["verify", "bundle", str(file), "--keyset", str(keys)])
    line = r'    erased by record 7 of 2025-10-09T08:53:20+00:00, actor "ada + \"bob\"", reason subject'
    line += f" ({record.head_hex})"
    assert (done.exit_code, done.stdout.splitlines().count(line)) == (1, 2), done.stdout
    changed = json.loads(raw)
    changed["erasures"][0]["sig"] = made[0].sig_hex
    file.write_bytes(jcs.encode(changed))
    done = CliRunner().invoke(app, ["verify", "bundle", str(file), "--keyset", str(keys)])
    assert (done.exit_code, "erased by" in done.stdout, "erase record: bad_signature" in done.stdout) == (
        1,
        False,
        True,
    )


def test_what_is_beside_as_an_erase_record_has_to_be_one_of_these_records(made: list[Receipt]) -> None:
    heads = [made[at].head for at in GONE]
    places = [SHIFT + at for at in GONE]
    key = issuer(9)
    wrong: dict[str, tuple[Receipt, str]] = {
        "another record": (
            erase_record(places, heads, typ="open", members=open_plain_members(CONFIG), chain=ChainState(ERASING.id)),
            "malformed_bundle",
        ),
        "it names none of these": (erase_record([0, 1], heads), "malformed_bundle"),
        "it names whole records only": (erase_record([SHIFT], heads), "malformed_bundle"),
        "it names what comes after it": (erase_record([*places, SHIFT + len(made) + 1], heads), "malformed_bundle"),
        "it was made for other heads": (erase_record(places, heads[::-1]), "malformed_bundle"),
        "a key that is not pinned": (
            key.issue(
                chain=ERASING, typ="erase", tenant="-", config=CONFIG, policy=POLICY,
                members=erase_members(actor="a", reason="age", places=places, heads=heads), ts_us=1, nonce=bytes(16),
            ),
            "unknown_key",
        ),
    }  # fmt: skip
    for name, (record, code) in wrong.items():
        report, *_ = bundled(made, [record])
        assert (report.ok, report.code, report.erased_by) == (False, code, {}), name
        report, *_ = bundled(made, [honest(made), record])
        assert (report.ok, report.code, report.erased_by) == (False, code, {}), name
        assert [one.ok for one in report.erasures] == [True, False]
    # of which not all are in the bundle: what is there has to be named by its place
    report, *_ = bundled(made, [erase_record([0, *places], [bytes(32), *heads])])
    assert (report.code, sorted(report.erased_by)) == ("erased", [1, 2])


def test_every_changed_byte_of_an_erase_record_is_noticed(made: list[Receipt]) -> None:
    log = log_of(made, record := honest(made))
    items: list[Receipt | Left] = [left_of(r) if at in GONE else r for at, r in enumerate(made)]
    proofs = [log.proof(SHIFT + at) for at in range(len(made))]
    policy = VerifyPolicy(KeySet([issuer().pinned(), *log.pinned()]))
    value = json.loads(write_bundle(items, proofs=proofs, erasures=[(record, log.proof(SHIFT + len(made)))]))
    rng = random.Random(7)  # noqa: S311 - seeded
    for name in ("body", "head", "sig"):
        text = value["erasures"][0][name]
        for at in rng.sample(range(len(text)), 8):
            other = rng.choice([c for c in "0123456789abcdef" if c != text[at]])
            changed = {**value["erasures"][0], name: f"{text[:at]}{other}{text[at + 1 :]}"}
            report = verify_bundle(jcs.encode({**value, "erasures": [changed]}), policy=policy)
            assert report.code not in {"ok", "erased"}, (name, at)
            assert report.erased_by == {}
    # a proof of an earlier moment is of the same log, but that is not shown
    early = {**value, "receipts": [{**one, "proof": log.proof(SHIFT + at, SHIFT + len(made)).decode()}
                                   for at, one in enumerate(value["receipts"])]}  # fmt: skip
    assert verify_bundle(jcs.encode(early), policy=policy).code == "malformed_bundle"


@pytest.mark.skipif(NODE is None, reason="node: the second verifier needs it")
def test_the_second_verifier_names_who_erased_a_body(tmp_path: Path, made: list[Receipt]) -> None:
    record = honest(made)
    report, log, _ = bundled(made, [record])
    keys, file = tmp_path / "keys.json", tmp_path / "receipts.json"
    keys.write_text(json.dumps(KeySet([issuer().pinned(), *log.pinned()]).to_json()))
    whole = {"receipt": record.head_hex, "receipt_body": record.body_text, "receipt_sig": record.sig_hex}

    def run(at: int, by: dict[str, Any]) -> Any:
        one = {"receipt": made[at].head_hex, "receipt_sig": made[at].sig_hex, "proof": log.proof(SHIFT + at).decode()}
        file.write_text(json.dumps([{**one, "erased": body_of(made[at]).members(), "erased_by": by}]))
        done = subprocess.run([str(NODE), str(VERIFIER), str(keys), str(file)], capture_output=True, check=False)
        return json.loads(done.stdout)

    by = {**whole, "proof": log.proof(SHIFT + len(made)).decode()}
    said = {"receipt": 0, **report.erased_by[1].to_json()}
    assert run(1, by) == {"ok": False, "code": "erased", "index": 0, "by": [said]}
    assert run(3, by)["code"] == "schema"
    assert run(1, {**by, "receipt_sig": made[0].sig_hex})["code"] == "bad_signature"
    assert run(1, {**by, "proof": log.proof(SHIFT, len(made)).decode()})["code"] != "erased"
    assert run(1, whole)["code"] == "schema"


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
