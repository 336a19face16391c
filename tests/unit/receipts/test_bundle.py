"""Bundles: what they show, every bit of them, what a verifier remembers between them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tcd.errors import InvalidRequest, VerificationError
from tcd.receipts import Anchor, KeySet, VerifyPolicy, jcs
from tcd.receipts.bundle import MAX_BUNDLE, BundleReport, read_bundle, verify_bundle, write_bundle
from tcd.receipts.checkpoint import LogHead
from tcd.receipts.errors import Equivocation, InconsistentLog, MalformedBundle, MalformedNote, Rollback
from tcd.receipts.policy_file import policy_from_json
from tcd.receipts.rules import SignedWith, Witnessed
from tcd.receipts.seen import Memory, check_seen
from tcd.receipts.witnessing import Seen
from tcd.risk_av import Terms
from tests.unit.receipts.conftest import COMPONENTS, E_OBJECT, REQUEST, SIGNALS, Session, logged, salt
from tests.unit.receipts.simulator import LogSimulator, seed

SEGMENTS = [{"name": n, "salt": salt(i).hex(), "values": v} for i, (n, v) in enumerate(SIGNALS.items())]


@pytest.fixture
def session() -> Session:
    """Three records, of which the decision folds a step whose evidence is kept."""
    made = Session()
    made.open()
    for p in (0.5, 0.01):
        made.fold(p)
    made.before = made.controller.state("acme").snapshot.to_json()
    made.fold(0.3)
    made.decision()
    return made


@pytest.fixture
def log(session: Session) -> LogSimulator:
    session.close()
    return logged(session, others=3, witnesses=2)


@pytest.fixture
def policy(log_policy: VerifyPolicy) -> VerifyPolicy:
    return log_policy


@pytest.fixture
def bundle(session: Session, log: LogSimulator) -> bytes:
    """Three records, everything disclosed of the decision."""
    disclosed: list[dict[str, Any]] = [
        {},
        {
            "req": REQUEST,
            "comp": COMPONENTS,
            "e": E_OBJECT,
            "witness": SEGMENTS,
            "terms": Terms.of(session.controller.params).to_json(),
            "previous_eproc": session.before,
        },
        {},
    ]
    proofs = [log.proof(3 + place, extra=receipt.head) for place, receipt in enumerate(session.receipts)]
    return write_bundle(session.receipts, proofs=proofs, disclosures=disclosed)


def code(report: BundleReport, number: int, name: str) -> str:
    return next(check.code for check in report.receipts[number].checks if check.name == name)


def test_an_honest_bundle_shows_a_whole_chain(bundle: bytes, policy: VerifyPolicy, log: LogSimulator) -> None:
    report = verify_bundle(bundle, policy=policy)
    assert (report.ok, report.code, report.complete, report.log) == (True, "ok", True, "ok")
    for name in ("concordance", "witness", "eproc", "chain", "inclusion", "checkpoint", "witness_quorum"):
        assert code(report, 1, name) == "ok"
    assert report.newest is not None
    assert (report.newest[0], report.newest[1].size) == (log.origin, 6)
    assert report.to_json()["ok"] is True


def _opened(raw: bytes, policy: VerifyPolicy) -> bool:
    try:
        return verify_bundle(raw, policy=policy).ok
    except (VerificationError, InvalidRequest):
        return False


def _flips(raw: bytes, policy: VerifyPolicy, positions: range) -> None:
    for position in positions:
        flipped = bytearray(raw)
        flipped[position // 8] ^= 1 << position % 8
        assert not _opened(bytes(flipped), policy), (position, bytes(flipped[position // 8 - 20 : position // 8 + 20]))


def test_row_1_a_seeded_stride_of_bits_of_a_bundle(bundle: bytes, policy: VerifyPolicy) -> None:
    assert _opened(bundle, policy)
    _flips(bundle, policy, range(3, len(bundle) * 8, 997))


@pytest.mark.long
def test_row_1_every_bit_of_a_bundle(bundle: bytes, policy: VerifyPolicy) -> None:
    _flips(bundle, policy, range(len(bundle) * 8))


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.long)])
def test_row_1_bits_of_a_small_bundle(session: Session, stride: int) -> None:
    """One `open` record with its proof under an Ed25519 checkpoint, nothing left out."""
    log = LogSimulator(witnesses=0)
    log.signer = type(log.signer)(log.origin, [log.key])
    log.tree.append(seed("x"))
    log.add(session.receipts[:1])
    policy = VerifyPolicy(KeySet([session.issuer.pinned(), *log.pinned()]))
    raw = write_bundle(session.receipts[:1], proofs=[log.proof(1, extra=session.receipts[0].head)])
    assert _opened(raw, policy)
    _flips(raw, policy, range(0, len(raw) * 8, stride))


def _changed(raw: bytes, change: Callable[[Any], Any]) -> bytes:
    value = json.loads(raw)
    change(value)
    return jcs.encode(value)


def _eproc(bundle: Any) -> Any:
    """The decision's own snapshot, which with other terms is no replay of itself either."""
    bundle["receipts"][1]["terms"]["from_index"] = 3
    return json.loads(bundle["receipts"][1]["body"])["eproc"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda b: b["receipts"][1]["req"].update(session="s1"), "concordance"),
        (lambda b: b["receipts"][1]["comp"]["invertibility"].update(severity=0.25), "concordance"),
        (lambda b: b["receipts"][1]["witness"][0]["values"].__setitem__(0, -0.5), "witness_mismatch"),
        (lambda b: b["receipts"][1]["terms"].update(from_index=3), "replay_mismatch"),
        (lambda b: b["receipts"][1]["previous_eproc"].update(claim=3), "replay_mismatch"),
        (lambda b: b["receipts"][1].update(previous_eproc=_eproc(b)), "replay_mismatch"),
        (lambda b: b["receipts"][1].pop("proof"), "skipped"),
        (lambda b: b["receipts"].pop(0), "seq_gap"),
        (lambda b: b["receipts"].pop(1), "seq_gap"),
        (lambda b: b.update(end={"seq": 3, "head": "0" * 64}), "truncated"),
        (lambda b: b.update(end={"seq": 2, "head": "0" * 64}), "fork"),
        (lambda b: b["receipts"][0].update(proof=b["receipts"][1]["proof"]), "leaf_mismatch"),
        (lambda b: b.update(consistency=[{"old": 2, "size": 5, "path": []}]), "malformed_bundle"),
        (lambda b: b.update(consistency=[{"old": 6, "size": 6, "path": ["00" * 32]}]), "inconsistent_log"),
    ],
)
def test_a_changed_bundle_says_what_is_wrong(
    bundle: bytes, policy: VerifyPolicy, change: Callable[[Any], Any], expected: str
) -> None:
    report = verify_bundle(_changed(bundle, change), policy=policy)
    assert (report.ok, report.newest) == (False, None)
    assert expected in {report.code, *(c.code for r in (*report.receipts, report.chain) for c in r.checks)}


def test_a_cut_bundle_says_that_it_is_not_complete(session: Session, policy: VerifyPolicy, log: LogSimulator) -> None:
    proofs = [log.proof(3 + place) for place in range(3)]
    cut = verify_bundle(write_bundle(session.receipts[:2], proofs=proofs[:2]), policy=policy)
    assert (cut.ok, cut.complete) == (True, False)
    middle = verify_bundle(write_bundle(session.receipts[1:], proofs=proofs[1:]), policy=policy)
    assert (middle.ok, middle.complete) == (True, False)
    last = session.receipts[-1]
    ended = write_bundle(session.receipts, proofs=proofs, end=Anchor(last.seq, last.head_hex))
    assert verify_bundle(ended, policy=policy).complete
    with pytest.raises(InvalidRequest):
        verify_bundle(write_bundle(session.receipts[::-1], proofs=proofs), policy=policy)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"v":"' + b"\\" * 100_001,
        b'"' * 100_001,
        b"1" * 10_000,
        b'{"v":"tcd.bundle/1","receipts":[]}',
        b"NaN",
        b" " * (MAX_BUNDLE + 1),
    ],
)
def test_what_is_no_bundle_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedBundle):
        read_bundle(raw)


def test_other_encodings_of_a_bundle_are_refused(bundle: bytes) -> None:
    value = json.loads(bundle)
    others = (
        bundle + b"\n",
        json.dumps(value).encode(),
        bundle.replace(b'"v":"tcd.bundle/1"', b'"v":"tcd.bundle/1","v":"tcd.bundle/1"'),
        _changed(bundle, lambda b: b.update(more=1)),
        _changed(bundle, lambda b: b["receipts"][0].update(more=1)),
        _changed(bundle, lambda b: b["receipts"][0].update(sig="zz")),
        _changed(bundle, lambda b: b.update(v="tcd.bundle/2")),
    )
    for other in others:
        with pytest.raises(MalformedBundle):
            read_bundle(other)


def _later(session: Session, log: LogSimulator, place: int) -> bytes:
    return write_bundle(session.receipts[place : place + 1], proofs=[log.proof(3 + place)])


def test_a_verifier_that_remembers_refuses_older_and_other_logs(
    session: Session, log: LogSimulator, policy: VerifyPolicy, bundle: bytes
) -> None:
    first = verify_bundle(bundle, policy=policy)
    assert first.newest is not None
    seen = dict([first.newest])
    assert verify_bundle(bundle, policy=policy, seen=seen).ok
    old = write_bundle(session.receipts[:1], proofs=[log.proof(3, 5)])
    assert verify_bundle(old, policy=policy, seen=seen).code == "rollback"
    assert verify_bundle(old, policy=policy).ok
    fork = LogSimulator(witnesses=2)
    for item in ("a", "b", "c"):
        fork.tree.append(seed(item))
    fork.add(session.receipts)
    two = verify_bundle(_later(session, fork, 0), policy=policy, seen=seen)
    assert (two.ok, two.code, two.log) == (False, "equivocation", "equivocation")
    log.tree.append(seed("more"))
    larger = _later(session, log, 0)
    assert verify_bundle(larger, policy=policy, seen=seen).code == "inconsistent_log"
    shown = _changed(
        larger,
        lambda b: b.update(
            consistency=[{"old": 6, "size": 7, "path": [item.hex() for item in log.tree.consistency(6, 7)]}]
        ),
    )
    good = verify_bundle(shown, policy=policy, seen=seen)
    assert (good.ok, good.newest is not None and good.newest[1].size) == (True, 7)
    assert verify_bundle(shown, policy=policy).ok


def test_two_histories_in_one_bundle_are_found(session: Session, log: LogSimulator, policy: VerifyPolicy) -> None:
    fork = LogSimulator(witnesses=2)
    for item in ("a", "b", "c"):
        fork.tree.append(seed(item))
    fork.add(session.receipts)
    raw = write_bundle(session.receipts[:2], proofs=[log.proof(3), fork.proof(4)])
    report = verify_bundle(raw, policy=policy)
    assert (report.ok, report.log) == (False, "equivocation")


def test_what_was_seen_is_stored_and_compared(log: LogSimulator) -> None:
    head = LogHead(log.origin, 6, log.tree.root())
    memory = Memory({log.origin: Seen(6, head.root, log.checkpoint())}, 4)
    assert Memory.from_json(json.loads(json.dumps(memory.to_json()))) == memory
    check_seen(None, head, None)
    check_seen(memory.logs[log.origin], head, None)
    for other, error in (
        (replace(head, size=5), Rollback),
        (replace(head, root=bytes(32)), Equivocation),
        (replace(head, size=7), InconsistentLog),
    ):
        with pytest.raises(error):
            check_seen(memory.logs[log.origin], other, None)
    bads: list[Any] = [{}, {"v": "tcd.seen/1", "logs": [{"origin": "o"}]}, []]
    for bad in bads:
        with pytest.raises(MalformedNote):
            Memory.from_json(bad)


def test_a_policy_file_says_what_is_demanded(session: Session, log: LogSimulator) -> None:
    keys = KeySet([session.issuer.pinned(), *log.pinned()])
    rule = SignedWith(frozenset({"Ed25519", "ML-DSA-44"}))
    obj = {
        "v": "tcd.verify-policy/1",
        "require": ["signature", "inclusion"],
        "require_chain": ["tail"],
        "origins": [log.origin],
        "algorithms": ["Ed25519"],
        "log_algorithms": ["Ed25519", "ML-DSA-44"],
        "max_future_us": 5,
        "witnesses": log.witness_policy().write(),
        "rule": rule.to_json(),
    }
    made = policy_from_json(obj, keys, now_us=7)
    assert (made.rule, made.now_us, made.max_future_us) == (rule, 7, 5)
    assert made.require == frozenset({"signature", "inclusion"})
    assert policy_from_json({"v": "tcd.verify-policy/1"}, keys).digest == VerifyPolicy(keys).digest
    assert policy_from_json({"v": "tcd.verify-policy/1", "rule": {"witnessed": 2}}, keys).rule == Witnessed(2)
    changes: list[dict[str, Any]] = [
        {"v": "tcd.verify-policy/2"},
        {"more": 1},
        {"require": ["everything"]},
        {"algorithms": ["RSA"]},
        {"witnesses": "nothing\n"},
        {"witnesses": "\ud800"},
        {"rule": {}},
        {"origins": []},
    ]
    for change in changes:
        with pytest.raises(VerificationError):
            policy_from_json({**obj, **change}, keys)
