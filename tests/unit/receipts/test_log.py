"""Receipts shown in a log: inclusion, hybrid checkpoints, witnesses, compromised keys, records of the log itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tcd.errors import VerificationError
from tcd.receipts import (
    Anchor,
    HybridKey,
    Issuer,
    KeySet,
    PinnedKey,
    Receipt,
    Report,
    SigningKey,
    VerifyPolicy,
    canonical,
    verify_chain,
    verify_single,
)
from tcd.receipts.checkpoint import TlogProof
from tcd.receipts.errors import BadInclusion, BadSignature, Fork, SchemaMismatch, Truncated
from tcd.receipts.heads import Heads, check_tail
from tcd.receipts.keys import HYBRID, signer
from tcd.receipts.note import parse_note, write_note
from tcd.receipts.rotation import check_rotation, rotate_members
from tcd.receipts.rules import AllOf, AnyOf, OneOf, Rule, SignedWith, Witnessed, rule_from_json
from tests.unit.receipts.conftest import Session, logged
from tests.unit.receipts.simulator import TIME, LogSimulator, seed


@pytest.fixture
def log(session: Session) -> LogSimulator:
    session.decision()
    return logged(session, others=5, witnesses=3)


@pytest.fixture
def policy(log_policy: VerifyPolicy) -> VerifyPolicy:
    return log_policy


def verify(receipt: Receipt, policy: VerifyPolicy, proof: bytes | None, **options: Any) -> Report:
    return verify_single(
        receipt.body, head=receipt.head_hex, sig=receipt.sig_hex, policy=policy, proof=proof, **options
    )


def code(report: Report, name: str) -> str:
    return next(check.code for check in report.checks if check.name == name)


def lines(proof: bytes, keep: Sequence[int]) -> bytes:
    """The proof with some of its checkpoint's signature lines."""
    parsed = TlogProof.parse(proof)
    text, signatures = parse_note(parsed.checkpoint)
    return replace(parsed, checkpoint=write_note(text, [signatures[index] for index in keep])).write()


def test_a_receipt_in_the_log_passes_and_says_so(session: Session, log: LogSimulator, policy: VerifyPolicy) -> None:
    for place, receipt in enumerate(session.receipts):
        report = verify(receipt, policy, log.proof(5 + place))
        assert (report.ok, report.trust) == (True, "server")
        for name in ("inclusion", "checkpoint", "witness_quorum", "key_valid"):
            assert code(report, name) == "ok"


def test_every_line_that_the_policy_demands_is_needed(
    session: Session, log: LogSimulator, policy: VerifyPolicy
) -> None:
    receipt, proof = session.receipts[0], log.proof(5)
    assert verify(receipt, policy, lines(proof, [0, 1, 2, 3, 4])).ok
    for missing, name, expected in (
        (0, "checkpoint", "missing_signature"),
        (1, "checkpoint", "missing_signature"),
        (2, "witness_quorum", "no_quorum"),
        (3, "witness_quorum", "no_quorum"),
    ):
        report = verify(receipt, policy, lines(proof, [n for n in range(5) if n != missing]))
        assert (report.ok, code(report, name)) == (False, expected)
    only = verify(receipt, policy, lines(proof, [0, 1, 2, 2, 2]))
    assert code(only, "witness_quorum") == "no_quorum"
    two = log.policy(session.issuer.pinned(), threshold="2")
    assert verify(receipt, two, lines(proof, [0, 1, 2, 4])).ok
    assert two.digest != policy.digest


def test_a_log_that_is_not_pinned_is_not_believed(session: Session, log: LogSimulator) -> None:
    receipt = session.receipts[0]
    unpinned = VerifyPolicy(KeySet([session.issuer.pinned()]))
    report = verify(receipt, unpinned, log.proof(5))
    assert (report.ok, code(report, "checkpoint")) == (False, "unknown_key")
    other = LogSimulator(name="other", witnesses=0)
    other.add(session.receipts)
    pinned = VerifyPolicy(KeySet([session.issuer.pinned(), *log.pinned()]))
    assert code(verify(receipt, pinned, other.proof(0)), "checkpoint") == "missing_signature"


def test_a_proof_names_its_receipt(session: Session, log: LogSimulator, policy: VerifyPolicy) -> None:
    mine, other = session.receipts[0], session.receipts[1]
    assert verify(mine, policy, log.proof(5, extra=mine.head)).ok
    assert code(verify(mine, policy, log.proof(6, extra=other.head)), "inclusion") == "leaf_mismatch"
    assert code(verify(mine, policy, log.proof(6)), "inclusion") == "bad_inclusion"


def test_a_chain_is_in_the_log_in_its_order(session: Session, log: LogSimulator, policy: VerifyPolicy) -> None:
    receipts = session.receipts
    bodies, heads, sigs = [r.body for r in receipts], [r.head_hex for r in receipts], [r.sig_hex for r in receipts]
    proofs: list[bytes | None] = [log.proof(5 + place) for place in range(3)]

    def run(given: list[bytes | None]) -> Report:
        return verify_chain(bodies, heads=heads, sigs=sigs, proofs=given, policy=policy)

    assert run(proofs).ok
    report = run([proofs[0], proofs[2], proofs[2]])
    assert (report.code, report.first_bad) == ("log_chain_mismatch", 1)
    assert run([proofs[0], None, proofs[2]]).code == "skipped"
    shuffled = LogSimulator(witnesses=3)
    shuffled.add([receipts[0], receipts[2], receipts[1]])
    report = run([shuffled.proof(0), shuffled.proof(2), shuffled.proof(1)])
    assert (report.code, report.first_bad) == ("log_chain_mismatch", 2)


def test_key_compromise_drill(session: Session, log: LogSimulator) -> None:
    """The key is stolen when the log has 7 leaves: what was logged before still verifies, all else fails."""
    stolen = session.issuer.pinned(compromised_after_size=7)
    policy = log.policy(stolen)
    forged = session.decision()
    log.add([forged])
    for place, receipt in enumerate(session.receipts):
        report = verify(receipt, policy, log.proof(5 + place))
        assert (report.ok, code(report, "key_valid")) == ((True, "ok") if place < 2 else (False, "key_not_valid"))
        # nothing but the log shows when it was signed
        assert code(verify(receipt, policy, None), "key_valid") == "key_not_valid"
    new = Issuer(SigningKey(seed("next")), origin=session.issuer.origin)
    session.issuer = new
    after = session.decision()
    log.add([after])
    rotated = log.policy(stolen, new.pinned())
    assert verify(after, rotated, log.proof(len(log.tree) - 1)).ok
    assert verify(after, rotated, None).ok


def test_a_compromised_log_key_needs_a_quorum_that_saw_the_log_before(session: Session, log: LogSimulator) -> None:
    receipt = session.receipts[0]
    keys = KeySet([session.issuer.pinned(), *log.pinned(compromised_after_size=7)])
    witnessed = VerifyPolicy(keys, witnesses=log.witness_policy())
    assert verify(receipt, witnessed, log.proof(5, 7)).ok
    assert code(verify(receipt, witnessed, log.proof(5, 8)), "checkpoint") == "key_not_valid"
    assert code(verify(receipt, VerifyPolicy(keys), log.proof(5, 7)), "checkpoint") == "key_not_valid"


def test_a_retired_log_key_signs_no_later_checkpoint(session: Session, log: LogSimulator) -> None:
    receipt = session.receipts[0]
    for bound, fine in ((TIME * 1_000_000 - 1, False), ((TIME + 10) * 1_000_000, True)):
        keys = KeySet([session.issuer.pinned(), *log.pinned(not_after_us=bound)])
        assert verify(receipt, VerifyPolicy(keys), log.proof(5)).ok is fine
    keys = KeySet([session.issuer.pinned(), *log.pinned(not_before_us=(TIME + 10) * 1_000_000)])
    assert code(verify(receipt, VerifyPolicy(keys), log.proof(5)), "checkpoint") == "key_not_valid"


def _hybrid(session: Session) -> Receipt:
    key = signer(HYBRID, seed("h") * 2)
    session.issuer = Issuer(key, origin=session.issuer.origin)
    return session.decision()


def test_hybrid_receipts_and_the_floor(session: Session) -> None:
    classic, receipt = session.receipts[0], _hybrid(session)
    assert isinstance(signer(HYBRID, bytes(64)), HybridKey)
    keys = KeySet([session.issuer.pinned(), PinnedKey(SigningKey(seed("\1")).public, "receipt", "tcd.example")])
    assert len(receipt.sig) == 64 + 2420
    assert verify(receipt, VerifyPolicy(keys), None, verify_key=session.issuer.verify_key_hex).ok
    both = frozenset({"Ed25519", "ML-DSA-44"})
    assert verify(receipt, VerifyPolicy(keys, algorithms=both), None).ok
    floor = VerifyPolicy(KeySet([Session().issuer.pinned()]), algorithms=both)
    assert verify(classic, floor, None).code == "missing_signature"
    with pytest.raises(ValueError, match="unknown algorithms"):
        VerifyPolicy(keys, algorithms=frozenset({"RSA"}))


def test_rules_compose(session: Session, log: LogSimulator) -> None:
    receipt, proof = session.receipts[0], log.proof(5)
    both = SignedWith(frozenset({"Ed25519", "ML-DSA-44"}))
    cases: list[tuple[Rule, bytes | None, str]] = [
        (both, proof, "ok"),
        (both, None, "missing_signature"),
        (Witnessed(3), proof, "ok"),
        (Witnessed(4), proof, "no_quorum"),
        (AllOf((both, Witnessed(3))), proof, "ok"),
        (AllOf((both, Witnessed(4))), proof, "no_quorum"),
        (AnyOf((Witnessed(4), OneOf("typ", frozenset({"open"})))), None, "ok"),
        (AnyOf((Witnessed(4), OneOf("typ", frozenset({"close"})))), None, "policy"),
        (AnyOf(()), proof, "policy"),
        (AllOf(()), None, "ok"),
        (OneOf("guarantee", frozenset({"none"})), None, "policy"),
    ]
    digests = set()
    for rule, given, expected in cases:
        policy = log.policy(session.issuer.pinned(), rule=rule)
        report = verify(receipt, policy, given)
        assert (report.ok, code(report, "policy")) == (expected == "ok", expected)
        assert rule_from_json(rule.to_json()) == rule
        digests.add(policy.digest)
    assert len(digests) == len({str(rule.to_json()) for rule, _, _ in cases})


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        {"all": 1},
        {"signed_with": ["RSA"]},
        {"signed_with": []},
        {"witnessed": 0},
        {"witnessed": True},
        {"never": []},
        {"all": [], "any": []},
        {"one_of": {"member": "nonce", "values": ["a"]}},
        {"all": [{"all": [{"all": [{"all": [{"all": [{"all": [{"all": []}]}]}]}]}]}]},
    ],
)
def test_what_is_no_rule_is_refused(value: Any) -> None:
    with pytest.raises(VerificationError):
        rule_from_json(value)


def test_a_rotation_is_signed_by_both_keys(session: Session) -> None:
    new = signer(HYBRID, seed("n") * 2)
    old = session.issuer.pinned()
    members = rotate_members(origin=session.issuer.origin, old=old, new=new, from_us=1_760_000_001_000_000)
    receipt = session.issue("rotate", members)
    assert verify(receipt, VerifyPolicy(KeySet([old])), None).ok
    body = canonical.parse(receipt.body)
    pinned = check_rotation(body)
    assert (pinned.kid, pinned.alg, pinned.not_before_us) == (new.kid, HYBRID, 1_760_000_001_000_000)
    for change, error in (
        ({"proof": "00" * 2484}, BadSignature),
        ({"from_us": 5}, BadSignature),
        ({"kid": "0" * 32}, SchemaMismatch),
    ):
        with pytest.raises(error):
            check_rotation({**body, "rotate": {**body["rotate"], **change}})
    with pytest.raises(BadSignature):
        check_rotation({**body, "origin": "another.example"})
    with pytest.raises(SchemaMismatch):
        check_rotation(canonical.parse(session.receipts[0].body))


def test_a_heads_record_shows_that_the_tail_was_cut(session: Session) -> None:
    other = Session(name="s1")
    other.open()
    chains = [session.chain, other.chain]
    heads = Heads(chains)
    receipt = session.issue("heads", heads.members())
    body = canonical.parse(receipt.body)
    chain, newest = chains[0].id, Anchor(chains[0].seq - 1, chains[0].prev)
    proof = heads.prove(chain)
    check_tail(body, proof, chain=chain, newest=newest, held=newest)
    check_tail(body, proof, chain=chain, newest=newest, held=Anchor(newest.seq + 1, "11" * 32))
    with pytest.raises(Truncated):
        check_tail(body, proof, chain=chain, newest=newest, held=Anchor(newest.seq - 1, "11" * 32))
    with pytest.raises(Fork):
        check_tail(body, proof, chain=chain, newest=newest, held=Anchor(newest.seq, "11" * 32))
    for wrong in (Anchor(newest.seq + 1, newest.head), Anchor(newest.seq, "11" * 32)):
        with pytest.raises(BadInclusion):
            check_tail(body, proof, chain=chain, newest=wrong, held=newest)
    with pytest.raises(SchemaMismatch):
        check_tail(canonical.parse(session.receipts[0].body), proof, chain=chain, newest=newest, held=newest)
    with pytest.raises(ValueError, match="twice"):
        Heads([chains[0], chains[0]])
