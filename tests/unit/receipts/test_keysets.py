"""Signed key sets, what they refuse, and the text of witness policies."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tcd.errors import VerificationError
from tcd.receipts import HybridKey, KeySet, MlDsaKey, PinnedKey, SigningKey
from tcd.receipts.errors import BadKey, BadSignature, MalformedKeyset, MissingSignature, NoQuorum, Rollback
from tcd.receipts.keys import HYBRID, Signer
from tcd.receipts.note import NoteVerifier
from tcd.receipts.signed_keyset import RootKeys, open_keyset, sign_keyset
from tcd.receipts.tlog_policy import parse_policy
from tests.unit.receipts.simulator import LogSimulator, seed

ROOTS: list[Signer] = [SigningKey(seed("r0")), HybridKey(seed("r1") * 2), MlDsaKey(seed("r2"))]
PINNED = RootKeys(tuple((key.alg, key.public) for key in ROOTS), 2)
KEYS = KeySet([PinnedKey(SigningKey(seed("k")).public, "receipt", "o"), *LogSimulator().pinned()])


def test_two_of_three_roots_sign_a_key_set() -> None:
    for chosen in ([0, 1], [1, 2], [0, 2], [0, 1, 2]):
        signed = json.loads(json.dumps(sign_keyset(KEYS, serial=3, roots=[ROOTS[n] for n in chosen])))
        keys, serial = open_keyset(signed, roots=PINNED, newest=3)
        assert (keys.digest, serial) == (KEYS.digest, 3)
    assert RootKeys.from_json(PINNED.to_json()) == PINNED


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda s: s["sigs"].pop(), MissingSignature),
        (lambda s: s["sigs"].__setitem__(1, s["sigs"][0]), MissingSignature),
        (lambda s: s["sigs"][0].update(sig=s["sigs"][1]["sig"]), BadSignature),
        (lambda s: s.update(serial=4), BadSignature),
        (lambda s: s["keyset"]["keys"][0].update(origin="p"), BadSignature),
        (lambda s: s["keyset"]["keys"].pop(), BadSignature),
        (lambda s: s.update(serial=0), MalformedKeyset),
        (lambda s: s.update(extra=1), MalformedKeyset),
        (lambda s: s.update(sigs=s["sigs"] * 10), MalformedKeyset),
        (lambda s: s.update(v="tcd.keyset/1"), MalformedKeyset),
    ],
)
def test_a_changed_key_set_is_refused(change: Callable[[Any], Any], error: type[Exception]) -> None:
    signed = json.loads(json.dumps(sign_keyset(KEYS, serial=3, roots=ROOTS[:2])))
    change(signed)
    with pytest.raises(error):
        open_keyset(signed, roots=PINNED)


def test_an_older_key_set_and_unknown_roots_are_refused() -> None:
    signed = sign_keyset(KEYS, serial=3, roots=ROOTS)
    with pytest.raises(Rollback):
        open_keyset(signed, roots=PINNED, newest=4)
    with pytest.raises(MissingSignature):
        open_keyset(sign_keyset(KEYS, serial=3, roots=[SigningKey(seed("x")), ROOTS[0]]), roots=PINNED)
    for bad in ((), PINNED.keys[:1] * 2):
        with pytest.raises(MalformedKeyset):
            RootKeys(bad, 1)
    with pytest.raises(MalformedKeyset):
        RootKeys(PINNED.keys, 4)
    with pytest.raises(BadKey):
        RootKeys((("Ed25519", b"\1" + bytes(31)),), 1)
    with pytest.raises(MalformedKeyset):
        RootKeys.from_json({"v": "tcd.root/1", "threshold": 1, "roots": [{"alg": "RSA", "pub": "00" * 32}]})


@pytest.mark.parametrize(
    "change",
    [
        {"not_before_us": "5"},
        {"not_after_us": -1},
        {"not_after_us": True},
        {"compromised_after_size": 1.0},
        {"tenants": ["b", "a"]},
        {"tenants": "a"},
        {"tenants": [1]},
        {"origin": ""},
        {"origin": None},
        {"pub": "AA" * 32},
        {"pub": "00" * 33},
        {"alg": "ML-DSA-44"},
        {"alg": HYBRID},
        {"purpose": "checkpoint", "alg": HYBRID},
        {"kid": "00" * 16},
    ],
)
def test_keys_of_a_wrong_form_are_refused(change: dict[str, Any]) -> None:
    key = PinnedKey(SigningKey(seed("k")).public, "receipt", "o")
    with pytest.raises(VerificationError):
        KeySet.from_json({"v": "tcd.keyset/1", "keys": [{**key.to_json(), **change}]})


def test_a_key_has_one_purpose_also_as_a_part_of_a_hybrid_key() -> None:
    classic, hybrid = SigningKey(seed("a")), HybridKey(seed("a") + seed("b"))
    with pytest.raises(ValueError, match="twice"):
        KeySet([PinnedKey(classic.public, "checkpoint", "o"), PinnedKey(hybrid.public, "receipt", "o", alg=HYBRID)])
    with pytest.raises(ValueError, match="purpose"):
        PinnedKey(hybrid.public, "checkpoint", "o", alg=HYBRID)
    with pytest.raises(MalformedKeyset):
        KeySet.from_json([])


def _policy(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _witnesses() -> list[str]:
    log = LogSimulator(witnesses=6)
    return [f"witness {name} {key.vkey()}" for name, key in log.witness_policy().witnesses.items()]


def test_the_example_of_the_specification_with_two_levels_of_groups(shared: Path) -> None:
    examples = json.loads((shared / "vectors" / "receipts" / "tlog" / "c2sp_examples.json").read_text())["examples"]
    text = examples["tlog-policy.md"][0]
    log = LogSimulator(witnesses=6)
    keys = [log.signer.pinned()[0].public, *(key.public for key in log.cosigners)]
    assert len(keys) == text.count("<vkey>") == 7
    names = ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
    vkeys = [NoteVerifier(log.origin, keys[0]).vkey(), *(k.vkey() for k in log.witness_policy().witnesses.values())]
    for vkey in vkeys:
        text = text.replace("<vkey>", vkey, 1)
    policy = parse_policy(("# a comment\n \t\n" + text).encode())
    assert list(policy.witnesses) == names
    assert policy.satisfied({"X1", "X3", "Y2"})
    for too_few in (set(), {"X1", "Y1", "Y2", "Y3"}, {"X1", "X2", "X3"}, {"Z1", "X1", "X-witnesses", "Y1"}):
        assert not policy.satisfied(too_few)
        with pytest.raises(NoQuorum):
            policy.check(too_few)
    assert parse_policy(policy.write().encode()).write() == policy.write()
    assert parse_policy(b"quorum none\n").satisfied(())


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["quorum a"],
        ["quorum none", "quorum none"],
        ["witness"],
        ["witness a b"],
        ["group g all", "quorum none"],
        ["group g all x", "quorum none"],
        ["W0", "W0", "quorum w0"],
        ["W0", "group g 2 w0", "quorum g"],
        ["W0", "group g 0 w0", "quorum g"],
        ["W0", "group g 01 w0", "quorum g"],
        ["W0", "group g any w0 w0", "quorum g"],
        ["W0", "W1", "group g any w0 w1", "group h any w0 g", "quorum h"],
        ["W0", "group w0 any w0", "quorum w0"],
        ["W0", "group none any w0", "quorum none"],
        ["W0 u v", "quorum w0"],
        ["unknown x", "quorum none"],
        ["quorum none\x00"],
        ["quorum\u00a0none"],
    ],
)
def test_what_is_no_policy_is_refused(lines: list[str]) -> None:
    real = _witnesses()
    text = _policy(*(line.replace("W0", real[0]).replace("W1", real[1]) for line in lines))
    with pytest.raises(VerificationError):
        parse_policy(text)


def test_keys_of_logs_and_witnesses_do_not_stand_for_each_other() -> None:
    log = LogSimulator()
    witness = log.witness_policy().witnesses["w0"]
    with pytest.raises(VerificationError):
        parse_policy(_policy(f"log {witness.vkey()}", "quorum none"))
    with pytest.raises(VerificationError):
        parse_policy(_policy(f"witness a {_witnesses()[0].split()[2]}", f"witness b {witness.vkey()}", "quorum a"))
    raw = bytes([4]) + witness.public
    name = hashlib.sha256(b"w\x80\n" + raw).hexdigest()[:8].encode()
    with pytest.raises(VerificationError):
        parse_policy(b"witness a w\x80+" + name + b"+" + base64.b64encode(raw) + b"\nquorum a\n")
    with pytest.raises(VerificationError):
        parse_policy(b"quorum none")
    with pytest.raises(VerificationError):
        parse_policy(b"#" * 262_144 + b"\nquorum none\n")
