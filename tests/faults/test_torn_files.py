"""A WAL that is cut or damaged anywhere: the ledger is what it was after some batch, or says why it is not."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tcd.errors import ConfigError, Unavailable
from tcd.ledger import Batch, SavedState, SqliteLedger
from tcd.ledger.sqlite import FILE
from tcd.risk_av import Controller, ReplayError
from tests.unit.ledger.records import answer, records

WAL_HEADER, FRAME_HEADER, PAGE = 32, 24, 4096
BATCHES = 8


async def make(directory: Path) -> list[tuple[int, int]]:
    """A ledger whose whole history is in its WAL; receipts and events after each batch."""
    ledger = SqliteLedger(directory / "live")
    controller = Controller()
    after = [(0, 0)]
    for i in range(BATCHES):
        controller.reserve(stream="s", hypothesis=str(i))
        batch = Batch(tuple(records(str(i), 3)), controller.take_events(), (answer(str(i), expires=10**9),))
        done = await ledger.append(batch, now_us=0)
        after.append((done.size, done.events))
        if i == BATCHES // 2:
            await ledger.put_state(SavedState(done.events, controller.save()))
    shutil.copytree(directory / "live", directory / "torn", ignore=shutil.ignore_patterns("*-shm"))
    await ledger.close()
    return after


def places(size: int) -> list[int]:
    """Every class of offset: in the header, at each frame's header and page, at their ends, in the middle."""
    frame = FRAME_HEADER + PAGE
    found = {0, 1, 8, 16, 24, WAL_HEADER - 1}
    for start in range(WAL_HEADER, size, frame):
        found |= {start, start + 4, start + 8, start + 16, start + FRAME_HEADER, start + FRAME_HEADER + 700}
        found |= {start + frame - 1}
    return sorted(at for at in found if at < size)


def some(offsets: list[int], count: int) -> list[int]:
    chosen: list[int] = np.random.default_rng(1).choice(offsets, size=count, replace=False).tolist()
    return chosen


async def look(directory: Path) -> tuple[int, int]:
    """Receipts and events of a ledger; all that it says fits together."""
    ledger = SqliteLedger(directory)
    try:
        stats = await ledger.stats()
        heads = await ledger.heads()
        assert len(heads) == stats.receipts
        for index, head in enumerate(heads):
            stored = await ledger.get(head.hex())
            assert stored is not None
            assert stored.receipt is not None
            assert stored.index == index
            assert hashlib.sha256(b"tcd/receipt/v2/head\0" + stored.receipt.body).digest() == head
            assert await ledger.chain(stored.receipt.chain) is not None
        page = await ledger.events()
        assert Controller.replay(page.events).count == bool(page.events)
        for events in await ledger.states():
            assert Controller.replay(page.events[:events]).save() == (await ledger.state(events)).data
        assert stats.answers == stats.receipts // 3
        return stats.receipts, stats.events
    finally:
        await ledger.close()


@pytest.mark.parametrize("how", ["cut", "flip", "zeros"])
async def test_a_torn_wal_gives_a_whole_batch_or_a_reason(tmp_path: Path, how: str) -> None:
    after = await make(tmp_path)
    wal = (tmp_path / "torn" / f"{FILE}-wal").read_bytes()
    seen: set[tuple[int, int]] = set()
    for number, at in enumerate(some(places(len(wal)), 40)):
        into = tmp_path / str(number)
        shutil.copytree(tmp_path / "torn", into)
        damaged = {
            "cut": wal[:at],
            "flip": wal[:at] + bytes([wal[at] ^ 0x10]) + wal[at + 1 :],
            "zeros": wal[:at] + bytes(min(512, len(wal) - at)) + wal[at + 512 :],
        }[how]
        (into / f"{FILE}-wal").write_bytes(damaged)
        found = await look(into)
        assert found in after
        seen.add(found)
        shutil.rmtree(into)
    assert len(seen) > BATCHES // 2, "the damage was met at different places"


async def test_an_event_that_is_none_stops_the_start_with_a_reason(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    controller = Controller()
    controller.reserve(stream="s", hypothesis="h")
    await ledger.append(Batch(events=controller.take_events()), now_us=0)
    await ledger.close()
    for text in ("{", "[]", '{"t":"rest"}', '{"t":"no"}'):
        with sqlite3.connect(tmp_path / FILE) as connection:
            connection.execute("DROP TRIGGER IF EXISTS event_no_UPDATE")
            connection.execute("UPDATE event SET event = ? WHERE idx = 1", (text,))
        connection.close()
        ledger = SqliteLedger(tmp_path)
        with pytest.raises(ReplayError, match="damaged"):
            await ledger.events()
        await ledger.close()


async def all_of(ledger: SqliteLedger, heads: Sequence[bytes]) -> None:
    for head in heads:
        await ledger.get(head.hex())


@pytest.mark.parametrize("pages", [1, 2, 3, 5])
async def test_a_file_that_lost_its_end_is_refused_or_reports(tmp_path: Path, pages: int) -> None:
    ledger = SqliteLedger(tmp_path)
    for i in range(BATCHES):
        await ledger.append(Batch(tuple(records(str(i), 3))), now_us=0)
    heads = await ledger.heads()
    await ledger.close()
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[: -pages * PAGE])
    try:
        ledger = SqliteLedger(tmp_path)
    except ConfigError:
        return
    try:
        with pytest.raises(Unavailable, match="cannot be read"):
            await all_of(ledger, heads)
    finally:
        await ledger.close()
