"""Vectors of proofs, signatures, notes and JSON: published ones conform, a turned verdict fails."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tcd.cli.main import app
from tcd.conformance import Malformed, check, load
from tcd.conformance.jcs import in_profile
from tcd.receipts import jcs
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


FILES = {
    "tlog/signed_note.json": 9,
    "tlog/tlog_proof.json": 11,
    "tlog/c2sp_examples.json": 2,
    "merkle/rfc6962_tree8.json": 9,
    "rfc9421/appendix_b.json": 4,
    "jcs/es6_numbers_1000.txt": 1000,
    **{f"jcs/input/{name}.json": 2 for name in ("arrays", "french", "structures", "unicode", "values", "weird")},
}


@pytest.mark.parametrize("name", FILES)
def test_published_texts_conform(shared: Path, name: str) -> None:
    report = check(load(shared / "vectors" / "receipts" / name))
    assert not report.failed, report
    assert sum(finding.compared for finding in report.findings) >= FILES[name]


def test_the_whole_directory_conforms_on_the_command_line(shared: Path) -> None:
    root = shared / "vectors" / "receipts"
    files = [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix in {".json", ".txt"} and "output" not in path.parts and path.is_file()
    ]
    result = CliRunner().invoke(app, ["conformance", *map(str, files), "--json"])
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)) == len(files) > 60


def _published(shared: Path, name: str) -> Any:
    return load(shared / "vectors" / "receipts" / name)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tlog/signed_note.json", lambda d: d["notes"][0].update(valid=False)),
        ("tlog/signed_note.json", lambda d: d["notes"][1].update(verified_names=["EnochRoot"])),
        ("tlog/signed_note.json", lambda d: d["vkeys"][0].update(valid=False)),
        ("tlog/signed_note.json", lambda d: d["sign"][0].update(note="another")),
        ("tlog/tlog_proof.json", lambda d: d["cases"][0].update(valid=False)),
        ("tlog/tlog_proof.json", lambda d: d["cases"][0].update(index=6)),
        ("tlog/tlog_proof.json", lambda d: d["cases"][3].update(valid=True)),
        ("tlog/c2sp_examples.json", lambda d: d["examples"].update({"tlog-checkpoint.md": ["nothing"]})),
        ("merkle/rfc6962_tree8.json", lambda d: d["root_hashes_hex"].reverse()),
        ("rfc9421/appendix_b.json", lambda d: d["request"].update(method="PUT")),
        ("rfc9421/appendix_b.json", lambda d: d["cases"][0].update(signature=d["cases"][1]["signature"])),
        ("jcs/es6_numbers_1000.txt", lambda d: d["es6_numbers"][5].__setitem__(1, "1")),
        ("jcs/input/values.json", lambda d: d.update(jcs_output=d["jcs_output"] + " ")),
        ("jcs/input/french.json", lambda d: d.update(jcs_input='{"peach": 1}')),
    ],
)
def test_a_turned_verdict_or_a_changed_text_fails(shared: Path, name: str, change: Any) -> None:
    data = _published(shared, name)
    change(data)
    assert check(data).failed


def test_documents_of_the_profile_and_others_are_told_apart() -> None:
    inside = {"a": [1, True, None, "é\u0301", {"b_0": -(2**53) + 1}], "b": '\\"'}
    outside = [{"A": 1}, {"a": 1.5}, {"a": 2**53}, {"a": "\n"}, {"": 1}, {"a1234567890123456789012345678901x": 1}]
    for value in (inside, *outside):
        data = {"jcs_input": json.dumps(value), "jcs_output": jcs.encode(value).decode()}
        report = check(data)
        assert not report.failed
        assert in_profile(value) is (value is inside)


def test_files_that_are_no_vectors(tmp_path: Path) -> None:
    for name, text in (("a.txt", "1,2,3\n"), ("b.txt", ""), ("c.json", "{"), ("d.json", "[" * 100_000)):
        (tmp_path / name).write_text(text)
        with pytest.raises(Malformed):
            load(tmp_path / name)
    bads: list[dict[str, Any]] = [
        {"jcs_input": "{", "jcs_output": "{"},
        {"es6_numbers": []},
        {"notes": [], "vkeys": [], "sign": []},
        {"cases": [{"text": 5, "valid": True}]},
        {"leaf_inputs_hex": ["zz"], "root_hashes_hex": ["00"]},
    ]
    for bad in bads:
        with pytest.raises(Malformed):
            check(bad)
