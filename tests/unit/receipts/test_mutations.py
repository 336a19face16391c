"""The mutation table of the design: rows about logs, witnesses and post-quantum keys; and that no row is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tcd.receipts import (
    Anchor,
    HybridKey,
    Issuer,
    KeySet,
    MlDsaKey,
    PinnedKey,
    Receipt,
    Report,
    SigningKey,
    VerifyPolicy,
    canonical,
    verify_chain,
    verify_single,
)
from tcd.receipts.body import CONTEXT, head_of, signature_input
from tcd.receipts.bundle import verify_bundle, write_bundle
from tcd.receipts.checkpoint import LogHead, TlogProof
from tcd.receipts.edwards import SMALL_ORDER_Y, P
from tcd.receipts.errors import BadKey, Equivocation, InconsistentLog, MalformedKeyset, Rollback, Truncated
from tcd.receipts.heads import Heads, check_tail
from tcd.receipts.keys import HYBRID
from tcd.receipts.logcheck import log_verifier
from tcd.receipts.merkle import MerkleTree, check_consistency, leaf_hash, node_hash
from tcd.receipts.mldsa import MlDsaSecret
from tcd.receipts.note import parse_note, sign_note, write_note
from tcd.receipts.seen import check_seen
from tcd.receipts.witnessing import AddCheckpoint, Seen, Witness
from tcd.risk_av import Terms
from tests.unit.receipts.conftest import Session
from tests.unit.receipts.simulator import TIME, LogSimulator, seed

TESTS = Path(__file__).resolve().parents[2]


def test_every_row_of_the_table_has_a_test() -> None:
    names = [
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def test_rows?_((?:\d+_(?:and_|to_)?)+)", path.read_text(), re.MULTILINE)
    ]
    rows = {int(number) for name in names for number in re.findall(r"\d+", name)}
    assert set(range(1, 31)) <= rows, sorted(set(range(1, 31)) - rows)


@pytest.fixture
def policy(log_policy: VerifyPolicy) -> VerifyPolicy:
    return log_policy


def verify(receipt: Receipt, policy: VerifyPolicy, proof: bytes | None = None, **options: Any) -> Report:
    given = {"head": receipt.head_hex, "sig": receipt.sig_hex, **options}
    return verify_single(receipt.body, policy=policy, proof=proof, **given)


def code(report: Report, name: str) -> str:
    return next(check.code for check in report.checks if check.name == name)


def test_row_10_all_small_order_keys_and_points(session: Session, log: LogSimulator, policy: VerifyPolicy) -> None:
    """14 encodings as keys of a key set, as hints and as R; none is ever a trusted key."""
    numbers = [0, 1, P - 1, P, P + 1, *sorted(SMALL_ORDER_Y - {0, 1, P - 1})]
    encodings = sorted({n.to_bytes(32, "little") for n in [*numbers, *(n | 1 << 255 for n in numbers)]})
    assert len(encodings) == 14
    receipt = session.receipts[0]
    template = session.issuer.pinned().to_json()
    for encoded in encodings:
        with pytest.raises(BadKey, match="public key"):
            KeySet.from_json({"v": "tcd.keyset/1", "keys": [{**template, "pub": encoded.hex()}]})
        assert verify(receipt, policy, verify_key=encoded.hex()).code == "bad_key"
        assert verify(receipt, policy, sig=(encoded + receipt.sig[32:]).hex()).code == "bad_signature"


def _hybrid(name: str, session: Session) -> tuple[Issuer, Receipt]:
    issuer = Issuer(HybridKey(seed(name) + seed(name + "/ml")), origin="tcd.example")
    session.issuer = issuer
    return issuer, session.decision()


def test_row_11_the_post_quantum_part_stripped_swapped_or_of_another_context(session: Session) -> None:
    issuer, receipt = _hybrid("h", session)
    _, other = _hybrid("h", session)
    policy = VerifyPolicy(KeySet([issuer.pinned()]))
    assert verify(receipt, policy).ok
    message = signature_input(suite=HYBRID, kid=receipt.kid, head=receipt.head)
    secret = MlDsaSecret(seed("h/ml"))
    classic = receipt.sig[:64]
    for sig, expected in (
        (classic, "missing_signature"),
        (receipt.sig[64:], "missing_signature"),
        (classic + other.sig[64:], "bad_signature"),
        (other.sig[:64] + receipt.sig[64:], "bad_signature"),
        (classic + secret.sign(message, b""), "bad_signature"),
        (classic + secret.sign(message, CONTEXT + b"\0"), "bad_signature"),
        (classic + secret.sign(receipt.head, CONTEXT), "bad_signature"),
        (receipt.sig + b"\0", "bad_signature"),
        (classic + bytes(3309), "bad_signature"),  # the length of ML-DSA-65
        (classic + bytes(4627), "bad_signature"),  # the length of ML-DSA-87
    ):
        assert verify(receipt, policy, sig=sig.hex()).code == expected
    for alg in ("ML-DSA-65", "Ed25519+ML-DSA-65", "ML-DSA-44"):
        body = canonical.encode({**canonical.parse(receipt.body), "suite": alg})
        report = verify_single(body, head=head_of(body).hex(), sig=receipt.sig_hex, policy=policy)
        assert report.code == "version"
        with pytest.raises((MalformedKeyset, ValueError), match=r"algorithm|not one of"):
            KeySet.from_json({"v": "tcd.keyset/1", "keys": [{**issuer.pinned().to_json(), "alg": alg}]})


def test_row_11_a_hybrid_body_signed_with_a_classic_key_is_refused(session: Session) -> None:
    """The Ed25519 half of a hybrid key, pinned by itself, does not stand for the whole."""
    issuer, receipt = _hybrid("h", session)
    half = PinnedKey(issuer.pinned().public[:32], "receipt", "tcd.example")
    assert verify(receipt, VerifyPolicy(KeySet([half])), sig=receipt.sig[:64].hex()).code == "unknown_key"
    relabelled = canonical.encode({**canonical.parse(receipt.body), "suite": "Ed25519"})
    head = head_of(relabelled)
    message = signature_input(suite="Ed25519", kid=receipt.kid, head=head)
    sig = SigningKey(seed("h")).sign(message).hex()
    report = verify_single(relabelled, head=head.hex(), sig=sig, policy=VerifyPolicy(KeySet([issuer.pinned()])))
    assert (report.ok, code(report, "key_valid")) == (False, "key_not_authorised")


def test_row_15_a_truncated_tail_against_a_heads_record(session: Session, log: LogSimulator) -> None:
    heads = Heads([session.chain])
    record = Session(name="admin", issuer=session.issuer)
    record.open()
    body = canonical.parse(record.issue("heads", heads.members()).body)
    newest = Anchor(session.receipts[-1].seq, session.receipts[-1].head_hex)
    chain, proof = session.receipts[0].chain, heads.prove(session.receipts[0].chain)
    check_tail(body, proof, chain=chain, newest=newest, held=newest)
    for cut in range(1, len(session.receipts)):
        last = session.receipts[-1 - cut]
        with pytest.raises(Truncated):
            check_tail(body, proof, chain=chain, newest=newest, held=Anchor(last.seq, last.head_hex))


def _reproved(proof: bytes, **members: Any) -> bytes:
    return replace(TlogProof.parse(proof), **members).write()


def test_row_17_every_wrong_inclusion_proof(session: Session, log: LogSimulator, policy: VerifyPolicy) -> None:
    receipt, place = session.receipts[1], 4
    good = TlogProof.parse(log.proof(place))
    assert verify(receipt, policy, good.write()).ok
    path = good.path
    bad: list[dict[str, Any]] = [
        *({"index": place + step} for step in (-1, 1, 2, -2, 4)),
        {"index": place ^ 2},
        *({"checkpoint": log.checkpoint(size)} for size in range(1, len(log.tree)) if size != len(log.tree)),
        *({"path": (*path[:at], *path[at + 1 :])} for at in range(len(path))),
        *({"path": (*path[:at], bytes(32), *path[at:])} for at in range(len(path) + 1)),
        *({"path": (*path[:at], path[at + 1], path[at], *path[at + 2 :])} for at in range(len(path) - 1)),
        *({"path": (*path[:at], bytes(32), *path[at + 1 :])} for at in range(len(path))),
        {"path": ()},
        {"path": (log.tree.root(), *path)},
        {"path": (*path, log.tree.root())},
    ]
    for members in bad:
        report = verify(receipt, policy, _reproved(good.write(), **members))
        assert (report.ok, code(report, "inclusion")) == (False, "bad_inclusion"), members
    for place_of_another in (0, 3, 5):
        assert code(verify(receipt, policy, log.proof(place_of_another)), "inclusion") == "bad_inclusion"
    garbage = good.write().replace(b"index", b"AAAA\nindex", 1)
    assert code(verify(receipt, policy, garbage), "inclusion") == "malformed_note"


def test_row_17_a_node_is_no_leaf_and_nothing_is_in_an_empty_log(session: Session, policy: VerifyPolicy) -> None:
    """Second preimage: the hash of two leaves, given as the entry, is hashed again with another prefix."""
    receipt = session.receipts[0]
    other = seed("x")
    root = node_hash(leaf_hash(receipt.head), leaf_hash(other))
    assert leaf_hash(leaf_hash(receipt.head) + leaf_hash(other)) != root
    log = LogSimulator(witnesses=2)
    log.tree.append(leaf_hash(receipt.head) + leaf_hash(other))
    report = verify(receipt, policy, _reproved(log.proof(0), path=(leaf_hash(other),)))
    assert code(report, "inclusion") == "bad_inclusion"
    empty = TlogProof(0, (), LogSimulator(witnesses=2).checkpoint(0)).write()
    assert code(verify(receipt, policy, empty), "inclusion") == "bad_inclusion"


def test_row_18_every_inconsistent_log() -> None:
    tree = MerkleTree(seed(str(number)) for number in range(13))
    rewritten = MerkleTree(seed(str(number) if number != 2 else "other") for number in range(13))
    path = tree.consistency(7)
    check_consistency(7, 13, tree.root(7), tree.root(), path)
    cases = [
        (13, 7, tree.root(), tree.root(7), path),  # shrunk
        (7, 13, tree.root(7), rewritten.root(), rewritten.consistency(7)),  # a leaf rewritten, the root recomputed
        (7, 7, tree.root(7), rewritten.root(7), ()),  # one size, two roots
        (0, 13, seed("no root"), tree.root(), ()),
        (0, 13, tree.root(0), tree.root(), path),  # a proof that is not needed
        (7, 7, tree.root(7), tree.root(7), path),
        (7, 13, tree.root(7), tree.root(), ()),
        (7, 13, tree.root(7), tree.root(), path[::-1]),
        (6, 13, tree.root(7), tree.root(), path),
        *((7, 13, tree.root(7), tree.root(), (*path[:at], bytes(32), *path[at + 1 :])) for at in range(len(path))),
    ]
    for case in cases:
        with pytest.raises(InconsistentLog):
            check_consistency(*case)


def test_row_19_the_valid_proof_of_another_receipt(session: Session, log: LogSimulator, policy: VerifyPolicy) -> None:
    mine, other = session.receipts[0], session.receipts[1]
    named = log.proof(4, extra=other.head)
    assert verify(other, policy, named).ok
    assert code(verify(mine, policy, named), "inclusion") == "leaf_mismatch"
    assert code(verify(mine, policy, log.proof(4)), "inclusion") == "bad_inclusion"
    # the attacker names the victim's head: the leaf is computed from the body all the same
    assert code(verify(mine, policy, log.proof(4, extra=mine.head)), "inclusion") == "bad_inclusion"


def test_row_20_the_chain_proves_one_record_the_log_has_another(session: Session, policy: VerifyPolicy) -> None:
    twin = Session(issuer=session.issuer, receipts=list(session.receipts[:1]))
    twin.count = 70
    twin.fold(0.4)
    other = twin.decision()
    assert (other.seq, other.chain) == (session.receipts[1].seq, session.receipts[1].chain)
    log = LogSimulator(witnesses=2)
    log.add([session.receipts[0], other])
    receipts = session.receipts[:2]
    report = verify_chain(
        [r.body for r in receipts],
        heads=[r.head_hex for r in receipts],
        sigs=[r.sig_hex for r in receipts],
        proofs=[log.proof(0), log.proof(1)],
        policy=policy,
    )
    assert (report.ok, report.code, report.first_bad) == (False, "log_chain_mismatch", 1)


def test_row_21_other_origins(session: Session, log: LogSimulator, policy: VerifyPolicy) -> None:
    receipt, proof = session.receipts[0], TlogProof.parse(log.proof(3))
    head = LogHead.from_text(parse_note(proof.checkpoint)[0])
    for origin in ("other.example", "tcd.example ", "tcd.example+x", "tcd.exampl\u0435", "TCD.example"):
        text = replace(head, origin=origin).text()
        # with the same key, by a log that changed its name
        line = replace(sign_note(text, "tcd.example", log.key))
        forged = replace(proof, checkpoint=write_note(text, [line])).write()
        report = verify(receipt, policy, forged)
        assert (report.ok, code(report, "checkpoint")) == (False, "wrong_origin")
    renamed = proof.checkpoint.replace("\u2014 tcd.example ".encode(), "\u2014 other.example ".encode())
    assert (
        code(verify(receipt, policy, replace(proof, checkpoint=renamed).write()), "checkpoint") == "missing_signature"
    )


def _checkpoint(log: LogSimulator, change: Callable[[list[str]], Any]) -> bytes:
    """A checkpoint whose text was changed and then signed by the log."""
    lines = LogHead(log.origin, len(log.tree), log.tree.root()).text().split("\n")
    change(lines)
    text = "\n".join(lines)
    return write_note(text, [sign_note(text, log.origin, log.key)])


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "change",
    [
        *(
            lambda lines, size=size: lines.__setitem__(1, size)
            for size in ("+7", "07", "7_0", " 7", "7 ", "7.0", "-7", "")
        ),
        *(lambda lines, n=n: lines.__setitem__(2, base64.b64encode(bytes(n)).decode()) for n in (0, 31, 33, 64)),
        lambda lines: lines.__setitem__(2, ROOT.rstrip("=")),
        lambda lines: lines.__setitem__(2, ROOT[:-2] + "B="),
        lambda lines: lines.__setitem__(2, ROOT.replace("A", "-", 1)),
        lambda lines: lines.__delitem__(2),
        lambda lines: lines.insert(1, ""),
    ],
)
def test_row_22_malformed_checkpoints_though_the_log_signed_them(
    session: Session, log: LogSimulator, policy: VerifyPolicy, change: Callable[[list[str]], Any]
) -> None:
    forged = replace(TlogProof.parse(log.proof(3)), checkpoint=_checkpoint(log, change)).write()
    report = verify(session.receipts[0], policy, forged)
    assert (report.ok, code(report, "checkpoint")) in {(False, "malformed_checkpoint"), (False, "skipped")}
    assert code(report, "inclusion") == "malformed_checkpoint"


def test_row_22_signature_lines(session: Session, log: LogSimulator, policy: VerifyPolicy) -> None:
    receipt, proof = session.receipts[0], TlogProof.parse(log.proof(3))
    text, lines = parse_note(proof.checkpoint)
    stranger = sign_note(text, "stranger.example", SigningKey(seed("s")))
    for given, name, expected in (
        ([stranger] * 3, "checkpoint", "missing_signature"),
        ([*lines, *[stranger] * 13], "inclusion", "malformed_note"),
        ([*lines[:3], lines[2]], "witness_quorum", "no_quorum"),
        ([*lines[:2], lines[2], lines[2], lines[2]], "witness_quorum", "no_quorum"),
    ):
        report = verify(receipt, policy, replace(proof, checkpoint=write_note(text, given)).write())
        assert (report.ok, code(report, name)) == (False, expected)
    no_blank = proof.checkpoint.replace(b"\n\n", b"\n")
    assert code(verify(receipt, policy, replace(proof, checkpoint=no_blank).write()), "inclusion") == "malformed_note"
    sixteen = replace(proof, checkpoint=write_note(text, [*lines, *[stranger] * 12])).write()
    assert verify(receipt, policy, sixteen).ok


def test_row_23_an_older_checkpoint_after_a_newer_one(
    session: Session, log: LogSimulator, policy: VerifyPolicy
) -> None:
    newest = verify_bundle(write_bundle(session.receipts[:1], proofs=[log.proof(3)]), policy=policy).newest
    assert newest is not None
    older = write_bundle(session.receipts[:1], proofs=[log.proof(3, 5)])
    assert verify_bundle(older, policy=policy, seen=dict([newest])).code == "rollback"
    with pytest.raises(Rollback):
        check_seen(newest[1], LogHead(log.origin, 5, log.tree.root(5)), ())
    witness = Witness("w", [SigningKey(seed("w"))], _verifiers(log))
    verdict = witness.judge(AddCheckpoint(0, (), log.checkpoint(5)).write(), seen=lambda _: newest[1], time=TIME)
    assert verdict.status == 409


def _verifiers(log: LogSimulator) -> list[Any]:
    return [log_verifier(key) for key in log.pinned()]


def test_row_24_two_checkpoints_of_one_size_are_evidence(session: Session, log: LogSimulator) -> None:
    fork = LogSimulator(witnesses=0)
    for number in range(len(log.tree)):
        fork.tree.append(seed(f"fork{number}"))
    size = len(log.tree)
    known = Seen(size, log.tree.root(), log.checkpoint())
    verdict = Witness("w", [SigningKey(seed("w"))], _verifiers(log)).judge(
        AddCheckpoint(size, (), fork.checkpoint()).write(), seen=lambda _: known, time=TIME
    )
    assert (verdict.status, verdict.new, verdict.evidence[0]) == (409, None, known.note)
    heads = [LogHead.from_text(parse_note(note)[0]) for note in verdict.evidence]
    assert heads[0].size == heads[1].size
    assert heads[0].root != heads[1].root
    with pytest.raises(Equivocation):
        check_seen(known, heads[1], None)


def test_row_26_an_e_process_that_the_issuer_altered_and_signed(session: Session) -> None:
    policy = VerifyPolicy(KeySet([session.issuer.pinned()]))
    before = session.controller.state("acme").snapshot.to_json()
    session.fold(0.3)
    receipt = session.decision()
    terms = Terms.of(session.controller.params).to_json()
    assert verify(receipt, policy, previous_eproc=before, terms=terms).ok
    honest = json.loads(receipt.body)
    key = SigningKey(bytes.fromhex(_seed_of(session)))
    changes: dict[str, Any] = {
        "wealth": "3fe0000000000000",
        "alloc": "3fe0000000000000",
        "spent": "3fe0000000000000",
        "x": "3fb999999999999a",
        "e": "3ff8000000000000",
        "s": "3ff8000000000000",
        "c": "3ff8000000000000",
        "e_exp2": honest["eproc"]["e_exp2"] + 1,
        "s_exp2": honest["eproc"]["s_exp2"] - 1,
        "threshold": "4044000000000000",
        "trigger": not honest["eproc"]["trigger"],
        "params": "sha256:" + "1" * 64,
        "step": honest["eproc"]["step"] + 1,
        "claim": honest["eproc"]["claim"] + 1,
        "prev": "sha256:" + "2" * 64,
        "stream": "sha256:" + "3" * 64,
        "index": honest["eproc"]["index"] + 1,
    }
    for name, value in changes.items():
        assert honest["eproc"][name] != value, name
        body = canonical.encode({**honest, "eproc": {**honest["eproc"], name: value}})
        head = head_of(body)
        sig = key.sign(signature_input(suite="Ed25519", kid=key.kid, head=head)).hex()
        report = verify_single(body, head=head.hex(), sig=sig, policy=policy, previous_eproc=before, terms=terms)
        assert (report.ok, code(report, "signature"), code(report, "eproc")) == (False, "ok", "replay_mismatch"), name


def _seed_of(session: Session) -> str:
    """Seed of the issuer of the fixtures, who is the attacker here."""
    made = hashlib.sha256(b"\1").digest()
    assert SigningKey(made).kid == session.issuer.kid
    return made.hex()


def test_ml_dsa_keys_of_a_log_do_not_sign_receipts() -> None:
    with pytest.raises(ValueError, match="purpose"):
        PinnedKey(MlDsaKey(seed("m")).public, "receipt", "o", alg="ML-DSA-44")
