"""The PostgreSQL ledger: several writers, fencing, what it refuses and what it never says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")

import asyncpg
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from sidecar_api.stores import open_shared
from tcd.errors import ConfigError, Unavailable
from tcd.ledger import Batch, Checkpoint
from tcd.ledger.postgres import PostgresLedger
from tcd.ledger.postgres_connect import connect
from tcd.ledger.postgres_schema import VERSION_TABLE, metadata
from tcd.ledger.shared import Fenced, Root, SharedLedger
from tests.postgres import PASSWORD, PostgresServer
from tests.unit.ledger.records import answer, erasing, records, some_events
from tests.unit.shim.conftest import settings_of


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.place()


async def execute(url: str, statement: str) -> Any:
    connection = await connect(url)
    try:
        return await connection.fetch(statement)
    finally:
        await connection.close()


async def test_everything_is_there_after_reopening(url: str) -> None:
    made, events = records("a", 3), some_events()
    ledger: SharedLedger = await PostgresLedger.open(url)
    await ledger.append(Batch(tuple(made), events, (answer(),)), now_us=0)
    await ledger.put_checkpoint(Checkpoint(3, bytes(32), b"note"))
    before, identity = await ledger.stats(), ledger.identity
    await ledger.close()
    again = await PostgresLedger.open(url)
    assert (await again.stats(), again.identity, again.epoch) == (before, identity, 2)
    assert [r.receipt for r in await again.chain_records(made[0].chain)] == made
    assert (await again.events()).events == events
    assert await again.answer("t", "k", now_us=0) == answer()
    assert await again.checkpoint() == Checkpoint(3, bytes(32), b"note")
    await again.close()


async def test_the_migrations_make_what_the_tables_say(url: str) -> None:
    await (await PostgresLedger.open(url)).close()
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: connect(url), poolclass=NullPool)

    def differences(connection: sa.Connection) -> list[Any]:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_type": True, "target_metadata": metadata}
        )
        return list(compare_metadata(context, metadata))

    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_shims_that_start_together_make_the_tables_once(url: str) -> None:
    ledgers = await asyncio.gather(*(PostgresLedger.open(url) for _ in range(4)))
    assert sorted(ledger.epoch for ledger in ledgers) == [1, 2, 3, 4]
    for ledger in ledgers:
        await ledger.close()


async def test_four_writers_leave_no_holes_and_break_no_chain(url: str) -> None:
    ledgers = await asyncio.gather(*(PostgresLedger.open(url) for _ in range(4)))
    made = {(i, j): records(f"{i}-{j}", 5) for i in range(4) for j in range(5)}

    async def write(i: int, ledger: PostgresLedger) -> list[int]:
        indices: list[int] = []
        for step in range(5):
            batch = Batch(tuple(made[i, j][step] for j in range(5)), some_events(f"{i}.{step}"))
            indices += (await ledger.append(batch, now_us=0)).indices
        return indices

    found = await asyncio.gather(*(write(i, ledger) for i, ledger in enumerate(ledgers)))
    assert sorted(index for indices in found for index in indices) == list(range(100))
    heads = await ledgers[0].heads()
    assert set(heads) == {receipt.head for receipts in made.values() for receipt in receipts}
    for receipts in made.values():
        stored = await ledgers[1].chain_records(receipts[0].chain)
        assert [s.receipt for s in stored] == receipts
        assert [s.index for s in stored] == sorted(s.index for s in stored)
    assert len((await ledgers[2].events()).events) == 4 * 5 * 2
    rows = await execute(url, "SELECT min(idx), max(idx), count(*) FROM tcd_event")
    assert tuple(rows[0]) == (0, 39, 40)
    for ledger in ledgers:
        await ledger.close()


async def test_a_retired_member_writes_nothing_more_until_it_joins_again(url: str) -> None:
    paused, other = await PostgresLedger.open(url), await PostgresLedger.open(url)
    made = records("a", 2)
    await paused.append(Batch((made[0],)), now_us=0)

    async def fence(root: Root) -> Batch:
        assert await root.orphans() == ()
        assert await root.retire(paused.epoch)
        assert [state.id for state in await root.orphans()] == [made[0].chain]
        assert not await root.retire(paused.epoch)
        return Batch(events=some_events())

    await other.transact(fence, now_us=0)
    before = await other.stats()
    with pytest.raises(Fenced):
        await paused.append(Batch((made[1],), some_events("late")), now_us=0)
    with pytest.raises(Fenced):
        await paused.beat()
    assert await other.stats() == before
    assert [m.epoch for m in await other.members()] == [other.epoch]
    assert await paused.join() == 3
    await paused.beat()
    await paused.append(Batch((made[1],)), now_us=0)
    await paused.leave()
    with pytest.raises(Fenced):
        await paused.append(Batch(), now_us=0)
    await paused.close()
    await other.close()


async def test_a_refused_transaction_fences_nobody(url: str) -> None:
    ledger, other = await PostgresLedger.open(url), await PostgresLedger.open(url)

    async def change_of_mind(root: Root) -> Batch:
        await root.retire(other.epoch)
        msg = "no"
        raise Unavailable(msg)

    with pytest.raises(Unavailable, match="no"):
        await ledger.transact(change_of_mind, now_us=0)
    await other.append(Batch(events=some_events()), now_us=0)
    seen: list[int] = []

    async def look(root: Root) -> Batch:
        seen.append(root.events)
        assert (await root.page(0)).events == some_events()
        return Batch(events=some_events("more"))

    await ledger.transact(look, now_us=0)
    assert (seen, len((await other.events()).events)) == ([2], 4)
    await ledger.close()
    await other.close()


async def test_receipts_and_events_are_never_changed(url: str) -> None:
    ledger = await PostgresLedger.open(url)
    await ledger.append(Batch(tuple(records("a", 1)), some_events()), now_us=0)
    await ledger.put_checkpoint(Checkpoint(1, bytes(32), b"note"))
    for table, column in (("tcd_receipt", "ts_us"), ("tcd_event", "event"), ("tcd_checkpoint", "note")):
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}"):  # noqa: S608
            with pytest.raises(asyncpg.PostgresError, match="append-only"):
                await execute(url, statement)
    # bodies may be erased: the position and the head stay
    await execute(url, "DELETE FROM tcd_body")
    stored = await ledger.get(records("a", 1)[0].head_hex)
    assert stored is not None
    assert stored.receipt is None
    assert (await ledger.stats()).bodies_erased == 1
    await ledger.close()


async def test_any_text_of_a_client_is_a_key(url: str) -> None:
    ledger = await PostgresLedger.open(url)
    for key in ("\x00", "ü\x00", "'; DROP TABLE tcd_head; --", "\U0001f512"):
        await ledger.append(Batch(answers=(answer(key),)), now_us=0)
        assert await ledger.answer("t", key, now_us=0) == answer(key)
    await ledger.close()


async def test_claims_are_exclusive_and_end_with_their_connection(url: str) -> None:
    one, two = await PostgresLedger.open(url), await PostgresLedger.open(url)
    assert await one.claim("t", "k")
    assert not await two.claim("t", "k")
    assert await two.claim("t", "other")
    await one.unclaim("t", "k")
    assert await two.claim("t", "k")
    await two.close()
    for _ in range(1200):
        if await one.claim("t", "k"):
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("the claim of a closed connection was kept")
    await one.close()


async def test_a_claim_that_nobody_waits_for_any_more_is_given_back(url: str) -> None:
    one, two = await PostgresLedger.open(url), await PostgresLedger.open(url)
    for hops in range(8):
        task = asyncio.ensure_future(one.claim("t", f"k{hops}"))
        for _ in range(hops):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            # it was granted before: whoever got it gives it back
            assert task.result()
            await one.unclaim("t", f"k{hops}")
        await asyncio.gather(*one._giving)
        assert await two.claim("t", f"k{hops}")
    await one.close()
    await two.close()


async def test_other_names_of_subjects_or_of_the_log_are_refused(url: str) -> None:
    first = await PostgresLedger.open(url, subjects=b"a", origin="o")
    with pytest.raises(ConfigError, match="TCD_SUBJECT_KEY_HEX"):
        await PostgresLedger.open(url, subjects=b"b", origin="o")
    with pytest.raises(ConfigError, match="TCD_ORIGIN"):
        await PostgresLedger.open(url, subjects=b"a", origin="p")
    second = await PostgresLedger.open(url, subjects=b"a", origin="o")
    await second.close()
    await first.close()


@pytest.mark.parametrize("where", ["password", "port", "database", "host"])
async def test_no_error_shows_the_password(postgres: PostgresServer, where: str) -> None:
    url = postgres.url()
    wrong = {
        "password": url.replace(PASSWORD, "hidden-and-wrong"),
        "port": url.replace(str(postgres.port), "1"),
        "database": postgres.url("nowhere"),
        "host": url.replace("127.0.0.1", "nowhere.invalid"),
    }[where]
    with pytest.raises(ConfigError) as refused:
        await PostgresLedger.open(wrong)
    text = f"{refused.value} {refused.value.__cause__!r}"
    assert PASSWORD not in text
    assert "hidden" not in text
    assert "remedy" in text


async def test_a_newer_schema_is_refused(url: str) -> None:
    await (await PostgresLedger.open(url)).close()
    await execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")  # noqa: S608 - a constant
    with pytest.raises(ConfigError, match="newer"):
        await PostgresLedger.open(url)


async def test_a_database_of_before_erasures_had_a_table_learns_who_erased_what(url: str) -> None:
    ledger = await PostgresLedger.open(url)
    await ledger.append(Batch(tuple(records("a", 6))), now_us=0)
    heads = list(await ledger.heads())
    for name, places in (("", (0, 2, 3)), ("again", (3, 4))):
        await ledger.append(Batch(erasing(places, [heads[n] for n in places], name), erase=places), now_us=0)
    await ledger.close()
    await execute(url, f"UPDATE {VERSION_TABLE} SET version_num = '0001'")  # noqa: S608 - a constant
    await execute(url, "DROP TABLE tcd_erasure")
    again = await PostgresLedger.open(url)
    found = [await again.erasure(place) for place in range(6)]
    assert [one and one.index for one in found] == [7, None, 7, 7, 9, None]
    await again.close()


async def test_a_lost_connection_is_made_again(url: str) -> None:
    ledger = await PostgresLedger.open(url)
    await ledger.append(Batch(events=some_events("a")), now_us=0)
    await execute(url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    for _ in range(3):
        try:
            await ledger.append(Batch(events=some_events("b")), now_us=0)
            break
        except Unavailable:
            continue
    assert len((await ledger.events()).events) == 4
    await ledger.close()


async def test_a_role_that_may_only_add_is_enough(postgres: PostgresServer, url: str) -> None:
    """As docs/operations.md says: another role owns the tables."""
    await (await PostgresLedger.open(url)).close()
    schema = url.partition("search_path=")[2]
    await execute(url, f"CREATE ROLE {schema}_shim LOGIN PASSWORD '{PASSWORD}'")
    await execute(url, f"GRANT USAGE ON SCHEMA {schema} TO {schema}_shim")
    await execute(url, f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {schema}_shim")
    for table in ("tcd_receipt", "tcd_event", "tcd_checkpoint", VERSION_TABLE):
        await execute(url, f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM {schema}_shim")
    limited = url.replace("tcd:", f"{schema}_shim:", 1)
    ledger = await PostgresLedger.open(limited)
    await ledger.append(Batch(tuple(records("a", 2)), some_events(), (answer(),)), now_us=0)
    await ledger.put_checkpoint(Checkpoint(2, bytes(32), b"note"))
    await ledger.close()
    for statement in ("DELETE FROM tcd_event", "DROP TRIGGER tcd_event_kept ON tcd_event", "TRUNCATE tcd_receipt"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await execute(limited, statement)


async def test_the_settings_open_it_and_a_role_without_rights_says_so(postgres: PostgresServer, url: str) -> None:
    ledger = await open_shared(settings_of(ledger=url))
    assert (await ledger.stats()).receipts == 0
    await ledger.close()
    with pytest.raises(ConfigError, match="TCD_SUBJECT_KEY_HEX"):
        await open_shared(settings_of(ledger=url, attest_sk_hex="22" * 32))
    schema = url.partition("search_path=")[2]
    await execute(url, f"CREATE ROLE {schema}_nobody LOGIN PASSWORD '{PASSWORD}'")
    await execute(url, f"CREATE SCHEMA {schema}_empty")
    await execute(url, f"GRANT USAGE ON SCHEMA {schema}_empty TO {schema}_nobody")
    with pytest.raises(ConfigError, match="owner of the schema"):
        await PostgresLedger.open(url.replace("tcd:", f"{schema}_nobody:", 1) + "_empty")


async def test_rows_of_erased_bodies_are_freed_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, float]] = []

    class Connection:
        async def execute(self, sql: str, *, timeout: float = 10.0) -> None:
            said.append((sql, timeout))

    @asynccontextmanager
    async def read(_: PostgresLedger) -> AsyncIterator[Connection]:
        yield Connection()

    monkeypatch.setattr(PostgresLedger, "_read", read)
    await PostgresLedger.__new__(PostgresLedger).scrub()
    assert said == [("SET statement_timeout = 0", 10.0), ("VACUUM tcd_body, tcd_answer", 86_400.0)]
