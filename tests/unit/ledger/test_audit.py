"""Row 29: a store and a log directory that were tampered with; the audit names what is wrong, every time."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tcd.cli.main import app
from tcd.errors import ConfigError
from tcd.ledger import Batch, Checkpoint, SqliteLedger
from tcd.ledger.audit import audit_store
from tcd.ledger.audit_log import audit_log
from tcd.ledger.findings import Audit
from tcd.ledger.sqlite import FILE
from tcd.ledger.tile_files import TileDirectory
from tcd.receipts import KeySet, VerifyPolicy
from tcd.receipts.body import head_of
from tcd.receipts.tiles import Tile
from tcd.receipts.witnessing import Seen
from tests.unit.receipts.conftest import Session
from tests.unit.receipts.simulator import LogSimulator, seed

ORIGIN = "tcd.example"


def sessions() -> list[Session]:
    made = []
    for name in ("a", "b"):
        session = Session(name=name)
        session.open()
        session.decision()
        session.decision()
        session.close()
        made.append(session)
    return made


class Store:
    """A ledger of two interleaved chains with checkpoints at 4 and 8, and the log that it is."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / FILE
        self.sessions = sessions()
        self.receipts = [r for pair in zip(*(s.receipts for s in self.sessions), strict=True) for r in pair]
        self.log = LogSimulator(witnesses=0)
        self.log.add(self.receipts)
        keys = KeySet([self.sessions[0].issuer.pinned(), *self.log.pinned()])
        self.policy = VerifyPolicy(keys, log_algorithms=frozenset({"Ed25519", "ML-DSA-44"}))

    async def fill(self) -> None:
        ledger = SqliteLedger(self.folder)
        for start in (0, 4):
            await ledger.append(Batch(tuple(self.receipts[start : start + 4])), now_us=0)
            size = start + 4
            await ledger.put_checkpoint(Checkpoint(size, self.log.tree.root(size), self.log.checkpoint(size)))
        await ledger.close()

    def seen(self, size: int = 8) -> Seen:
        return Seen(size, self.log.tree.root(size), self.log.checkpoint(size))

    def audit(self, **options: Any) -> Audit:
        return audit_store(self.path, policy=self.policy, **options)

    def tamper(self, *statements: str, guard: bool = False) -> None:
        """Change the file as somebody with write access would; `guard` leaves the triggers away."""
        with closing(sqlite3.connect(self.path)) as db:
            triggers = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            for name, _ in triggers:
                db.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                db.execute(statement)
            for _, sql in () if guard else triggers:
                db.execute(sql)
            db.commit()


@pytest.fixture
async def store(tmp_path: Path) -> Store:
    made = Store(tmp_path)
    await made.fill()
    return made


def codes(audit: Audit) -> set[str]:
    return {finding.code for finding in audit.findings}


def test_an_honest_store_has_no_findings(store: Store) -> None:
    for options in ({}, {"seen": store.seen()}, {"seen": store.seen(4)}, {"seen": store.seen(), "origin": ORIGIN}):
        audit = store.audit(**options)
        assert audit.ok, audit.findings
        assert audit.counts == {"receipts": 8, "chains": 2, "checkpoints": 2}
        assert audit.newest is not None
        assert (audit.newest[0], audit.newest[1].size) == (ORIGIN, 8)


SWAP = (
    "UPDATE receipt SET idx = 100 WHERE idx = 2",
    "UPDATE receipt SET idx = 2 WHERE idx = 4",
    "UPDATE receipt SET idx = 4 WHERE idx = 100",
    "UPDATE body SET idx = 100 WHERE idx = 2",
    "UPDATE body SET idx = 2 WHERE idx = 4",
    "UPDATE body SET idx = 4 WHERE idx = 100",
)


LAST = ("DELETE FROM receipt WHERE idx = 7", "DELETE FROM body WHERE idx = 7")
MOVED = ("UPDATE receipt SET idx = 9 WHERE idx = 7", "UPDATE body SET idx = 9 WHERE idx = 7")
EDIT = "UPDATE body SET body = CAST(replace(body, 'acme', 'acmf') AS BLOB) WHERE idx = 2"


@pytest.mark.parametrize(
    ("name", "statements", "expected"),
    [
        (
            "row edited: body",
            (EDIT,),
            "head_mismatch",
        ),
        ("row edited: column", ("UPDATE receipt SET tenant = 'other' WHERE idx = 2",), "row_mismatch"),
        ("row edited: time", ("UPDATE receipt SET ts_us = ts_us + 1 WHERE idx = 7",), "row_mismatch"),
        ("row edited: signature", ("UPDATE receipt SET sig = zeroblob(64) WHERE idx = 2",), "bad_signature"),
        ("row edited: head", ("UPDATE receipt SET head = zeroblob(32) WHERE idx = 2",), "head_mismatch"),
        ("row deleted", ("DELETE FROM receipt WHERE idx = 2",), "index_gap"),
        ("last row deleted", LAST, "rollback"),
        ("rows swapped", SWAP, "inconsistent_log"),
        ("index gap", MOVED, "index_gap"),
        ("body of no receipt", ("INSERT INTO body VALUES (99, x'7b7d')",), "orphan_body"),
        ("body before all receipts", ("INSERT INTO body VALUES (-1, x'7b7d')",), "orphan_body"),
        ("body of a deleted receipt", ("DELETE FROM receipt WHERE idx = 2",), "orphan_body"),
        ("body of a hidden receipt", ("UPDATE receipt SET idx = -3 WHERE idx = 2",), "orphan_body"),
        ("chain state", ("UPDATE chain SET seq = seq - 1",), "chain_state"),
        ("chain forgotten", ("DELETE FROM chain",), "chain_state"),
        ("checkpoint: root", ("UPDATE checkpoint SET root = zeroblob(32) WHERE size = 4",), "inconsistent_log"),
        ("checkpoint: note", ("UPDATE checkpoint SET note = x'00' WHERE size = 4",), "malformed_note"),
        ("checkpoint: size", ("UPDATE checkpoint SET size = 5 WHERE size = 4",), "row_mismatch"),
    ],
)
def test_row_29_each_change_is_found(store: Store, name: str, statements: tuple[str, ...], expected: str) -> None:
    store.tamper(*statements)
    audit = store.audit(seen=store.seen())
    assert expected in codes(audit), (name, audit.findings)


def test_row_29_guards_that_were_dropped_are_found(store: Store) -> None:
    store.tamper(guard=True)
    found = store.audit().findings
    assert {finding.code for finding in found} == {"guard_missing", "schema_changed"}
    assert [finding.where for finding in found if finding.code == "schema_changed"] == [
        "table, index or trigger body_gone"
    ]


def test_row_29_body_and_head_edited_together(store: Store) -> None:
    """The thief of the disk has no key: the signature, the links and the checkpoint all speak."""
    body = store.receipts[2].body.replace(b'"acme"', b'"acmf"')
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("DROP TRIGGER receipt_no_UPDATE")
        db.execute("UPDATE body SET body = ? WHERE idx = 2", (body,))
        db.execute("UPDATE receipt SET head = ?, tenant = 'acmf' WHERE idx = 2", (head_of(body),))
        db.commit()
    assert {"bad_signature", "prev_mismatch", "inconsistent_log", "guard_missing"} <= codes(store.audit())


def test_row_29_row_inserted(store: Store) -> None:
    extra = Session(name="c").open()
    columns = (
        8,
        extra.head,
        extra.sig,
        extra.kid,
        extra.typ,
        extra.tenant,
        seed("c"),
        extra.seq,
        bytes(32),
        extra.ts_us,
    )
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("INSERT INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", columns)
        db.execute("INSERT INTO body VALUES (8, ?)", (extra.body,))
        db.commit()
    assert {"row_mismatch", "chain_state"} <= codes(store.audit())


async def test_row_29_a_tail_restored_from_a_backup(store: Store, tmp_path: Path) -> None:
    """A whole older ledger is consistent in itself; only a checkpoint seen before tells."""
    backup = Store(tmp_path / "backup")
    ledger = SqliteLedger(backup.folder)
    await ledger.append(Batch(tuple(store.receipts[:6])), now_us=0)
    await ledger.put_checkpoint(Checkpoint(4, store.log.tree.root(4), store.log.checkpoint(4)))
    await ledger.close()
    backup.policy = store.policy
    assert backup.audit().ok
    assert codes(backup.audit(seen=store.seen())) == {"rollback"}
    other = LogSimulator(witnesses=0)
    other.add(store.receipts[::-1])
    assert codes(backup.audit(seen=Seen(6, other.tree.root(6)))) == {"equivocation"}


def test_keys_that_are_not_pinned_and_erased_bodies(store: Store) -> None:
    store.policy = VerifyPolicy(KeySet(store.log.pinned()))
    assert codes(store.audit()) == {"unknown_key"}
    store.tamper("DELETE FROM body WHERE idx = 2")
    audit = store.audit()
    assert audit.counts["bodies erased"] == 1


async def test_a_store_in_use_or_none_is_not_audited(store: Store, tmp_path: Path) -> None:
    ledger = SqliteLedger(store.folder)
    with pytest.raises(ConfigError, match="server uses"):
        store.audit()
    await ledger.close()
    assert store.audit().ok
    (tmp_path / "x.sqlite").write_bytes(b"nothing" * 1000)
    with closing(sqlite3.connect(tmp_path / "y.sqlite")) as db:
        db.execute("CREATE TABLE t (x)")
        db.commit()
    for name in ("x.sqlite", "y.sqlite", "z.sqlite"):
        with pytest.raises(ConfigError):
            audit_store(tmp_path / name, policy=store.policy)


def test_the_audit_only_reads(store: Store) -> None:
    before = store.path.read_bytes()
    store.audit()
    assert store.path.read_bytes() == before


def export(store: Store, folder: Path, *sizes: int) -> TileDirectory:
    directory, at = TileDirectory(folder), 0
    for size in sizes:
        directory.export([r.head for r in store.receipts[at:size]], store.log.checkpoint(size))
        at = size
    return directory


def test_an_honest_log_directory_has_no_findings(store: Store, tmp_path: Path) -> None:
    directory = export(store, tmp_path / "log", 4, 8)
    heads = [r.head for r in store.receipts]
    for seen in (None, store.seen(4), store.seen(8), Seen(0, store.log.tree.root(0))):
        audit = audit_log(directory.root, policy=store.policy, origin=ORIGIN, seen=seen, heads=iter(heads))
        assert audit.ok, audit.findings
    assert audit.counts["leaves"] == 8
    ahead = audit_log(directory.root, policy=store.policy, origin=ORIGIN, heads=iter([*heads, bytes(32)]))
    assert (ahead.ok, ahead.counts["ledger ahead of the log"]) == (True, 1)
    other = audit_log(directory.root, policy=store.policy, origin=ORIGIN, heads=iter(heads[::-1]))
    assert codes(other) == {"inconsistent_log"}
    with pytest.raises(ConfigError, match="no checkpoint"):
        audit_log(tmp_path / "empty", policy=store.policy, origin=ORIGIN)


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


def _replace(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda root: _flip(root / Tile(0, 0, 8).path()), "malformed_tile"),
        (lambda root: _flip(root / Tile(-1, 0, 8).path()), "malformed_tile"),
        (lambda root: _flip(root / Tile(0, 0, 4).path()), "malformed_tile"),
        (lambda root: (root / Tile(0, 0, 8).path()).unlink(), "malformed_tile"),
        (lambda root: (root / Tile(-1, 0, 8).path()).unlink(), "malformed_tile"),
        (lambda root: (root / Tile(0, 0, 8).path()).write_bytes(b"short"), "malformed_tile"),
        (lambda root: (root / "tile" / "0" / "README").write_text("x"), "unknown_file"),
        (lambda root: _replace(root / "checkpoint", b"\n8\n", b"\n9\n"), "bad_signature"),
        (lambda root: _replace(root / "checkpoint", ORIGIN.encode(), b"tcd.exampla"), "wrong_origin"),
        (lambda root: (root / "checkpoint").write_bytes(b"x"), "malformed_note"),
    ],
)
def test_a_log_directory_that_was_changed_is_found(
    store: Store, tmp_path: Path, change: Callable[[Path], Any], expected: str
) -> None:
    directory = export(store, tmp_path / "log", 4, 8)
    change(directory.root)
    assert expected in codes(audit_log(directory.root, policy=store.policy, origin=ORIGIN))


def test_a_rolled_back_or_forked_directory_is_found(store: Store, tmp_path: Path) -> None:
    old = export(store, tmp_path / "old", 4)
    assert codes(audit_log(old.root, policy=store.policy, origin=ORIGIN, seen=store.seen())) == {"rollback"}
    fork = LogSimulator(witnesses=0)
    heads = [seed(f"fork{number}") for number in range(9)]
    for head in heads:
        fork.tree.append(head)
    forked = TileDirectory(tmp_path / "fork")
    for size, code in ((8, "equivocation"), (9, "inconsistent_log")):
        forked.export(heads[forked.size() : size], fork.checkpoint(size))
        audit = audit_log(forked.root, policy=store.policy, origin=ORIGIN, seen=store.seen())
        assert (codes(audit), audit.newest) == ({code}, None)
    wrong = audit_log(forked.root, policy=store.policy, origin="other.example")
    assert codes(wrong) == {"wrong_origin"}


def test_the_commands_say_what_they_found(store: Store, tmp_path: Path) -> None:
    export(store, tmp_path / "log", 4, 8)
    keys, state = tmp_path / "keys.json", tmp_path / "state.json"
    keys.write_text(json.dumps(store.policy.keys.to_json()))
    runner = CliRunner()

    def run(*arguments: str) -> tuple[int, Any]:
        more = ("--keyset", str(keys), "--origin", ORIGIN, "--state", str(state), "--json")
        result = runner.invoke(app, ["audit", *arguments, *more])
        return result.exit_code, json.loads(result.stdout or "null")

    for what, where in (("store", store.folder), ("log", tmp_path / "log"), ("store", store.path)):
        assert run(what, str(where))[0] == 0
    assert json.loads(state.read_text())["logs"][0]["size"] == 8
    shutil.rmtree(tmp_path / "log")
    export(store, tmp_path / "log", 4)
    code, found = run("log", str(tmp_path / "log"))
    assert (code, found["findings"][0]["code"]) == (1, "rollback")
    store.tamper("DELETE FROM receipt WHERE idx = 2")
    assert run("store", str(store.folder))[0] == 1
    assert run("store", str(tmp_path / "missing"))[0] == 2
    text = runner.invoke(app, ["audit", "store", str(store.folder), "--keyset", str(keys)]).stdout
    assert "index_gap" in text
    assert text.splitlines()[-1].startswith("FINDINGS")
