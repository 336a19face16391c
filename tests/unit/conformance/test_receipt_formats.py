"""Vectors of proofs and signatures: published ones conform, a turned verdict fails, a malformed file is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tcd.conformance import Malformed, check
from tcd.receipts.keys import SigningKey
from tcd.receipts.merkle import MerkleTree, leaf_hash

TREE = MerkleTree([bytes([number]) for number in range(7)])


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _inclusion() -> dict[str, Any]:
    proof = [_text(item) for item in TREE.inclusion(3)]
    leaf = _text(leaf_hash(bytes([3])))
    return {
        "leafIdx": 3,
        "treeSize": 7,
        "leafHash": leaf,
        "root": _text(TREE.root()),
        "proof": proof,
        "wantErr": False,
    }


def _consistency() -> dict[str, Any]:
    proof = [_text(item) for item in TREE.consistency(3)]
    return {
        "size1": 3,
        "size2": 7,
        "proof": proof,
        "root1": _text(TREE.root(3)),
        "root2": _text(TREE.root()),
        "wantErr": False,
    }


def _ed25519() -> dict[str, Any]:
    key = SigningKey(bytes(32))
    cases = [
        {"msg": b"a".hex(), "sig": key.sign(b"a").hex(), "result": "valid"},
        {"msg": b"b".hex(), "sig": key.sign(b"a").hex(), "result": "invalid"},
    ]
    groups = [{"publicKey": {"pk": key.public.hex()}, "tests": cases}]
    return {"algorithm": "EDDSA", "numberOfTests": 2, "testGroups": groups}


@pytest.mark.parametrize("make", [_inclusion, _consistency])
def test_a_proof_conforms_and_a_turned_verdict_or_another_root_fails(make: Any) -> None:
    assert not check(make()).failed
    assert check({**make(), "wantErr": True}).failed
    root = "root" if make is _inclusion else "root2"
    assert check({**make(), root: _text(bytes(32))}).failed
    for changed in ({"wantErr": "no"}, {root: "?"}):
        with pytest.raises(Malformed):
            check({**make(), **changed})


def test_signatures_conform_and_one_turned_verdict_fails() -> None:
    assert not check(_ed25519()).failed
    for index, verdict in ((0, "invalid"), (1, "valid")):
        data = _ed25519()
        data["testGroups"][0]["tests"][index]["result"] = verdict
        assert check(data).findings[0].note == "1 decisions differ"
    with pytest.raises(Malformed):
        check({**_ed25519(), "numberOfTests": 3})


def test_published_vectors_conform(shared: Path) -> None:
    root = shared / "vectors" / "receipts"
    proofs = [*(root / "merkle" / "inclusion").rglob("*.json"), *(root / "merkle" / "consistency").rglob("*.json")]
    assert len(proofs) > 30
    for path in proofs:
        assert not check(json.loads(path.read_text())).failed, path
    report = check(json.loads((root / "wycheproof" / "ed25519_test.json").read_text()))
    assert (report.failed, report.findings[0].compared) == (False, 151)
