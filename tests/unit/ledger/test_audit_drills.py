"""Tampering drills: each hand that changes the file, and the code and the place by which the audit names it."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tcd.bench.audit.synthetic import Writer, keyset
from tcd.cli.main import app
from tcd.ledger import Batch, SqliteLedger
from tcd.ledger.findings import MEANINGS
from tcd.receipts import Receipt, SigningKey
from tcd.receipts.body import head_of
from tcd.receipts.log_signer import LogSigner
from tcd.risk_av import EpochOpened
from tests.unit.ledger.drills import Ledger, make, written
from tests.unit.ledger.records import erasing

EDIT = """UPDATE body SET body = CAST(replace(body, '"model0"', '"model1"') AS BLOB) WHERE idx = :at"""
UNSIGN = "UPDATE receipt SET sig = zeroblob(64) WHERE idx = :at"
DELETE = ("DELETE FROM receipt WHERE idx = :at", "DELETE FROM body WHERE idx = :at")


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return make(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def ledger(honest: Ledger, tmp_path: Path) -> Ledger:
    return honest.copy(tmp_path / "ledger")


def sizes(ledger: Ledger) -> tuple[int, int]:
    half, whole = sorted(ledger.seen)
    return half, whole


def test_an_honest_ledger_has_no_findings(ledger: Ledger) -> None:
    result = ledger.audit(seen=tuple(ledger.seen.values()))
    assert result.audit.findings == []
    decisions = sum(receipt.typ == "decision" for receipt in ledger.receipts)
    counts = result.replay
    assert counts["decisions"] == counts["trigger"] == counts["level recomputed"] == decisions == 216
    assert counts["p-value"] == decisions - 12
    assert counts["events"] == len(ledger.events())
    assert (result.budgets.epochs, result.budgets.within) == (8, 8)
    assert (result.log["checkpointed"], result.log["size"]) == (ledger.size, ledger.size)


# -- rows ------------------------------------------------------------------------------------------------------------


def test_a_body_is_edited(ledger: Ledger) -> None:
    at = ledger.decision(5)
    ledger.do(EDIT, at=at)
    assert ledger.found() == [("head_mismatch", f"receipt {at}")]


@pytest.mark.parametrize(
    "column",
    [
        "UPDATE receipt SET tenant = 'other' WHERE idx = :at",
        "UPDATE receipt SET ts_us = ts_us + 1 WHERE idx = :at",
        "UPDATE receipt SET typ = 'gap' WHERE idx = :at",
        "UPDATE receipt SET kid = 'ff' WHERE idx = :at",
    ],
)
def test_a_column_is_edited(ledger: Ledger, column: str) -> None:
    at = ledger.decision(7)
    ledger.do(column, at=at)
    assert ("row_mismatch", f"receipt {at}") in ledger.found()


def test_a_signature_is_edited(ledger: Ledger) -> None:
    at = ledger.decision(7)
    ledger.do(UNSIGN, at=at)
    assert ledger.found() == [("bad_signature", f"receipt {at}")]


def test_a_row_is_deleted(ledger: Ledger) -> None:
    half, whole = sizes(ledger)
    at = ledger.decision(4)
    assert at < half
    ledger.do(*DELETE, at=at)
    assert ledger.found() == [
        ("index_gap", f"receipt {at}"),
        ("seq_gap", f"receipt {ledger.after(at)}"),
        # the first half is one leaf short, so that its root is that of other leaves; the whole is never reached
        ("inconsistent_log", f"checkpoint {half}"),
        ("rollback", f"checkpoint {whole}"),
    ]


def test_the_last_row_is_deleted(ledger: Ledger) -> None:
    _, whole = sizes(ledger)
    last = whole - 1
    ledger.do(*DELETE, at=last)
    chain = ledger.receipts[last].chain.removeprefix("sha256:")[:16]
    assert ledger.found() == [("rollback", f"checkpoint {whole}"), ("chain_state", f"chain {chain}")]
    # of a ledger in use chains may be ahead of what is audited, but no checkpoint may
    assert ledger.found(live=True) == [("rollback", f"checkpoint {whole}")]


def insert(ledger: Ledger, receipt: Receipt) -> int:
    at = ledger.size
    with ledger.changing() as db:
        db.execute(
            "INSERT INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                at, receipt.head, receipt.sig, receipt.kid, receipt.typ, receipt.tenant,
                bytes.fromhex(receipt.chain.removeprefix("sha256:")), receipt.seq, bytes.fromhex(receipt.prev),
                receipt.ts_us,
            ),
        )  # fmt: skip
        db.execute("INSERT INTO body VALUES (?, ?)", (at, receipt.body))
    return at


def test_a_row_of_the_issuers_own_is_inserted(ledger: Ledger) -> None:
    """A record that another ledger of the same key has: its signature is good, its place is not."""
    extra = next(r for r in Writer(1).session(0) if r.typ == "open" and b'"session"' in r.body)
    at = insert(ledger, extra)
    chain = extra.chain.removeprefix("sha256:")[:16]
    result = ledger.audit()
    assert [(f.code, f.where) for f in result.audit.findings] == [("chain_state", f"chain {chain}")]
    assert result.log["checkpointed"] == at


def test_a_forged_row_is_inserted(ledger: Ledger) -> None:
    forger = Writer(1)
    forger._issuer._key = SigningKey(b"\x66" * 32)
    extra = next(r for r in forger.session(0) if r.typ == "open")
    at = insert(ledger, extra)
    assert ("unknown_key", f"receipt {at}") in ledger.found()


def test_rows_are_swapped(ledger: Ledger) -> None:
    """Two sessions change places: every chain is whole, and the log is another one."""
    half, whole = sizes(ledger)
    a = next(i for i in range(half) if ledger.receipts[i].typ == "close")
    b = next(i for i in range(a + 1, half) if ledger.receipts[i].typ == "open" and ledger.receipts[i].seq == 0)
    for old, new in ((a, -1), (b, a), (-1, b)):
        moved = ("UPDATE receipt SET idx = :new WHERE idx = :old", "UPDATE body SET idx = :new WHERE idx = :old")
        ledger.do(*moved, old=old, new=new)
    result = ledger.audit()
    assert [(f.code, f.where) for f in result.audit.findings] == [
        ("inconsistent_log", f"checkpoint {half}"),
        ("inconsistent_log", f"checkpoint {whole}"),
    ]
    assert f"receipts 0..{half - 1} differ" in result.audit.findings[0].detail
    assert result.log["checkpointed"] == 0


def test_body_and_head_are_edited_together(ledger: Ledger) -> None:
    """Everything that needs no key is put right; the key, the next record and the log speak."""
    half, whole = sizes(ledger)
    at = ledger.decision(9)
    body = ledger.receipts[at].body.replace(b'"model0"', b'"model1"')
    with ledger.changing() as db:
        db.execute("UPDATE body SET body = ? WHERE idx = ?", (body, at))
        db.execute("UPDATE receipt SET head = ? WHERE idx = ?", (head_of(body), at))
    assert ledger.found() == [
        ("bad_signature", f"receipt {at}"),
        ("prev_mismatch", f"receipt {ledger.after(at)}"),
        ("inconsistent_log", f"checkpoint {half}"),
        ("inconsistent_log", f"checkpoint {whole}"),
    ]


# -- whole files -----------------------------------------------------------------------------------------------------


def cut(ledger: Ledger, size: int) -> None:
    """As a backup of an earlier time would be."""
    receipts = ledger.receipts[:size]
    tips = {r.chain: r for r in receipts}
    events = sum(1 for _ in ledger.events())
    with ledger.changing() as db:
        db.execute("DELETE FROM receipt WHERE idx >= ?", (size,))
        db.execute("DELETE FROM body WHERE idx >= ?", (size,))
        db.execute("DELETE FROM checkpoint WHERE size > ?", (size,))
        db.execute("DELETE FROM chain")
        for chain, r in tips.items():
            values = (bytes.fromhex(chain[7:]), r.seq + 1, r.head, int(r.typ == "close"), r.ts_us)
            db.execute("INSERT INTO chain VALUES (?, ?, ?, ?, ?)", values)
        db.execute("DELETE FROM event WHERE idx >= ?", (events // 2,))
    ledger.receipts = receipts


def test_an_older_backup_is_put_back(ledger: Ledger) -> None:
    half, whole = sizes(ledger)
    cut(ledger, half)
    # alone it is an honest ledger of an earlier time
    assert ledger.found() == []
    assert ledger.found(seen=(ledger.seen[half],)) == []
    assert ledger.found(seen=(ledger.seen[whole],)) == [("rollback", "ledger")]
    note = ledger.seen[whole].note
    assert ledger.found(notes=(note,), origin="audit.bench") == [("rollback", "ledger")]


def test_the_whole_database_is_replaced(ledger: Ledger, tmp_path: Path) -> None:
    half, _ = sizes(ledger)
    same = make(tmp_path / "same", seed=1)
    assert same.found() == []
    assert same.found(seen=(ledger.seen[half],)) == [("equivocation", "ledger")]
    # longer than what was seen, too: the history is another one
    assert ("equivocation", "ledger") in same.found(seen=tuple(ledger.seen.values()))
    other = Writer(2)
    other._issuer._key = SigningKey(b"\x66" * 32)
    other._writer = other._issuer.writer(config="sha256:" + "d" * 64, policy="sha256:" + "d" * 64)
    foreign = make(tmp_path / "foreign", writer=other)
    found = foreign.found()
    assert {code for code, _ in found} == {"unknown_key"}
    assert [where for _, where in found] == [f"receipt {i}" for i in range(foreign.size)]


def test_a_checkpoint_is_forged(ledger: Ledger) -> None:
    half, _ = sizes(ledger)
    forger = LogSigner("audit.bench", [SigningKey(b"\x66" * 32)])
    note = forger.checkpoint(half, ledger.seen[half].root)
    with ledger.changing() as db:
        db.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (note, half))
    assert ledger.found() == [("missing_signature", f"checkpoint {half}")]
    lines = ledger.seen[half].note.split(b"\n")
    raw = bytearray(base64.b64decode(lines[4].rsplit(b" ", 1)[1]))
    raw[-1] ^= 1
    lines[4] = lines[4].rsplit(b" ", 1)[0] + b" " + base64.b64encode(bytes(raw))
    with ledger.changing() as db:
        db.execute("UPDATE checkpoint SET note = ? WHERE size = ?", (b"\n".join(lines), half))
    assert ledger.found() == [("bad_signature", f"checkpoint {half}")]
    ledger.do("UPDATE checkpoint SET root = zeroblob(32) WHERE size = :size", size=half)
    assert ("inconsistent_log", f"checkpoint {half}") in ledger.found()


def test_given_checkpoints_are_looked_at_before_they_count(ledger: Ledger) -> None:
    half, _ = sizes(ledger)
    forged = LogSigner("audit.bench", [SigningKey(b"\x66" * 32)]).checkpoint(half, bytes(32))
    found = ledger.found(notes=(ledger.seen[half].note, forged, b"nothing"), origin="audit.bench")
    assert found == [("missing_signature", "given checkpoint 2"), ("malformed_note", "given checkpoint 3")]


def test_the_tables_are_made_anew_without_their_constraints(ledger: Ledger) -> None:
    with ledger.changing() as db:
        db.execute("CREATE TABLE other AS SELECT * FROM receipt")
        db.execute("DROP TABLE receipt")
        db.execute("ALTER TABLE other RENAME TO receipt")
    assert ("schema_changed", "table, index or trigger receipt") in ledger.found()


# -- budgets ---------------------------------------------------------------------------------------------------------


def numbered(ledger: Ledger, kind: str) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((at, event) for at, event in enumerate(ledger.events()) if event["t"] == kind)


def test_a_cost_is_rewritten(ledger: Ledger) -> None:
    at, event = list(numbered(ledger, "reserve"))[3]
    ledger.rewrite({at: {**event, "cost": "3f50624dd2f1a9fc"}})
    found = ledger.found()
    assert found[0] == ("event_mismatch", f"event {at}")


def test_an_event_is_removed(ledger: Ledger) -> None:
    at, _ = list(numbered(ledger, "settle"))[5]
    ledger.do("DELETE FROM event WHERE idx = :at", at=at)
    assert ("event_gap", f"event {at}") in ledger.found()
    last = len(ledger.events())
    ledger.do("DELETE FROM event WHERE idx = :at", at=last)
    assert ("event_gap", f"event {at}") in ledger.found()


def test_an_event_is_none(ledger: Ledger) -> None:
    at, _ = list(numbered(ledger, "settle"))[5]
    ledger.rewrite({at: {"t": "nothing"}})
    assert ("event_malformed", f"event {at}") in ledger.found()


def test_the_whole_budget_is_rewritten(ledger: Ledger, tmp_path: Path) -> None:
    """Events of a controller with twice the budget follow from each other; the receipts were signed under another."""
    other = Writer(0)
    other._controller.configure(_double(other))
    other._controller.take_events()
    richer = make(tmp_path / "richer", writer=other)
    with ledger.changing() as db:
        db.execute("DELETE FROM event")
        rows = [(at, json.dumps(event)) for at, event in enumerate(richer.events())]
        db.executemany("INSERT INTO event VALUES (?, ?)", rows)
    found = ledger.found()
    opened = [i for i, r in enumerate(ledger.receipts) if r.typ == "open" and b'"epoch"' in r.body]
    # every epoch, and the signed steps of the e-process under its terms
    assert {("budget_mismatch", f"receipt {at}") for at in opened} <= set(found)
    assert {code for code, _ in found} == {"budget_mismatch"}


def _double(writer: Writer) -> Any:
    return replace(writer._controller.params, alpha=0.1)


def test_reservations_are_dropped_from_the_end_of_the_events(ledger: Ledger) -> None:
    at, _ = list(numbered(ledger, "reserve"))[-1]
    ledger.do("DELETE FROM event WHERE idx >= :at", at=at)
    found = ledger.found()
    assert [code for code, _ in found] == ["budget_mismatch"]
    assert "epoch 1 of sha256:" in found[0][1]


class Liar(Writer):
    """Commits to half the budget that it spends, and signs it."""

    def _epoch(self, event: EpochOpened, tenant: str) -> Iterator[Receipt]:
        half = replace(event.params, alpha=event.params.alpha / 2)
        yield from super()._epoch(EpochOpened(event.stream, event.epoch, half), tenant)


def test_an_issuer_that_spends_more_than_it_committed_to(tmp_path: Path) -> None:
    """Everything is signed and consistent with the log; the arithmetic is not."""
    ledger = make(tmp_path / "liar", writer=Liar())
    codes = {code for code, _ in ledger.found()}
    assert codes == {"level_mismatch", "budget_mismatch"}
    first = next(i for i, r in enumerate(ledger.receipts) if r.typ == "decision")
    assert ("level_mismatch", f"receipt {first}") in ledger.found()


# -- bodies that are gone --------------------------------------------------------------------------------------------


def test_a_body_that_is_gone_without_a_record(ledger: Ledger) -> None:
    at = ledger.decision(3)
    with closing(sqlite3.connect(ledger.path)) as db, db:
        db.execute("DELETE FROM body WHERE idx = ?", (at,))
    assert ledger.found() == [("body_missing", f"receipt {at}")]
    # what is left of the row is still signed
    ledger.do(UNSIGN, at=at)
    assert ledger.found() == [("bad_signature", f"receipt {at}"), ("body_missing", f"receipt {at}")]
    # nor was it counted where the trigger that counts was out of the way
    other = ledger.decision(4)
    ledger.do("DELETE FROM body WHERE idx = :at", at=other)
    assert ledger.found()[2:] == [("body_missing", f"receipt {other}"), ("count_mismatch", "tally")]


@pytest.mark.parametrize("live", [False, True])
def test_the_count_of_erased_bodies_is_what_the_rows_say(ledger: Ledger, *, live: bool) -> None:
    async def erase(*places: int) -> None:
        opened = SqliteLedger(ledger.folder)
        heads = list(await opened.heads())
        record = erasing(places, [heads[at] for at in places], f"erase {places}")
        await opened.append(Batch(record, erase=places), now_us=0)
        await opened.close()

    def count(first: int | None = None, gone: int = 0) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(ledger.path)) as db, db:
            if first is not None:
                db.execute("UPDATE tally SET first = ?, gone = ?", (first, gone))
        return [found for found in ledger.found(live=live) if found[0] == "count_mismatch"]

    async def asked() -> int:
        opened = SqliteLedger(ledger.folder)
        stats = await opened.stats()
        await opened.close()
        return stats.bodies_erased

    first, second = ledger.decision(1), ledger.decision(3)
    asyncio.run(erase(first, second))
    wrong = [("count_mismatch", "tally")]
    assert count() == []
    # an older file that is counted in part
    assert count(second, 1) == []
    assert count(second + 1, 0) == []
    for edited in ((second + 1, 1), (0, 1), (0, 3), (0, -1), (-1, 2), (99_999, 0)):
        assert count(*edited) == wrong, edited
    ledger.do("DELETE FROM tally")
    assert count() == wrong
    # who asks has it made anew
    assert asyncio.run(asked()) == 2
    assert count() == []


def test_every_code_of_the_drills_says_what_it_means(ledger: Ledger) -> None:
    ledger.do("UPDATE receipt SET sig = zeroblob(64)")
    report = ledger.audit().to_json()
    assert {finding["means"] for finding in report["findings"]} == {MEANINGS["bad_signature"]}


# -- the command -----------------------------------------------------------------------------------------------------


async def test_the_command_with_everything(tmp_path: Path) -> None:
    """Over a ledger in use, with a checkpoint of a witness's, one tenant, and a report."""
    ledger = await written(tmp_path, Writer(0))
    half, _ = sizes(ledger)
    keys, note = tmp_path / "keys.json", tmp_path / "note.txt"
    keys.write_text(json.dumps(keyset().to_json()))
    note.write_bytes(ledger.seen[half].note)

    def audit(*more: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["audit", "store", str(tmp_path), "--keyset", str(keys), *more])
        return done.exit_code, done.output

    holder = SqliteLedger(tmp_path)
    assert audit()[0] == 2
    out = tmp_path / "report"
    options = ("--live", "--origin", "audit.bench", "--checkpoint", str(note))
    code, said = audit(*options, "--tenant", "tenant-0", "--out", str(out))
    assert (code, said.startswith("ok:")) == (0, True), said
    report = json.loads((out / "report.json").read_text())
    assert (report["audit"]["tenant"], report["audit"]["given_checkpoints"]) == ("tenant-0", 1)
    assert report["statistics"]["tenants"].keys() == {"tenant-0"}
    assert report["replay"]["p-value absent"] == report["replay"]["decisions"] - 2 == 34
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    await holder.close()
    for wrong in (("--checkpoint", str(tmp_path / "none")), ("--assets", str(tmp_path)), ("--policies", str(keys))):
        code, said = audit(*options, *wrong)
        assert code == 2, said
        assert said.startswith("tcd audit: ")
        assert "Traceback" not in said
