"""Attacks on single receipts: each must be found, with its stable code."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tcd.errors import TooLarge, VerificationError
from tcd.receipts import (
    Anchor,
    KeySet,
    PinnedKey,
    Receipt,
    Report,
    Signer,
    VerifyPolicy,
    canonical,
    verify_single,
)
from tcd.receipts.body import head_of, signature_input
from tcd.receipts.edwards import L
from tcd.receipts.errors import BY_CODE
from tcd.receipts.members import SUITE
from tcd.receipts.report import SINGLE
from tcd.risk_av import Terms
from tests.unit.receipts.conftest import COMPONENTS, E_OBJECT, REQUEST, SIGNALS, Session, issuer, salt


def verify(receipt: Receipt, policy: VerifyPolicy, **options: Any) -> Report:
    return verify_single(receipt.body_text, head=receipt.head_hex, sig=receipt.sig_hex, policy=policy, **options)


def resigned(body: bytes, key: Signer) -> tuple[bytes, str, str]:
    head = head_of(body)
    sig = key.sign(signature_input(suite=SUITE, kid=key.kid, head=head))
    return body, head.hex(), sig.hex()


def check(report: Report, name: str) -> tuple[str, str]:
    found = next(c for c in report.checks if c.name == name)
    return found.status, found.code


DISCLOSED = [{"name": n, "salt": salt(i).hex(), "values": v} for i, (n, v) in enumerate(SIGNALS.items())]


def test_an_honest_receipt_passes_every_check_that_can_run(session: Session, policy: VerifyPolicy) -> None:
    before = session.receipts[-1]
    session.controller.close(stream="acme", hypothesis="s0", reason="end")
    report = verify(
        session.decision(),
        policy,
        verify_key=session.issuer.verify_key_hex,
        req_obj=REQUEST,
        comp_obj=COMPONENTS,
        e_obj=E_OBJECT,
        witness_segments=DISCLOSED,
        previous=before.body_text,
        terms=Terms.of(session.controller.params).to_json(),
    )
    assert (report.ok, report.code, report.trust) == (True, "ok", "server")
    assert tuple(c.name for c in report.checks) == SINGLE
    ran = {c.name for c in report.checks if c.status == "pass"}
    assert ran == set(SINGLE) - {"clock", "inclusion", "checkpoint", "witness_quorum", "policy"}
    assert {c.status for c in report.checks if c.name not in ran} == {"absent"}
    assert report.verified()["typ"] == "decision"
    assert report.verified()["eproc"]["prev"] != json.loads(before.body)["eproc"]["prev"]
    assert set(report.to_json()) == {"ok", "code", "checks", "policy", "trust"}


def test_verification_is_a_function_of_its_input(session: Session, policy: VerifyPolicy) -> None:
    receipt = session.receipts[-1]
    assert json.dumps(verify(receipt, policy).to_json()) == json.dumps(verify(receipt, policy).to_json())
    again = VerifyPolicy(KeySet([session.issuer.pinned()]))
    assert again.digest == policy.digest
    assert VerifyPolicy(again.keys, require=frozenset()).digest != policy.digest


def test_row_1_every_bit_of_head_and_signature(session: Session, policy: VerifyPolicy) -> None:
    receipt = session.receipts[-1]
    for i in range(256):
        head = bytearray(receipt.head)
        head[i // 8] ^= 1 << i % 8
        report = verify_single(receipt.body, head=head.hex(), sig=receipt.sig_hex, policy=policy)
        assert (report.ok, report.code) == (False, "head_mismatch")
    for i in range(512):
        sig = bytearray(receipt.sig)
        sig[i // 8] ^= 1 << i % 8
        report = verify_single(receipt.body, head=receipt.head_hex, sig=sig.hex(), policy=policy)
        assert (report.ok, report.code) == (False, "bad_signature")


def test_row_1_every_bit_of_a_body(session: Session, policy: VerifyPolicy) -> None:
    receipt = session.close()
    codes: set[str] = set()
    for i in range(8 * len(receipt.body)):
        body = bytearray(receipt.body)
        body[i // 8] ^= 1 << i % 8
        report = verify_single(bytes(body), head=receipt.head_hex, sig=receipt.sig_hex, policy=policy)
        assert not report.ok
        assert report.trust != "server" or check(report, "head")[0] == "fail"
        codes.add(report.code)
    assert codes <= {"head_mismatch", "not_canonical", "bad_number", "bad_string", "schema", "version", "limit"}
    assert {"head_mismatch", "not_canonical", "schema", "version"} <= codes


def test_row_1_a_sample_of_bits_of_a_decision_body(session: Session, policy: VerifyPolicy) -> None:
    receipt = session.receipts[-1]
    for i in range(0, 8 * len(receipt.body), 13):
        body = bytearray(receipt.body)
        body[i // 8] ^= 1 << i % 8
        assert not verify_single(bytes(body), head=receipt.head_hex, sig=receipt.sig_hex, policy=policy).ok


@pytest.mark.parametrize(
    "reencode",
    [
        lambda b: b.replace(b",", b", ", 1),
        lambda b: json.dumps(dict(reversed(json.loads(b).items())), separators=(",", ":"), ensure_ascii=False).encode(),
        lambda b: b.replace(b'"av"', b'"\\u0061v"', 1),
        lambda b: b + b"\n",
        lambda b: b"\xef\xbb\xbf" + b,
        lambda b: b.decode().encode("utf-16"),
        lambda b: b.decode().encode("utf-16-be"),
        lambda b: b"{" + b'"assets":["7","8","0"],' + b[1:],
        lambda b: b.replace(b'"typ":"decision"', b'"typ":"decision","typ":"close"'),
    ],
)
def test_rows_2_and_3_reencoded_bodies_even_when_signed(
    session: Session, policy: VerifyPolicy, reencode: Callable[[bytes], bytes]
) -> None:
    body, head, sig = resigned(reencode(session.receipts[-1].body), session.issuer._key)
    report = verify_single(body, head=head, sig=sig, policy=policy)
    assert (report.ok, report.code) == (False, "not_canonical")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (b"1.0", "bad_number"),
        (b"1e0", "bad_number"),
        (b"-0", "bad_number"),
        (b"9007199254740992", "bad_number"),
        (b"NaN", "bad_number"),
        (b"1" + b"0" * 400, "bad_number"),
        (b"true", "schema"),
        (b"null", "schema"),
        (b'"1"', "schema"),
    ],
)
def test_row_4_numbers_outside_the_profile_even_when_signed(
    session: Session, policy: VerifyPolicy, number: bytes, code: str
) -> None:
    body = session.receipts[-1].body
    assert body.count(b'"status":1') == 1
    changed, head, sig = resigned(body.replace(b'"status":1', b'"status":' + number), session.issuer._key)
    assert verify_single(changed, head=head, sig=sig, policy=policy).code == code


def test_row_5_strings(session: Session, policy: VerifyPolicy) -> None:
    receipt = session.receipts[-1]
    assert receipt.body.count("é".encode()) == 1
    swapped = receipt.body.replace("é".encode(), "e\u0301".encode())
    report = verify_single(swapped, head=receipt.head_hex, sig=receipt.sig_hex, policy=policy)
    assert report.code == "head_mismatch"
    for bad in (b"\\ud800", b"\\n", b"\x01"):
        body, head, sig = resigned(receipt.body.replace("é".encode(), bad), session.issuer._key)
        assert verify_single(body, head=head, sig=sig, policy=policy).code == "bad_string"
    text = receipt.body_text.replace("é", "\ud800")
    assert verify_single(text, head=receipt.head_hex, sig=receipt.sig_hex, policy=policy).code == "bad_string"


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(extra=1),
        lambda v: v.pop("guarantee"),
        lambda v: v.update(guaranty=v.pop("guarantee")),
        lambda v: v.update(guarantee=None),
        lambda v: v["decision"].update(extra=True),
        lambda v: v["chain"].pop("prev"),
    ],
)
def test_row_6_members_even_when_signed(
    session: Session, policy: VerifyPolicy, change: Callable[[dict[str, Any]], object]
) -> None:
    value = json.loads(session.receipts[-1].body)
    change(value)
    body, head, sig = resigned(canonical.encode(value), session.issuer._key)
    assert verify_single(body, head=head, sig=sig, policy=policy).code == "schema"


def test_row_7_pinned_keys_of_another_purpose_tenant_or_origin(session: Session) -> None:
    receipt = session.receipts[-1]
    public = session.issuer.pinned().public
    for key in (
        PinnedKey(public, "checkpoint", "tcd.example"),
        PinnedKey(public, "receipt", "other.example"),
        PinnedKey(public, "receipt", "tcd.example", tenants=frozenset({"umbrella"})),
    ):
        report = verify(receipt, VerifyPolicy(KeySet([key])))
        assert (report.ok, report.code) == (False, "key_not_authorised")
        assert check(report, "signature") == ("pass", "ok")
    fine = PinnedKey(public, "receipt", "tcd.example", tenants=frozenset({"acme"}))
    assert verify(receipt, VerifyPolicy(KeySet([fine]))).ok
    report = verify(receipt, VerifyPolicy(KeySet([fine]), origins=frozenset({"x"})))
    assert report.code == "key_not_authorised"


def test_row_7_a_signature_by_another_pinned_key(session: Session) -> None:
    receipt, other = session.receipts[-1], issuer(2)
    policy = VerifyPolicy(KeySet([session.issuer.pinned(), other.pinned()]))
    _, head, sig = resigned(receipt.body, other._key)
    assert verify_single(receipt.body, head=head, sig=sig, policy=policy).code == "bad_signature"
    report = verify(receipt, policy, verify_key=other.verify_key_hex)
    assert (report.ok, report.code) == (False, "key_not_authorised")


def test_rows_8_and_12_a_self_signed_forgery(make_session: Callable[..., Session], policy: VerifyPolicy) -> None:
    forged = make_session(issuer=issuer(66))
    forged.open()
    receipt = forged.decision()
    report = verify(receipt, policy)
    assert (report.ok, report.code, report.trust) == (False, "unknown_key", "none")
    report = verify(receipt, policy, verify_key=forged.issuer.verify_key_hex)
    assert (report.ok, report.code, report.trust) == (False, "unknown_key", "caller")
    assert check(report, "signature") == ("skipped", "skipped")
    with pytest.raises(BY_CODE["unknown_key"]):
        report.verified()
    report = verify_single(
        receipt.body, head=receipt.head_hex, sig="00" * 64, policy=policy, verify_key=forged.issuer.verify_key_hex
    )
    assert (report.ok, report.trust) == (False, "none")


def test_row_9_validity_and_compromise(session: Session) -> None:
    receipt = session.receipts[-1]
    pinned = session.issuer.pinned
    for key in (
        pinned(not_before_us=receipt.ts_us + 1),
        pinned(not_after_us=receipt.ts_us - 1),
        pinned(compromised_after_size=10**6),
    ):
        assert verify(receipt, VerifyPolicy(KeySet([key]))).code == "key_not_valid"
    inside = pinned(not_before_us=receipt.ts_us, not_after_us=receipt.ts_us)
    assert verify(receipt, VerifyPolicy(KeySet([inside]))).ok


def test_row_10_bad_keys_and_signatures(session: Session, policy: VerifyPolicy) -> None:
    receipt = session.receipts[-1]
    for bad in ("00" * 32, "01" + "00" * 31, "zz", "", "AB" * 32, "ed" + "ff" * 30 + "7f"):
        report = verify(receipt, policy, verify_key=bad)
        assert (report.ok, report.code) == (False, "bad_key")
    s = int.from_bytes(receipt.sig[32:], "little") + L
    for sig in (
        receipt.sig[:32].hex() + s.to_bytes(32, "little").hex(),
        "00" * 32 + receipt.sig[32:].hex(),
        receipt.sig_hex.upper(),
        receipt.sig_hex[:-2],
        "",
        "xyz",
    ):
        report = verify_single(receipt.body, head=receipt.head_hex, sig=sig, policy=policy)
        assert (report.ok, report.code) == (False, "bad_signature")


@pytest.mark.parametrize(
    ("member", "value"), [("v", "tcd.receipt/1"), ("v", "tcd.receipt/20"), ("suite", "none"), ("suite", "ed25519")]
)
def test_row_12_versions_and_suites_even_when_signed(
    session: Session, policy: VerifyPolicy, member: str, value: str
) -> None:
    body = json.loads(session.receipts[-1].body)
    body[member] = value
    changed, head, sig = resigned(canonical.encode(body), session.issuer._key)
    assert verify_single(changed, head=head, sig=sig, policy=policy).code == "version"


def test_row_13_signatures_made_for_something_else(session: Session, policy: VerifyPolicy) -> None:
    receipt, key = session.receipts[-1], session.issuer._key
    messages = (
        receipt.head,
        receipt.body,
        b"tcd/receipt/v2/sig\0" + receipt.head,
        signature_input(suite="Ed25519+ML-DSA-44", kid=key.kid, head=receipt.head),
        signature_input(suite=SUITE, kid="0" * 32, head=receipt.head),
        f"tcd.example\n1\n{receipt.head_hex}\n".encode(),
        b"eyJhbGciOiJFZERTQSJ9." + receipt.head_hex.encode(),
    )
    for message in messages:
        report = verify_single(receipt.body, head=receipt.head_hex, sig=key.sign(message).hex(), policy=policy)
        assert report.code == "bad_signature"


def test_a_missing_signature_fails_unless_the_policy_asks_for_none(session: Session, policy: VerifyPolicy) -> None:
    receipt = session.receipts[-1]
    report = verify_single(receipt.body, head=receipt.head_hex, sig=None, policy=policy)
    assert (report.ok, report.code) == (False, "missing_signature")
    bare = VerifyPolicy(policy.keys, require=frozenset())
    report = verify_single(receipt.body, head=receipt.head_hex, sig=None, policy=bare)
    assert (report.ok, report.trust) == (True, "none")
    assert check(report, "signature") == ("absent", "absent")


@pytest.mark.parametrize(
    "name", ["inclusion", "checkpoint", "witness_quorum", "eproc", "concordance", "chain", "clock"]
)
def test_a_requested_check_that_cannot_run_fails(session: Session, policy: VerifyPolicy, name: str) -> None:
    demanding = VerifyPolicy(policy.keys, require=frozenset({"signature", name}))
    report = verify(session.receipts[-1], demanding)
    assert (report.ok, report.code) == (False, "skipped")
    assert check(report, name) == ("skipped", "skipped")
    with pytest.raises(VerificationError):
        report.verified()


def test_a_proof_that_is_none_is_not_ok(session: Session, policy: VerifyPolicy) -> None:
    report = verify(session.receipts[-1], policy, proof="c2sp.org/tlog-proof@v1\n")
    assert (report.ok, check(report, "inclusion")) == (False, ("fail", "malformed_note"))
    assert check(report, "checkpoint") == ("skipped", "skipped")


def test_unknown_checks_cannot_be_demanded(policy: VerifyPolicy) -> None:
    with pytest.raises(ValueError, match="unknown checks"):
        VerifyPolicy(policy.keys, require=frozenset({"sig"}))


@pytest.mark.parametrize(
    "segments",
    [
        [{**DISCLOSED[0], "values": [-0.25, -1.5 + 1e-6, 0.0]}],
        [{**DISCLOSED[0], "values": [-0.25, -1.5]}],
        [{**DISCLOSED[0], "values": [-1.5, -0.25, 0.0]}],
        [{**DISCLOSED[0], "salt": "00" * 16}],
        [{**DISCLOSED[0], "name": "entropy"}],
        [{**DISCLOSED[0], "name": "hidden"}],
        [{**DISCLOSED[0], "name": ["trace"]}],
        [{**DISCLOSED[0], "values": ["-0.25", "-1.5", "0.0"]}],
        [{**DISCLOSED[0], "values": [-0.25, -1.5, True]}],
        [{**DISCLOSED[0], "values": [-0.25, -1.5, 10**400]}],
        [{**DISCLOSED[0], "values": None}],
        [DISCLOSED[0], DISCLOSED[0]],
        [{**DISCLOSED[0], "values": DISCLOSED[2]["values"]}, {**DISCLOSED[2], "values": DISCLOSED[0]["values"]}],
        [{}],
    ],
)
def test_row_25_witness_segments(session: Session, policy: VerifyPolicy, segments: list[dict[str, Any]]) -> None:
    report = verify(session.receipts[-1], policy, witness_segments=segments)
    assert (report.ok, report.code) == (False, "witness_mismatch")


def test_row_27_receipts_from_the_future(session: Session, policy: VerifyPolicy) -> None:
    receipt = session.receipts[-1]
    for now, ok in ((receipt.ts_us, True), (receipt.ts_us - 300_000_000, True), (receipt.ts_us - 300_000_001, False)):
        report = verify(receipt, VerifyPolicy(policy.keys, now_us=now))
        assert report.ok is ok
        assert report.code == ("ok" if ok else "policy")


OBJECT_CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda o: {**o, "x": 0},
    lambda o: {key: [o[key]] for key in o},
    lambda o: [o],
    lambda o: {**o, "x": float("nan")},
    lambda o: {**o, "x": b""},
]


@pytest.mark.parametrize("name", ["req_obj", "comp_obj", "e_obj"])
@pytest.mark.parametrize("change", OBJECT_CHANGES)
def test_row_28_objects(
    session: Session, policy: VerifyPolicy, name: str, change: Callable[[dict[str, Any]], Any]
) -> None:
    objects: dict[str, Any] = {"req_obj": REQUEST, "comp_obj": COMPONENTS, "e_obj": E_OBJECT}
    report = verify(session.receipts[-1], policy, **{name: change(objects[name])})
    assert (report.ok, report.code) == (False, "concordance")
    assert not verify(session.receipts[0], policy, **{name: objects[name]}).ok


def test_the_link_to_the_record_before(
    session: Session, policy: VerifyPolicy, make_session: Callable[..., Session]
) -> None:
    opened, first = session.receipts
    second = session.decision()
    assert verify(second, policy, previous=first.body).ok
    assert verify(second, policy, anchor=Anchor(1, first.head_hex)).ok
    assert verify(second, policy, previous=first.body, anchor=Anchor(1, first.head_hex)).ok
    other = make_session(name="s1")
    other.open()
    other.decision()
    cases: dict[str, dict[str, Any]] = {
        "seq_gap": {"previous": opened.body},
        "chain_id": {"previous": other.receipts[-1].body},
        "prev_mismatch": {"anchor": Anchor(1, opened.head_hex)},
        "not_canonical": {"previous": first.body + b" "},
    }
    for code, options in cases.items():
        report = verify(second, policy, **options)
        assert (report.ok, report.code) == (False, code)
    assert verify(second, policy, previous=first.body, anchor=Anchor(1, "0" * 64)).code == "prev_mismatch"


def test_row_30_sizes_and_depth_in_bounded_time(session: Session, policy: VerifyPolicy) -> None:
    receipt = session.receipts[-1]
    # not in the time that is measured: so many new objects have all garbage of the suite collected
    deep: Any = {}
    for _ in range(100_000):
        deep = [deep]
    started = time.process_time()
    for body in ("x" * 512_001, b"x" * 512_001, "1" * 10**6):
        with pytest.raises(TooLarge):
            verify_single(body, head=receipt.head_hex, sig=receipt.sig_hex, policy=policy)
    for text, code in (
        ("x" * 512_000, "not_canonical"),
        ("[" * 9 + "]" * 9, "limit"),
        ("[" * 100_000 + "]" * 100_000, "limit"),
        ("1" * 500_000, "bad_number"),
        ('{"a":' * 100_000, "limit"),
        ("[" + "1," * 200_000 + "1]", "limit"),
        ('"' + "\\\\" * 250_000 + '"', "schema"),
        ('"' * 512_000, "not_canonical"),
    ):
        report = verify_single(text, head=receipt.head_hex, sig=receipt.sig_hex, policy=policy)
        assert (report.ok, report.code) == (False, code)
    assert verify(receipt, policy, req_obj=deep).code == "concordance"
    assert time.process_time() - started < 5.0
