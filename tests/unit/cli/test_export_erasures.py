"""`tcd export ... --erasures`: which bodies are gone, and verified records of who erased them."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tcd.cli.main import app
from tcd.ledger import Batch, SqliteLedger, export_erasures
from tcd.ledger.postgres import PostgresLedger
from tcd.ledger.values import Checkpoint, StoredReceipt
from tcd.receipts import ChainState, KeySet, Receipt, VerifyPolicy, chain_id
from tcd.receipts.erasure import erase_members
from tcd.receipts.records import open_plain_members
from tests.postgres import PostgresServer
from tests.unit.cli.test_export import ORIGIN, SCHEMA, check, pinned, read, sha
from tests.unit.receipts.conftest import CONFIG, POLICY, Session, issuer
from tests.unit.receipts.simulator import LogSimulator

KEY = issuer()


def erasing(name: str, places: Sequence[int], heads: Sequence[bytes], by: Any = KEY) -> list[Receipt]:
    """The opening of a chain of its own, and its record."""
    common = {"tenant": "-", "config": CONFIG, "policy": POLICY, "ts_us": 1_760_000_000_000_000, "nonce": bytes(16)}
    opened = by.issue(
        chain=ChainState(chain_id("erase", name)), typ="open", members=open_plain_members(CONFIG), **common
    )
    members = erase_members(actor="ada", reason="subject", places=places, heads=heads)
    return [opened, by.issue(chain=opened.next(), typ="erase", members=members, **common)]


class Told:
    """A ledger of ten receipts, three of which are erased on the record, then things the newest checkpoint lacks."""

    def __init__(self, folder: Path, records: Callable[[list[Receipt]], list[Receipt]]) -> None:
        session = Session(issuer=KEY)
        session.open()
        for _ in range(10):
            session.decision()
        *self.made, later = session.receipts
        self.records = records(self.made)
        self.late = erasing("late", [7], [self.made[7].head])
        self.log = LogSimulator(witnesses=0)
        self.log.add([*self.made, *self.records, later])
        self._batches = [
            *(Batch(tuple(self.made)), Batch(tuple(self.records), erase=(2, 3, 5)), Batch((later,))),
            *(Batch(tuple(self.late), erase=(7,)), Batch(erase=(8,))),
        ]
        self.folder = folder
        self.keys([KEY.pinned(), *self.log.pinned()])

    def keys(self, pinned: Sequence[Any]) -> None:
        (self.folder / "keys.json").write_text(json.dumps(KeySet(pinned).to_json()))

    async def fill(self, ledger: Any) -> None:
        for number, batch in enumerate(self._batches):
            await ledger.append(batch, now_us=0)
            if number == 2:
                size = len(self.log.tree)
                await ledger.put_checkpoint(Checkpoint(size, self.log.tree.root(), self.log.checkpoint()))
        await ledger.close()

    def export(self, *arguments: str, **env: str) -> Result:
        options = ("--keyset", str(self.folder / "keys.json"), "--origin", ORIGIN)
        return CliRunner().invoke(app, ["export", *arguments, *options], env=env)


def honest(made: list[Receipt]) -> list[Receipt]:
    return erasing("e", [2, 3, 5], [made[at].head for at in (2, 3, 5)])


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path, honest)


def checked(told: Told, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines about bodies, checked as `docs/log-export.md` says; the rest by the check of exports."""
    about = [line for line in lines if line["t"] in {"erase", "erased"}]
    heads = {line["index"]: line["head"] for line in lines if line["t"] == "head"}
    named: dict[int, list[int]] = {}
    for at, line in enumerate(lines):
        if line in about:
            assert next(one for one in lines[at::-1] if one["t"] == "head")["index"] == line["index"]
        if line["t"] == "erase":
            assert sha(b"tcd/receipt/v2/head\0", line["body"].encode()).hex() == heads[line["index"]]
            flat = json.loads(line["body"])["erase"]["leaves"]
            runs = zip(flat[::2], flat[1::2], strict=True)
            named[line["index"]] = [place for first, count in runs for place in range(first, first + count)]
    assert all(line["index"] in named[line["by"]] for line in about if line.get("by") is not None)
    check([line for line in lines if line not in about], pinned(told.log))
    return about


@pytest.mark.parametrize("page", [1, 1_024])
def test_a_ledger_says_what_is_gone_and_by_whom(told: Told, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(export_erasures, "_PAGE", page)
    monkeypatch.setattr(export_erasures, "_HEADS", page)
    asyncio.run(told.fill(SqliteLedger(told.folder / "data")))
    out = told.folder / "log.jsonl"
    done = told.export("store", str(told.folder / "data"), "--width", "4", "--erasures", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert "2 bodies are gone, and no erase record here says by whom" in done.output
    lines = read(out)
    record = told.records[1]
    assert checked(told, lines) == [
        *({"t": "erased", "index": at, "by": 11} for at in (2, 3, 5)),
        # one was erased after the checkpoint, of the other nobody says anything
        *({"t": "erased", "index": at, "by": None} for at in (7, 8)),
        {"t": "erase", "index": 11, "body": record.body_text, "sig": record.sig_hex},
    ]
    assert json.loads(lines[-1]["note"].split("\n")[1]) == 13
    plain = told.export("store", str(told.folder / "data"), "--width", "4")
    assert [json.loads(line) for line in plain.stdout.splitlines()] == [
        line for line in lines if line["t"] not in {"erase", "erased"}
    ]
    rest = told.export("store", str(told.folder / "data"), "--width", "4", "--first", "8", "--erasures")
    said = [json.loads(line) for line in rest.stdout.splitlines() if line.startswith("{")]
    assert [(line["t"], line["index"]) for line in said if line["t"].startswith("erase")] == [
        ("erased", 8), ("erase", 11),
    ]  # fmt: skip


def test_the_first_of_the_records_that_name_a_leaf_is_told() -> None:
    """Runs that overlap and end before others, beside a search through all of them."""

    class Log:
        """Of leaves that are all erased; records are given by their places and what they name."""

        def __init__(self, named: dict[int, list[int]]) -> None:
            self._heads = [sha(b"%d" % at) for at in range(60)]
            self._made = {}
            for at, places in named.items():
                _, record = erasing(str(at), places, [self._heads[place] for place in places])
                self._made[at], self._heads[at] = record, record.head

        def heads(self, first: int, limit: int) -> Sequence[bytes]:
            return self._heads[first : first + limit]

        def checkpoint(self, covering: int | None = None) -> None:
            """None is asked for."""

        def gone(self, first: int, end: int) -> Sequence[int]:
            return range(first, min(end, 40))

        def erase_records(self, first: int, limit: int) -> Sequence[StoredReceipt]:
            there = sorted(at for at in self._made if at >= first)[:limit]
            return [StoredReceipt(at, self._made[at].head_hex, self._made[at]) for at in there]

    rng = random.Random(3)  # noqa: S311 - seeded
    for _ in range(20):
        named = {at: sorted(rng.sample(range(40), rng.randint(1, 12))) for at in rng.sample(range(40, 60), 4)}
        erasures = export_erasures.Erasures(Log(named), VerifyPolicy(KeySet([KEY.pinned()])), first=0, size=60)
        said = [line for at in range(60) for line in erasures.lines(at)]
        assert [line["by"] for line in said if line["t"] == "erased"] == [
            min((at for at, places in named.items() if place in places), default=None) for place in range(40)
        ]
        assert [line["index"] for line in said if line["t"] == "erase"] == sorted(named)


def test_the_schema_has_both_lines() -> None:
    kinds = {one["$ref"].rpartition("/")[2] for one in json.loads(SCHEMA.read_text())["oneOf"]}
    assert {"erase", "erased"} <= kinds


def test_a_postgresql_ledger_says_so_too(told: Told, postgres: PostgresServer) -> None:
    url = postgres.place()

    async def made() -> None:
        await told.fill(await PostgresLedger.open(url))

    asyncio.run(made())
    done = told.export("postgresql", "--erasures", TCD_LEDGER=url)
    assert done.exit_code == 0, done.output
    about = checked(told, [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")])
    assert [(line["index"], line.get("by")) for line in about] == [
        (2, 11), (3, 11), (5, 11), (7, None), (8, None), (11, None),
    ]  # fmt: skip


STRANGER = issuer(9)
WRONG: dict[str, tuple[Callable[[list[Receipt]], list[Receipt]], str]] = {
    "a key that is not pinned": (
        lambda made: erasing("e", [2, 3, 5], [made[at].head for at in (2, 3, 5)], STRANGER),
        "unknown_key: erase record 11",
    ),
    "other heads": (
        lambda made: erasing("e", [2, 3, 5], [made[at].head for at in (5, 3, 2)]),
        "inconsistent_log: erase record 11",
    ),
    "what is not before it": (
        lambda made: erasing("e", [2, 3, 5, 12], [made[at].head for at in (2, 3, 5, 6)]),
        "inconsistent_log: erase record 11",
    ),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_record_that_is_not_in_order_is_not_written(tmp_path: Path, name: str) -> None:
    records, said = WRONG[name]
    told = Told(tmp_path, records)
    asyncio.run(told.fill(SqliteLedger(tmp_path / "data")))
    out = tmp_path / "log.jsonl"
    done = told.export("store", str(tmp_path / "data"), "--erasures", "--out", str(out))
    assert (done.exit_code, out.exists()) == (1, False)
    assert said in done.output
    assert told.export("store", str(tmp_path / "data"), "--out", str(out)).exit_code == 0


def test_receipt_keys_have_to_be_pinned_and_signatures_have_to_fit(told: Told) -> None:
    asyncio.run(told.fill(SqliteLedger(told.folder / "data")))
    command = ("store", str(told.folder / "data"), "--erasures")
    told.keys(told.log.pinned())
    done = told.export(*command)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "unknown_key" in done.output
    told.keys([KEY.pinned(), *told.log.pinned()])
    with sqlite3.connect(told.folder / "data" / "ledger.sqlite") as database:
        names = database.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'receipt'")
        for (name,) in names.fetchall():
            database.execute(f"DROP TRIGGER {name}")
        database.execute("UPDATE receipt SET sig = ? WHERE idx = 11", (told.made[0].sig,))
    database.close()
    done = told.export(*command)
    assert (done.exit_code, "bad_signature: erase record 11" in done.output) == (1, True)
