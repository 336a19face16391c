"""`tcd verify chain` over erased bodies: it says by whom where a verified record does, and only there."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tcd.cli import verify_inputs
from tcd.cli.main import app
from tcd.receipts import KeySet, Receipt
from tests.unit.receipts.conftest import Session, issuer
from tests.unit.receipts.test_erased import SHIFT, VERIFIER, body_of, erase_record, honest, log_of

NODE = shutil.which("node")
Item = dict[str, Any]


def shown(receipt: Receipt, proof: bytes, *, gone: bool = False) -> Item:
    left: Item = {"erased": body_of(receipt).members()} if gone else {"receipt_body": receipt.body_text}
    return {"receipt": receipt.head_hex, "receipt_sig": receipt.sig_hex, "proof": proof.decode(), **left}


class Told:
    """A chain in a log, with `erase` records after it, as a file."""

    def __init__(self, folder: Path, made: Sequence[Receipt], erasures: Sequence[Receipt], gone: set[int]) -> None:
        self.log = log_of(list(made), *erasures)
        self.items = [shown(r, self.log.proof(SHIFT + at), gone=at in gone) for at, r in enumerate(made)]
        self.by = [shown(r, self.log.proof(SHIFT + len(made) + at)) for at, r in enumerate(erasures)]
        self._folder = folder
        (folder / "keys.json").write_text(json.dumps(KeySet([issuer().pinned(), *self.log.pinned()]).to_json()))

    def write(self, name: str) -> Path:
        path = self._folder / name
        lines = [json.dumps(item) for item in self.items]
        path.write_text("\n".join(lines) + "\n" if name.endswith("l") else f"[{','.join(lines)}]")
        return path

    def verify(self, *options: str, name: str = "chain.json") -> Result:
        path = self.write(name)
        return CliRunner().invoke(
            app, ["verify", "chain", str(path), "--keyset", str(self._folder / "keys.json"), *options]
        )

    def said(self, **options: str) -> Any:
        done = self.verify("--json", **options)
        assert done.exit_code == 1, done.output
        return json.loads(done.stdout)


@pytest.fixture
def made(session: Session) -> list[Receipt]:
    for _ in range(4):
        session.decision()
    session.close()
    return session.receipts


@pytest.mark.parametrize("name", ["chain.json", "chain.jsonl"])
@pytest.mark.parametrize("window", [2, 3, 512])
def test_a_chain_says_who_erased_its_bodies(
    tmp_path: Path, made: list[Receipt], monkeypatch: pytest.MonkeyPatch, name: str, window: int
) -> None:
    monkeypatch.setattr(verify_inputs, "WINDOW", window)
    record = honest(made, (1, 2, 5))
    told = Told(tmp_path, made, [record], {1, 2, 4, 5})
    for at in (1, 2, 5):
        told.items[at]["erased_by"] = told.by[0]
    place = SHIFT + len(made)
    by = {"record": record.head_hex, "index": place, "ts_us": 1_760_000_000_000_000}
    by |= {"actor": 'ada + "bob"', "reason": "subject"}
    said = told.said(name=name)
    assert (said["code"], said["first_bad"], said["records"], said["erased"]) == ("erased", 1, 7, [1, 2, 4, 5])
    assert said["erased_by"] == [{"receipt": at, **by} for at in (1, 2, 5)]
    done = told.verify(name=name)
    named = f'erased by record {place} of 2025-10-09T08:53:20+00:00, actor "ada + \\"bob\\"", reason subject'
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-3:] == [
        f"  records 1 to 2: {named} ({record.head_hex})",
        "  record 4: erased, and no record beside it says by whom",
        f"  record 5: {named} ({record.head_hex})",
    ]


@pytest.mark.parametrize("window", [1, 2, 512])
def test_what_is_wrong_after_an_erased_body_comes_before_it(
    tmp_path: Path, made: list[Receipt], monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(verify_inputs, "WINDOW", window)
    told = Told(tmp_path, made, [honest(made)], {1, 2})
    for at in (1, 2):
        told.items[at]["erased_by"] = told.by[0]
    assert told.said(name="chain.jsonl")["code"] == "erased"
    told.items[5]["receipt_sig"] = made[4].sig_hex
    said = told.said(name="chain.jsonl")
    assert (said["code"], said["first_bad"], said["erased"], said["erased_by"]) == ("bad_signature", 5, [], [])
    told.items[5]["receipt_sig"] = made[5].sig_hex
    del told.items[3]
    said = told.said(name="chain.jsonl")
    assert (said["code"], said["first_bad"], said["erased"]) == ("seq_gap", 3, [])


def test_a_record_beside_an_erased_one_has_to_be_the_one_that_erased_it(tmp_path: Path, made: list[Receipt]) -> None:
    places, heads = [SHIFT + 1, SHIFT + 2], [made[1].head, made[2].head]
    wrong: dict[str, tuple[Receipt, str]] = {
        "it names others": (erase_record([SHIFT + 2], heads[1:]), "malformed_bundle"),
        "it names what is not erased here": (erase_record([0], heads[:1]), "malformed_bundle"),
        "other heads": (erase_record(places, heads[::-1]), "malformed_bundle"),
    }
    for name, (record, code) in wrong.items():
        told = Told(tmp_path, made, [record], {1, 2})
        told.items[1]["erased_by"] = told.by[0]
        said = told.said()
        assert (said["code"], said["first_bad"], said["erased_by"]) == (code, 1, []), name
        assert "erase record beside it: malformed_bundle" in told.verify().stdout
    told = Told(tmp_path, made, [honest(made)], {1, 2})
    size = SHIFT + len(made) + 1
    told.log.add(made[:1])
    changes: dict[str, tuple[Item, str]] = {
        "its signature": ({"receipt_sig": made[0].sig_hex}, "bad_signature"),
        "its head": ({"receipt": made[0].head_hex}, "head_mismatch"),
        "a proof of another record": ({"proof": told.log.proof(SHIFT, size).decode()}, "bad_inclusion"),
        "a proof of another moment": ({"proof": told.log.proof(size - 1).decode()}, "malformed_bundle"),
    }
    for name, (change, code) in changes.items():
        told.items[1]["erased_by"] = {**told.by[0], **change}
        said = told.said()
        assert (said["code"], said["erased_by"]) == (code, []), name


def test_what_is_no_erased_record_is_said(tmp_path: Path, made: list[Receipt]) -> None:
    told = Told(tmp_path, made, [honest(made)], {1})
    whole = {**told.items[1], "erased_by": told.by[0]}
    bare = {name: value for name, value in told.by[0].items() if name != "proof"}
    for wrong in (
        {**whole, "erased": {}},
        {**whole, "erased": {**whole["erased"], "more": "x"}},
        {**whole, "erased": {**whole["erased"], "kid": 1}},
        {**whole, "receipt_body": made[1].body_text},
        {**whole, "receipt": None},
        {**whole, "erased_by": bare},
        {**whole, "erased_by": []},
        {name: value for name, value in whole.items() if name != "proof"},
    ):
        told.items[1] = wrong
        assert told.verify().exit_code == 2, wrong
    told.items[1] = whole
    assert told.said()["code"] == "erased"


@pytest.mark.skipif(NODE is None, reason="node: the second verifier needs it")
def test_the_second_verifier_reads_the_same_file(tmp_path: Path, made: list[Receipt]) -> None:
    told = Told(tmp_path, made, [honest(made)], {1, 2})
    for at in (1, 2):
        told.items[at]["erased_by"] = told.by[0]
    said = told.said()
    command = [str(NODE), str(VERIFIER), str(tmp_path / "keys.json"), str(told.write("chain.json"))]
    done = subprocess.run(command, capture_output=True, check=False)
    assert json.loads(done.stdout) == {"ok": False, "code": "erased", "index": 1, "by": said["erased_by"]}
