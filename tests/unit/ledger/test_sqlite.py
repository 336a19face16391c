"""The SQLite ledger's file: what survives, who may use it, what it refuses to be."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import stat
from functools import partial
from pathlib import Path

import pytest

from tcd.errors import ConfigError, Conflict, Unavailable
from tcd.ledger import Batch, Checkpoint, SavedState, SqliteLedger
from tcd.ledger.auditing.sources import sqlite_store
from tcd.ledger.sqlite import _PAUSE, FILE
from tcd.ledger.sqlite_batch import MAX_ROWS
from tcd.ledger.sqlite_schema import APPLICATION_ID, MIGRATIONS
from tcd.ledger.sqlite_store import Store
from tcd.risk_av import Controller, Rested
from tests.unit.ledger.records import answer, erasing, issue, records

#: What the version that counts has and those before it do not.
UNCOUNTED = "DROP TRIGGER body_gone; DROP TABLE tally;"


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    made = records("a", 3)
    controller = Controller()
    controller.reserve(stream="s", hypothesis="h")
    events = controller.take_events()
    ledger = SqliteLedger(tmp_path)
    await ledger.append(Batch(tuple(made), events, (answer(),)), now_us=0)
    await ledger.put_checkpoint(Checkpoint(3, bytes(32), b"note"))
    before = await ledger.stats()
    await ledger.close()
    again = SqliteLedger(tmp_path)
    assert await again.stats() == before
    assert [r.receipt for r in await again.chain_records(made[0].chain)] == made
    assert await again.chain(made[0].chain) == made[-1].next()
    assert (await again.events()).events == events
    assert await again.checkpoint() == Checkpoint(3, bytes(32), b"note")
    assert await again.answer("t", "k", now_us=0) == answer()
    with pytest.raises(Conflict):
        await again.append(Batch((made[2],)), now_us=0)
    appended = await again.append(Batch((issue(made[-1].next(), "close"),)), now_us=0, expected_size=3)
    assert appended.indices == (3,)
    await again.close()


async def test_the_wal_is_copied_back_in_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the 16 MiB at which SQLite does it, in the middle of somebody's commit; never beside an append."""
    rows = 30
    beside: list[int] = []
    tidy = Store.tidy

    def counted(self: Store) -> None:
        beside.append(ledger._appending)
        tidy(self)

    monkeypatch.setattr(Store, "tidy", counted)
    monkeypatch.setattr("tcd.ledger.sqlite._TIDY", rows)
    ledger = SqliteLedger(tmp_path)
    size = (tmp_path / FILE).stat().st_size
    made = records("a", rows + 1)
    for at in range(rows - 1):
        await ledger.append(Batch((made[at],)), now_us=0)
        await asyncio.sleep(0)
    await asyncio.sleep(2 * _PAUSE)
    assert (beside, (tmp_path / FILE).stat().st_size) == ([], size)
    await ledger.append(Batch((made[rows - 1],)), now_us=0)
    # the next one comes at once: this is no pause
    await asyncio.gather(*(ledger.stats() for _ in range(3)), ledger.append(Batch((made[rows],)), now_us=0))
    for _ in range(6000):
        if beside and (tmp_path / FILE).stat().st_size > size:
            break
        await asyncio.sleep(0.01)
    assert (tmp_path / FILE).stat().st_size > size
    assert beside == [0]
    assert len(await ledger.heads()) == rows + 1
    await ledger.close()


async def test_a_batch_of_usual_size_is_one_statement(tmp_path: Path) -> None:
    """Between two steps of SQLite the ledger's thread waits for the interpreter: a transaction of many is slow."""
    ledger = SqliteLedger(tmp_path)
    controller = Controller()
    controller.reserve(stream="s", hypothesis="h")
    made = records("a", 20)
    await ledger.append(Batch(tuple(made[:1])), now_us=0)
    seen: list[str] = []
    await ledger._run(lambda: ledger._store._connection.set_trace_callback(seen.append))
    await ledger.append(Batch(tuple(made[1:]), controller.take_events(), (answer(),)), now_us=0)
    # what its triggers do is told under its own name
    assert len(set(seen)) == 1
    assert seen[0].startswith("INSERT INTO batch VALUES")
    await ledger.close()


async def test_a_batch_of_any_size_is_what_was_put(tmp_path: Path) -> None:
    """There is a statement for some numbers of rows; others are filled up, more than 256 are several in one."""
    ledger = SqliteLedger(tmp_path)
    made = records("a", sum(range(30)) + 3 * MAX_ROWS)
    at = 0
    for count in (*range(1, 30), MAX_ROWS - 1, MAX_ROWS, MAX_ROWS + 1):
        appended = await ledger.append(Batch(tuple(made[at : at + count])), now_us=0)
        assert appended.indices == tuple(range(at, at + count))
        at += count
        assert await ledger.chain(made[0].chain) == made[at - 1].next()
    stored = await ledger.records(limit=at + 1)
    assert [record.receipt for record in stored] == made[:at]
    await ledger.close()
    again = SqliteLedger(tmp_path)
    assert await again.chain(made[0].chain) == made[at - 1].next()
    await again.close()


async def test_answers_go_when_they_expire_also_after_a_restart(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    for key, expires in (("a", 300), ("b", 100), ("c", 200)):
        await ledger.append(Batch(answers=(answer(key, expires=expires),)), now_us=0)
    for now, left in ((99, 3), (100, 2), (199, 2)):
        await ledger.append(Batch(), now_us=now)
        assert (await ledger.stats()).answers == left
    await ledger.close()
    again = SqliteLedger(tmp_path)
    for now, left in ((199, 2), (200, 1), (299, 1), (1000, 0)):
        await again.append(Batch(), now_us=now)
        assert (await again.stats()).answers == left
    await again.append(Batch(answers=(answer("d", expires=50),)), now_us=1000)
    await again.append(Batch(answers=(answer("d", expires=2000),)), now_us=1000)
    assert await again.answer("t", "d", now_us=1000) == answer("d", expires=2000)
    await again.close()


async def test_the_files_are_the_owners_alone(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path / "data")
    await ledger.append(Batch(tuple(records("a", 1))), now_us=0)
    files = list((tmp_path / "data").iterdir())
    assert {file.name for file in files} >= {FILE, f"{FILE}-wal", "ledger.lock"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    await ledger.close()


async def test_a_second_user_fails_at_once_and_the_first_goes_on(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    with pytest.raises(ConfigError, match="another process"):
        SqliteLedger(tmp_path)
    await ledger.append(Batch(tuple(records("a", 1))), now_us=0)
    await ledger.close()
    await SqliteLedger(tmp_path).close()


async def test_what_was_appended_cannot_be_changed(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    controller = Controller()
    controller.reserve(stream="s", hypothesis="h")
    await ledger.append(Batch(tuple(records("a", 2)), controller.take_events()), now_us=0)
    await ledger.put_checkpoint(Checkpoint(1, bytes(32), b""))
    await ledger.close()
    connection = sqlite3.connect(tmp_path / FILE)
    for table, column in (("receipt", "sig"), ("event", "event"), ("checkpoint", "note")):
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):  # noqa: S608
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    connection.close()


async def test_an_erased_body_is_owned_up_to(tmp_path: Path) -> None:
    made = records("a", 2)
    ledger = SqliteLedger(tmp_path)
    await ledger.append(Batch(tuple(made)), now_us=0)
    await ledger.close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("DELETE FROM body WHERE idx = 0")
    connection.commit()
    connection.close()
    ledger = SqliteLedger(tmp_path)
    stored = await ledger.get(made[0].head_hex)
    assert stored is not None
    assert (stored.index, stored.receipt) == (0, None)
    assert (await ledger.stats()).bodies_erased == 1
    assert list(await ledger.heads()) == [r.head for r in made]
    await ledger.close()


async def test_a_damaged_state_is_seen_and_one_of_events_that_are_gone_is_not_offered(tmp_path: Path) -> None:
    controller = Controller()
    for i in range(4):
        controller.reserve(stream="s", hypothesis=str(i))
    ledger = SqliteLedger(tmp_path)
    await ledger.append(Batch(events=controller.take_events()), now_us=0)
    for events in (3, 5):
        await ledger.put_state(SavedState(events, b"state"))
    await ledger.close()
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("UPDATE state SET data = x'00' WHERE events = 3")
    connection.execute("UPDATE state SET events = 6 WHERE events = 5")
    connection.commit()
    connection.close()
    ledger = SqliteLedger(tmp_path)
    assert await ledger.states() == (3,)
    for events in (3, 6):
        with pytest.raises(Unavailable, match="damaged"):
            await ledger.state(events)
    await ledger.put_state(SavedState(4, b"new"))
    assert await ledger.states() == (4, 3)
    await ledger.close()


async def test_a_file_of_the_first_version_is_upgraded(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; {MIGRATIONS[0]} PRAGMA user_version = 1;")
        connection.execute("""INSERT INTO event VALUES (0, '{"t":"rest","stream":"s"}')""")
        connection.execute("INSERT INTO answer VALUES ('t', 'k', 'p', x'616e73776572', '', 100)")
    connection.close()
    ledger = SqliteLedger(tmp_path)
    assert (await ledger.events()).events == (Rested("s"),)
    assert await ledger.answer("t", "k", now_us=0) == answer()
    with pytest.raises(Conflict, match="idempotency key"):
        await ledger.append(Batch(answers=(answer(),)), now_us=0)
    await ledger.put_state(SavedState(1, b""))
    assert await ledger.states() == (1,)
    await ledger.close()


async def test_a_file_of_before_erasures_had_a_table_learns_who_erased_what(tmp_path: Path) -> None:
    made = records("a", 6)
    first, second = ((0, 2, 3), (3, 4))
    with sqlite3.connect(tmp_path / FILE) as connection:
        scripts = "".join(MIGRATIONS[:3])
        connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; {scripts} PRAGMA user_version = 3;")
    connection.close()
    with sqlite_store(tmp_path / FILE) as store:
        assert list(store.problems()) == []
    plain = SqliteLedger(tmp_path)
    await plain.append(Batch(tuple(made)), now_us=0)
    heads = list(await plain.heads())
    for name, places in (("", first), ("again", second)):
        await plain.append(Batch(erasing(places, [heads[n] for n in places], name), erase=places), now_us=0)
    wanted = [await plain.erasure(place) for place in range(10)]
    await plain.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.executescript(
            "DROP TABLE erasure; DROP TRIGGER body_gone; DROP TABLE tally; PRAGMA user_version = 3;"
        )
    connection.close()
    again = SqliteLedger(tmp_path)
    assert [await again.erasure(place) for place in range(10)] == wanted
    assert [found and found.index for found in wanted] == [7, None, 7, 7, 9, None, None, None, None, None]
    await again.close()


@pytest.mark.parametrize("stretch", [1, 3, 256])
async def test_bodies_are_counted_as_they_go_and_those_of_an_older_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretch: int
) -> None:
    """Against a count of the rows, after each step of 20 at random, whatever was counted when."""
    monkeypatch.setattr("tcd.ledger.sqlite.STRETCH", stretch)
    rng, made = random.Random(stretch), records("a", 40)  # noqa: S311 - seeded
    with sqlite3.connect(tmp_path / FILE) as connection:
        scripts = "".join(MIGRATIONS[:4])
        connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; {scripts} PRAGMA user_version = 4;")
    connection.close()
    ledger = SqliteLedger(tmp_path)
    await ledger.append(Batch(tuple(made[:20])), now_us=0)
    await ledger.append(Batch(erase=(3, 4, 19)), now_us=0)
    await ledger.close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        # as the version before left it: 20 receipts, 3 bodies gone, nothing counted
        connection.executescript(f"{UNCOUNTED} PRAGMA user_version = 4;")
    connection.close()
    ledger, at = SqliteLedger(tmp_path), 20

    async def there() -> tuple[int, int]:
        query = "SELECT (SELECT count(*) FROM body), first FROM tally"
        ((bodies, first),) = await ledger._run(partial(ledger._store._rows, query))
        return bodies, first

    bodies, first = await there()
    assert (bodies, first) == (17, 20)
    for _ in range(20):
        kind = rng.choice(["append", "erase", "count", "some", "stats", "reopen"])
        if kind == "append" and at < 40:
            more = rng.randrange(1, 4)
            await ledger.append(Batch(tuple(made[at : at + more])), now_us=0)
            at = min(40, at + more)
        elif kind == "erase":
            # some of them are gone already
            await ledger.append(Batch(erase=tuple(sorted(rng.sample(range(at), 3)))), now_us=0)
        elif kind == "some":
            await ledger._run(partial(ledger._store.count_back, 2))
        elif kind == "reopen":
            await ledger.close()
            ledger = SqliteLedger(tmp_path)
        else:
            found = await ledger.stats()
            bodies, first = await there()
            assert (found.receipts, found.bodies, found.bodies_erased, first) == (at, bodies, at - bodies, 0)
    found = await ledger.stats()
    bodies, _ = await there()
    assert (found.receipts, found.bodies) == (at, bodies)
    assert bodies < at
    await ledger.close()


@pytest.mark.parametrize(
    "spoil",
    [
        "DELETE FROM tally",
        "UPDATE tally SET gone = 13",
        "UPDATE tally SET gone = -9",
        "UPDATE tally SET first = 13, gone = 0",
        "UPDATE tally SET first = -1",
    ],
)
async def test_a_count_that_is_lost_or_cannot_be_is_made_anew(tmp_path: Path, spoil: str) -> None:
    """It is a cache of what the rows say."""
    ledger = SqliteLedger(tmp_path)
    made = records("a", 14)
    await ledger.append(Batch(tuple(made[:12])), now_us=0)
    await ledger.append(Batch(erase=(1, 2, 11)), now_us=0)
    wanted = await ledger.stats()
    assert (wanted.bodies, wanted.bodies_erased) == (9, 3)
    for after in range(2):
        await ledger._run(partial(ledger._store._connection.execute, spoil))
        if after:
            # before anybody asked
            await ledger.append(Batch(tuple(made[12:])), now_us=0)
            await ledger.append(Batch(erase=(0, 12)), now_us=0)
        found = await ledger.stats()
        assert (found.bodies, found.bodies_erased) == ((9, 5) if after else (9, 3))
        await ledger.close()
        ledger = SqliteLedger(tmp_path)
        assert await ledger.stats() == found
    # and it counts on
    await ledger.append(Batch(erase=(5,)), now_us=0)
    assert (await ledger.stats()).bodies_erased == 6
    await ledger.close()


@pytest.mark.parametrize("stretch", [3, 256])
@pytest.mark.parametrize("lost", [False, True])
async def test_on_a_disk_that_takes_nothing_bodies_are_counted_and_the_count_is_kept_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretch: int, *, lost: bool
) -> None:
    monkeypatch.setattr("tcd.ledger.sqlite.STRETCH", stretch)
    ledger, made = SqliteLedger(tmp_path), records("a", 25)
    await ledger.append(Batch(tuple(made[:20])), now_us=0)
    await ledger.append(Batch(erase=(3, 4, 19)), now_us=0)

    async def run(statement: str) -> list[tuple[int, int]]:
        return await ledger._run(lambda: ledger._store._connection.execute(statement).fetchall())

    uncounted = "DELETE FROM tally" if lost else "UPDATE tally SET first = 20, gone = 0"
    await run(uncounted)
    before = await run("SELECT first, gone FROM tally")
    await run("PRAGMA query_only = ON")
    with pytest.raises(Unavailable, match="SQLITE_READONLY"):
        await ledger.append(Batch(tuple(made[20:])), now_us=0)
    for _ in range(2):
        found = await ledger.stats()
        assert (found.receipts, found.bodies, found.bodies_erased) == (20, 17, 3)
        assert await run("SELECT first, gone FROM tally") == before
    # bodies are read once, not by each who asks
    asked: list[str] = []
    await ledger._run(lambda: ledger._store._connection.set_trace_callback(asked.append))
    await ledger.stats()
    await ledger._run(lambda: ledger._store._connection.set_trace_callback(None))
    assert [query.partition("idx >= ")[2] for query in asked if "FROM body" in query] in ([], ["0 AND idx < 0"])
    # a disk that takes something again: what goes before the count is kept is counted, too
    await run("PRAGMA query_only = OFF")
    await ledger.append(Batch(tuple(made[20:])), now_us=0)
    await ledger.append(Batch(erase=(0, 19, 21)), now_us=0)
    for _ in range(2):
        found = await ledger.stats()
        assert (found.receipts, found.bodies, found.bodies_erased) == (25, 20, 5)
        assert await run("SELECT first, gone FROM tally") == [(0, 5)]
        await ledger.close()
        ledger = SqliteLedger(tmp_path)
    await ledger.close()


async def test_who_erases_while_a_count_waits_for_room_is_counted(tmp_path: Path) -> None:
    """Whatever comes in between: against the rows, after each step of 200 at random."""
    rng, made, at = random.Random(5), records("a", 150), 30  # noqa: S311 - seeded
    ledger = SqliteLedger(tmp_path)
    await ledger.append(Batch(tuple(made[:at])), now_us=0)
    wrote = 0

    async def run(statement: str) -> list[tuple[int]]:
        return await ledger._run(lambda: ledger._store._connection.execute(statement).fetchall())

    for _ in range(200):
        kind = rng.choice(["full", "room", "append", "erase", "some", "stats", "lose"])
        full = (await run("PRAGMA query_only")) == [(1,)]
        if kind in {"full", "room"}:
            await run(f"PRAGMA query_only = {'ON' if kind == 'full' else 'OFF'}")
        elif kind == "some":
            await ledger._run(partial(ledger._store.count_back, 7))
        elif kind == "stats":
            ((there,),) = await run("SELECT count(*) FROM body")
            assert (await ledger.stats()).bodies == there
        elif full:
            wrote += 1
            with pytest.raises(Unavailable):
                await ledger.append(Batch(tuple(made[at : at + 1]), erase=(0,)), now_us=0)
        elif kind == "append" and at < len(made):
            await ledger.append(Batch(tuple(made[at : at + 3])), now_us=0)
            at = min(len(made), at + 3)
        elif kind == "erase":
            await ledger.append(Batch(erase=tuple(sorted(rng.sample(range(at), 2)))), now_us=0)
        elif kind == "lose":
            await run("UPDATE tally SET first = (SELECT max(idx) + 1 FROM receipt), gone = 0")
    ((there,),) = await run("SELECT count(*) FROM body")
    assert ((await ledger.stats()).bodies, wrote > 10, there < at) == (there, True, True)
    await ledger.close()


async def test_of_a_ledger_that_counts_no_body_is_read(tmp_path: Path) -> None:
    ledger = SqliteLedger(tmp_path)
    await ledger.append(Batch(tuple(records("a", 30))), now_us=0)
    await ledger.append(Batch(erase=(1, 2)), now_us=0)
    asked: list[str] = []
    await ledger._run(lambda: ledger._store._connection.set_trace_callback(asked.append))
    found = await ledger.stats()
    await ledger._run(lambda: ledger._store._connection.set_trace_callback(None))
    assert (found.bodies, found.bodies_erased) == (28, 2)
    assert asked
    assert not [query for query in asked if "FROM body" in query]
    # whoever deletes one, it is counted
    await ledger._run(lambda: ledger._store._connection.execute("DELETE FROM body WHERE idx = 7"))
    assert (await ledger.stats()).bodies == 27
    await ledger.close()


async def test_who_counts_does_not_hold_up_who_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcd.ledger.sqlite.STRETCH", 1)
    ledger = SqliteLedger(tmp_path)
    made = records("a", 60)
    await ledger.append(Batch(tuple(made[:50])), now_us=0)
    # as a file is that was made before it counted
    await ledger._run(lambda: ledger._store._connection.execute("UPDATE tally SET first = 50"))
    counting = asyncio.ensure_future(ledger.stats())
    for at in range(50, 60, 5):
        await ledger.append(Batch(tuple(made[at : at + 5])), now_us=0)
        assert not counting.done()
    found = await counting
    assert found.receipts == found.bodies >= 50
    assert found.bodies_erased == 0
    assert await ledger.extent() == ((await ledger.stats()).receipts, 0) == (60, 0)
    await ledger.close()


async def test_other_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    foreign, newer, broken = (tmp_path / name for name in ("foreign", "newer", "broken"))
    for directory in (foreign, newer, broken):
        directory.mkdir()
    connection = sqlite3.connect(foreign / FILE)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    await SqliteLedger(newer).close()
    connection = sqlite3.connect(newer / FILE)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    (broken / FILE).write_bytes(b"no database at all, but long enough to look at" * 40)
    for directory, why in ((foreign, "not a ledger"), (newer, "version 99"), (broken, "cannot be opened")):
        before = (directory / FILE).read_bytes()
        with pytest.raises(ConfigError, match=why):
            SqliteLedger(directory)
        if directory is broken:
            assert (directory / FILE).read_bytes() == before
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="data directory"):
        SqliteLedger(tmp_path / "file" / "data")


@pytest.mark.parametrize("count", [100, MAX_ROWS + 44])
async def test_a_full_disk_is_an_error_and_the_ledger_goes_on_when_there_is_room(tmp_path: Path, count: int) -> None:
    """`max_page_count` is SQLite's own full disk: SQLITE_FULL in the middle of a transaction."""
    ledger = SqliteLedger(tmp_path)
    await ledger.append(Batch(tuple(records("a", 1))), now_us=0)
    before = await ledger.stats()

    def limit(pages: int) -> None:
        ledger._store._connection.execute(f"PRAGMA max_page_count = {pages}")

    await ledger._run(lambda: limit(1))
    big = records("b", count)
    with pytest.raises(Unavailable, match="SQLITE_FULL"):
        await ledger.append(Batch(tuple(big)), now_us=0)
    assert await ledger.stats() == before
    assert await ledger.chain(big[0].chain) is None
    await ledger._run(lambda: limit(1_000_000))
    await ledger.append(Batch(tuple(big)), now_us=0, expected_size=1)
    assert await ledger.chain(big[0].chain) == big[-1].next()
    await ledger.close()
