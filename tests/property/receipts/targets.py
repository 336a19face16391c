"""Fuzzing targets of everything that reads receipts: `fuzz` runs them under coverage guidance.

Whatever the bytes: an error of verification or a value, what was read is written back as the same bytes, other readers
agree, and nothing verifies that was not issued.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson
import rfc8785

from tcd.errors import InvalidRequest, VerificationError
from tcd.receipts import Issuer, KeySet, MlDsaKey, SigningKey, VerifyPolicy, canonical, jcs, verify_single
from tcd.receipts.body import check_body, read_fitting
from tcd.receipts.bundle import read_bundle, verify_bundle, write_bundle
from tcd.receipts.chain import ChainState, chain_id
from tcd.receipts.checkpoint import LogHead, TlogProof
from tcd.receipts.erasure import ErasedBody, Left, erase_members
from tcd.receipts.issue import Receipt
from tcd.receipts.log_signer import LogSigner
from tcd.receipts.logcheck import log_verifier, open_log
from tcd.receipts.merkle import MerkleTree
from tcd.receipts.note import parse_note, write_note
from tcd.receipts.policy_file import policy_from_json
from tcd.receipts.records import Model, close_members, open_session_members
from tcd.receipts.rotation import rotate_members
from tcd.receipts.signed_keyset import RootKeys, open_keyset, sign_keyset
from tcd.receipts.tiles import Tile, pack_entries, unpack_entries
from tcd.receipts.tlog_policy import parse_policy
from tcd.receipts.witnessing import AddCheckpoint, Witness
from tcd.risk_av import Terms
from tests.unit.receipts.conftest import Session

ORIGIN: Final = "tcd.example"
D: Final = "sha256:" + "d" * 64
MODEL: Final = Model("m", lang='é\\"')


@dataclass(frozen=True)
class World:
    """What is honest: a receipt in a log, its keys, its policy; what is left of it in one that says who erased it."""

    receipt: Receipt
    eraser: Receipt
    proof: bytes
    bundle: bytes
    erased: bytes
    policy: VerifyPolicy
    keys: KeySet
    witness: Witness


@cache
def world() -> World:
    """The honest world; made once."""
    issuer = Issuer(SigningKey(hashlib.sha256(b"i").digest()), origin=ORIGIN)
    receipt = issuer.issue(
        chain=ChainState(chain_id("session", "f")),
        typ="open",
        tenant="t",
        config=D,
        policy=D,
        members=open_session_members(
            subject=D,
            model=Model("m", lang='é\\"'),
            unit="session",
            keys=(1, 2, 3),
            mask=1,
            assets=(1, 2, 3),
            weight=0.5,
        ),
        ts_us=1_760_000_000_000_000,
        nonce=bytes(16),
    )
    signer = LogSigner(ORIGIN, [SigningKey(bytes([1]) * 32), MlDsaKey(bytes([2]) * 32)])
    tree = MerkleTree([bytes(32), receipt.head, bytes([1]) * 32])
    proof = TlogProof(1, tree.inclusion(1), signer.checkpoint(3, tree.root(), time=5), receipt.head).write()
    eraser = issuer.issue(
        chain=ChainState(chain_id("erase", "f"), 1, "1" * 64, False, 1),
        typ="erase",
        tenant="-",
        config=D,
        policy=D,
        members=erase_members(actor='a + "b"', reason="subject", places=[1], heads=[receipt.head]),
        ts_us=1_760_000_000_000_001,
        nonce=bytes(16),
    )
    after = MerkleTree([bytes(32), receipt.head, bytes([1]) * 32, eraser.head])
    note = signer.checkpoint(4, after.root(), time=6)
    places = ((1, receipt.head), (3, eraser.head))
    shown = [TlogProof(at, after.inclusion(at), note, head).write() for at, head in places]
    told = ErasedBody(receipt.kid, "Ed25519", ORIGIN, receipt.tenant)
    left = Left(receipt.head, receipt.sig, receipt.seq, receipt.prev, told)
    keys = KeySet([issuer.pinned(), *signer.pinned()])
    both = frozenset({"Ed25519", "ML-DSA-44"})
    policy = VerifyPolicy(keys, require=frozenset({"signature", "inclusion", "checkpoint"}), log_algorithms=both)
    witness = Witness("w", [SigningKey(bytes([3]) * 32)], [log_verifier(key) for key in signer.pinned()])
    bundle = write_bundle([receipt], proofs=[proof])
    erased = write_bundle([left], proofs=shown[:1], erasures=[(eraser, shown[1])])
    return World(receipt, eraser, proof, bundle, erased, policy, keys, witness)


def _read(work: Callable[[], Any]) -> Any:
    """What was read, None where verification refuses; any other error is a finding."""
    try:
        return work()
    except VerificationError:
        return None


def canonical_parser(data: bytes) -> bool:
    """Profile parser against itself, rfc8785 and orjson."""
    value = _read(lambda: canonical.parse(data))
    if value is None:
        return False
    assert canonical.encode(value) == data
    assert jcs.encode(value) == data
    assert rfc8785.dumps(value) == data
    assert orjson.loads(data) == value
    return True


def jcs_encoder(data: bytes) -> bool:
    """RFC 8785 encoder of ours against rfc8785, on any JSON."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    try:
        ours: bytes | None = jcs.encode(value)
    except (ValueError, TypeError):
        ours = None
    try:
        theirs: bytes | None = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError):
        theirs = None
    if ours is not None and theirs is not None:
        assert ours == theirs
    if ours is None and theirs is not None:
        # deeper than we write
        assert data.count(b"[") + data.count(b"{") > jcs.MAX_DEPTH
    return ours is not None


def note(data: bytes) -> bool:
    """Signed notes: one encoding per note."""
    parsed = _read(lambda: parse_note(data))
    if parsed is None:
        return False
    assert write_note(*parsed) == data
    return True


def checkpoint(data: bytes) -> bool:
    """Checkpoints: nothing opens but what the log signed."""
    opened = _read(lambda: open_log(data, origin=ORIGIN, policy=world().policy))
    text = data.decode("utf-8", "replace")
    head = _read(lambda: LogHead.from_text(text))
    if head is not None:
        assert head.text() == text
    if opened is not None:
        honest = parse_note(TlogProof.parse(world().proof).checkpoint)[0]
        assert opened.head.text() == honest
    return opened is not None


def proof(data: bytes) -> bool:
    """Proofs: one encoding each, and only the honest one shows the receipt."""
    parsed = _read(lambda: TlogProof.parse(data))
    if parsed is None:
        return False
    assert parsed.write() == data
    receipt, policy = world().receipt, world().policy
    report = verify_single(receipt.body, head=receipt.head_hex, sig=receipt.sig_hex, policy=policy, proof=data)
    if report.ok:
        honest = TlogProof.parse(world().proof)
        assert (parsed.index, parsed.path) == (honest.index, honest.path)
        assert parse_note(parsed.checkpoint)[0] == parse_note(honest.checkpoint)[0]
    return report.ok


ROOT: Final = SigningKey(bytes([9]) * 32)
ROOTS: Final = RootKeys((("Ed25519", ROOT.public),), 1)


def keyset(data: bytes) -> bool:
    """Key sets, signed ones, policies: what is taken is written back the same."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        _read(lambda: parse_policy(data))
        return False
    keys = _read(lambda: KeySet.from_json(value))
    if keys is not None:
        assert KeySet.from_json(keys.to_json()).digest == keys.digest
    opened = _read(lambda: open_keyset(value, roots=ROOTS))
    if opened is not None:
        assert opened[0].digest == world().keys.digest
    _read(lambda: policy_from_json(value, world().keys))
    _read(lambda: RootKeys.from_json(value))
    return keys is not None or opened is not None


def _checked(data: bytes) -> Any:
    value = canonical.parse(data)
    check_body(value)
    return value


def read_both_ways(data: bytes) -> Any:
    """Value of a body, None where it is refused: in one match and step by step, which must agree."""
    slowly = _read(lambda: _checked(data))
    text = _read(lambda: canonical.decode_utf8(data))
    at_once = None if text is None else read_fitting(text, data)
    # strings with escapes are left to the steps
    assert at_once == slowly or (at_once is None and b"\\" in data)
    return slowly


def receipt(data: bytes) -> bool:
    """Bodies: read both ways alike; only what was issued verifies, whatever head, signature and key come along."""
    read_both_ways(data)
    honest, policy = world().receipt, VerifyPolicy(world().keys)
    report = verify_single(data, head=honest.head_hex, sig=honest.sig_hex, policy=policy)
    assert report.ok is (data == honest.body)
    text = data.decode("latin-1")
    assert not verify_single(honest.body, head=text, sig=text, policy=policy, verify_key=text).ok
    head = hashlib.sha256(b"tcd/receipt/v2/head\0" + data).hexdigest()
    again = verify_single(data, head=head, sig=honest.sig_hex, policy=policy, proof=data, previous=data)
    assert not again.ok
    return report.ok


def bundle(data: bytes) -> bool:
    """Bundles: one encoding each; what verifies has the honest receipt, or its honest eraser, and nothing else."""
    value = _read(lambda: read_bundle(data))
    if value is None:
        return False
    assert jcs.encode(value) == data
    try:
        report = verify_bundle(data, policy=world().policy)
    except InvalidRequest:
        return False
    if report.ok:
        assert [item["body"] for item in value["receipts"]] == [world().receipt.body_text]
    assert all(by.record == world().eraser.head_hex for by in report.erased_by.values())
    return report.ok or bool(report.erased_by)


def witness(data: bytes) -> bool:
    """Requests to a witness: one encoding each; nothing is cosigned but what the log signed."""
    parsed = _read(lambda: AddCheckpoint.parse(data))
    if parsed is not None:
        assert parsed.write() == data
    verdict = world().witness.judge(data, seen=lambda _: None, time=1)
    if verdict.status == 200:
        assert verdict.new is not None
        assert verdict.new.size == 3
    else:
        assert (verdict.new, verdict.body) == (None, verdict.body if verdict.status == 409 else b"")
    return verdict.status == 200


def tile(data: bytes) -> bool:
    """Tile paths and bundles of entries: one encoding each."""
    path = data.decode("utf-8", "replace")
    found = _read(lambda: Tile.from_path(path))
    if found is not None:
        assert found.path() == path
    width = data[0] if data else 0
    entries = _read(lambda: unpack_entries(data[1:], width))
    if entries is not None:
        assert pack_entries(entries) == data[1:]
    return found is not None or bool(entries)


def bodies() -> list[bytes]:
    """A body of each type; of decisions one with everything and one with little."""
    made = Session(name="f")
    made.open()
    made.fold(0.01)
    made.decision()
    made.decision(components={}, witness=[])
    terms = Terms.of(made.controller.params).to_json()
    made.issue("gap", {"gap": {"from": 2, "to": 3, "reason": "lost"}})
    made.issue("admin", {"admin": {"action": "a", "actor": "o", "object": D}})
    made.issue("admin", {"admin": {"action": "a", "actor": "o", "object": D, "reason": "r"}})
    made.issue("ack", {"ack": {"actor": "o", "stream": D, "claim": 1, "terms": terms}})
    risk = {"tier": 1, **dict.fromkeys(("alarm", "floor", "failed"), False)}
    made.decision(risk=risk | dict.fromkeys(("spent", "distrust", "pressure"), "3fb999999999999a"))
    rewrite = {"marking": "datamark", "zones": 1, "delta": -3, "failures": ["f"], "rewritten": True, "shadow": False}
    rewrite |= dict.fromkeys(("outcome", "before", "after"), D)
    made.issue("rewrite", {"subject": D, "model": MODEL.to_json(), "rewrite": rewrite})
    made.issue("erase", erase_members(actor="o", reason="age", places=[3, 4, 9], heads=[bytes(32)] * 3))
    made.issue("heads", {"heads": {"count": 3, "root": "0" * 64}})
    old = made.issuer.pinned()
    made.issue("rotate", rotate_members(origin=ORIGIN, old=old, new=SigningKey(bytes(32)), from_us=5))
    made.close()
    epoch = Session(name="e")
    opened = {"scope": "epoch", "stream": D, "epoch": 0, "claim_level": "3fb999999999999a", "terms": terms}
    epoch.issue("open", {"open": opened})
    epoch.issue("close", close_members(reason="end", count=2, eproc=made.controller.state("acme").snapshot))
    return [receipt.body for receipt in (*made.receipts, *epoch.receipts)]


def seeds() -> dict[str, list[bytes]]:
    """What mutation alone would take long to find, for each target."""
    made = world()
    parsed = TlogProof.parse(made.proof)
    signed = sign_keyset(made.keys, serial=1, roots=[ROOT])
    rule = {"v": "tcd.verify-policy/1", "rule": {"all": [{"witnessed": 1}, {"signed_with": ["Ed25519"]}]}}
    documents = [b'{"a":[1,-2,true,null,"\\"\\\\"],"b":{"c":{}}}', b"[1e21,0.1,-0.0,5e-324,1e-7,123456789012345680000]"]
    return {
        "canonical_parser": [made.receipt.body, *documents],
        "jcs_encoder": [made.receipt.body, *documents, b'{"\\u20ac":1,"\\r":2,"\\ud83d\\ude02":3}'],
        "note": [parsed.checkpoint, "a\n\nb\n\n\u2014 k AAAAAAA=\n".encode()],
        "checkpoint": [parsed.checkpoint, parse_note(parsed.checkpoint)[0].encode()],
        "proof": [made.proof],
        "keyset": [json.dumps(value).encode() for value in (made.keys.to_json(), signed, rule, ROOTS.to_json())],
        "receipt": [made.receipt.body, *bodies()],
        "bundle": [made.bundle, made.erased],
        "witness": [AddCheckpoint(old, path, parsed.checkpoint).write() for old, path in ((0, ()), (1, parsed.path))],
        "tile": [b"tile/0/x001/234.p/5", b"tile/entries/000", b"\x02\0\x01a\0\0"],
    }


TARGETS: Final[dict[str, Callable[[bytes], bool]]] = {
    check.__name__: check
    for check in (
        *(canonical_parser, jcs_encoder, note, checkpoint, proof),
        *(keyset, receipt, bundle, witness, tile),
    )
}
