"""Erased bodies are in no file of a SQLite ledger and its index any more: every stretch of them is looked for."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tcd.ledger import Batch, Idempotent, SqliteLedger, sqlite_store
from tcd.ledger.search import ReceiptIndex
from tcd.receipts import Receipt
from tests.unit.ledger.records import erasing
from tests.unit.receipts.conftest import Session

SESSIONS = 30
_STRETCH = 32


def sessions(source: random.Random) -> list[list[Receipt]]:
    """Records of sessions with subjects, texts and sizes of their own; some bodies are longer than a page."""
    made = []
    for number in range(SESSIONS):
        session = Session(name=f"s{source.getrandbits(64):x}", tenant=f"tenant{number % 3}")
        session.open()
        for _ in range(source.randint(1, 4)):
            text = f"{source.getrandbits(2000):x}"
            tags = [f"{source.getrandbits(200):x}" for _ in range(source.randint(0, 16))]
            decision = session.decision(guarantee=text[: source.randint(1, 500)])
            del session.receipts[-1]
            decided = {**_members(decision)["decision"], "tags": tags}
            session.decision(guarantee=text[: source.randint(1, 500)], decision=decided)
        made.append(session.receipts)
    return made


def _members(receipt: Receipt) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(receipt.body)
    return value


def stretches(gone: Iterable[Receipt], kept: Iterable[Receipt]) -> set[bytes]:
    """Parts of bodies that are gone and that no body has that is kept."""
    there = b"".join(receipt.body for receipt in kept)
    parts = {r.body[at : at + _STRETCH] for r in gone for at in range(0, len(r.body) - _STRETCH, _STRETCH)}
    return {part for part in parts if part not in there}


def seen(folder: Path, parts: set[bytes]) -> int:
    """How many of the parts are in any file."""
    files = b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return sum(part in files for part in parts)


class Filled:
    """A ledger with an index, and which of its sessions go."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        source = random.Random(seed)  # noqa: S311 - reproducible
        made = sessions(source)
        gone = set(source.sample(range(SESSIONS), SESSIONS // 2))
        order = [(n, r) for n, receipts in enumerate(made) for r in receipts]
        self.order = [receipt for _, receipt in order]
        self.places = tuple(at for at, (n, _) in enumerate(order) if n in gone)
        self.parts = stretches(
            (r for n, r in order if n in gone), (r for n, r in order if n not in gone)
        )  # fmt: skip
        self.kept = stretches((r for n, r in order if n not in gone), (r for n, r in order if n in gone))

    async def fill(self) -> SqliteLedger:
        ledger = SqliteLedger(self.folder)
        for at in range(0, len(self.order), 5):
            page = self.order[at : at + 5]
            answers = tuple(Idempotent("t", r.head_hex, "p", r.body * 2, r.head_hex, 10**15) for r in page)
            await ledger.append(Batch(tuple(page), answers=answers), now_us=0)
        return ledger

    async def erase(self, ledger: SqliteLedger) -> None:
        heads = [self.order[place].head for place in self.places]
        await ledger.append(Batch(erasing(self.places, heads), erase=self.places), now_us=0)


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_of_an_erased_body_is_left_in_a_file(tmp_path: Path, seed: int) -> None:
    made = Filled(tmp_path, seed)
    ledger = await made.fill()
    index = ReceiptIndex(tmp_path / "search.sqlite", ledger)
    await index.catch_up()
    assert len(made.parts) > 500
    assert seen(tmp_path, made.parts) == len(made.parts)
    await made.erase(ledger)
    await index.catch_up()
    # committed, and still in the WAL
    assert seen(tmp_path, made.parts) > 0
    await ledger.scrub()
    await index.scrub()
    assert seen(tmp_path, made.parts) == 0
    assert seen(tmp_path, made.kept) == len(made.kept)
    found = {f.index: f for f in await index.search({}, limit=1000)}
    assert {at for at, f in found.items() if f.erased} == set(made.places)
    assert {f.subject for at, f in found.items() if at in made.places} == {None}
    await ledger.close()
    await index.close()
    assert seen(tmp_path, made.parts) == 0


async def test_after_a_crash_before_the_files_were_overwritten_the_next_start_does_it(tmp_path: Path) -> None:
    made = Filled(tmp_path / "a", 7)
    ledger = await made.fill()
    await made.erase(ledger)
    shutil.copytree(tmp_path / "a", tmp_path / "b", ignore=shutil.ignore_patterns("*-shm", "*.lock"))
    await ledger.close()
    assert seen(tmp_path / "b", made.parts) > 0
    again = SqliteLedger(tmp_path / "b")
    assert (await again.stats()).bodies_erased == len(made.places)
    assert seen(tmp_path / "b", made.parts) == 0
    await again.close()


async def test_the_look_through_the_files_would_find_what_sqlite_only_marks_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without `secure_delete`: the experiment can fail."""
    weak = tuple(p.replace("secure_delete=ON", "secure_delete=OFF") for p in sqlite_store._PRAGMAS)
    monkeypatch.setattr(sqlite_store, "_PRAGMAS", weak)
    made = Filled(tmp_path, 0)
    ledger = await made.fill()
    await made.erase(ledger)
    await ledger.scrub()
    assert seen(tmp_path, made.parts) > 0
    await ledger.close()


async def test_an_index_that_has_never_seen_the_bodies_knows_what_is_left(tmp_path: Path) -> None:
    made = Filled(tmp_path, 3)
    ledger = await made.fill()
    await made.erase(ledger)
    index = ReceiptIndex(tmp_path / "search.sqlite", ledger)
    await index.catch_up()
    first = made.places[0]
    (found,) = [f for f in await index.search({"typ": "open"}, limit=1000) if f.index == first]
    assert (found.erased, found.tenant, found.head) == (True, made.order[first].tenant, made.order[first].head_hex)
    await ledger.close()
    await index.close()
    with sqlite3.connect(tmp_path / "search.sqlite") as plain:
        assert plain.execute("SELECT count(*) FROM receipt WHERE erased AND subject IS NOT NULL").fetchone() == (0,)
