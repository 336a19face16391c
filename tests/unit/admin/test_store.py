"""The store's rules, the same in memory, in a file and in PostgreSQL; and what it does when its place is not there."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from sidecar_api.admin.store import AdminStore, Driver, Interrupted, Ticket
from sidecar_api.admin.store.postgres import PostgresDriver
from sidecar_api.admin.store.sqlite import MEMORY, SqliteDriver
from sidecar_api.admin.store.store import ANSWERS_LIVE, LEASE
from tcd.errors import ConfigError, Conflict, QuotaExceeded, Unavailable
from tests.postgres import PASSWORD, PostgresServer

ONE = Ticket("alice", "k")
#: A process and another one, or the same after a restart.
Stores = tuple[AdminStore, AdminStore]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    made: list[Driver]
    if request.param == "memory":
        made = [SqliteDriver(MEMORY)] * 2
    elif request.param == "sqlite":
        made = [SqliteDriver(tmp_path / "s.sqlite"), SqliteDriver(tmp_path / "s.sqlite")]
    else:
        url = request.getfixturevalue("postgres").place()
        made = [PostgresDriver(url), PostgresDriver(url)]
    yield AdminStore(made[0], owner="a", nonces=3), AdminStore(made[1], owner="b", nonces=3)
    for driver in {id(driver): driver for driver in made}.values():
        await driver.close()


async def test_a_nonce_is_good_once_for_a_key_until_it_expires(stores: Stores) -> None:
    here, there = stores
    assert await here.use_nonce("k", "n", until=10.0, now=0.0)
    assert not await there.use_nonce("k", "n", until=10.0, now=0.0)
    assert not await here.use_nonce("k", "n", until=10.0, now=10.0)
    assert await there.use_nonce("other", "n", until=10.0, now=0.0)
    assert await there.use_nonce("k", "n", until=30.0, now=11.0)


async def test_of_many_uses_at_once_one_is_the_first(stores: Stores) -> None:
    uses = [store.use_nonce("k", "n", until=10.0, now=0.0) for store in stores * 8]
    assert sum(await asyncio.gather(*uses)) == 1


async def test_when_there_is_no_room_nothing_gets_in(stores: Stores) -> None:
    here, there = stores
    for number in range(3):
        assert await here.use_nonce("k", str(number), until=10.0, now=0.0)
    with pytest.raises(Unavailable):
        await there.use_nonce("k", "3", until=10.0, now=0.0)
    assert await there.use_nonce("k", "3", until=30.0, now=20.0)


async def test_a_retry_gets_the_answer_wherever_it_arrives(stores: Stores) -> None:
    here, there = stores
    assert await here.begin(ONE, "r", now=0.0) is None
    for store in stores:
        with pytest.raises(Conflict, match="worked on"):
            await store.begin(ONE, "r", now=0.0)
    await here.finish(ONE, 202, {"id": "é\0"}, now=1.0)
    for store in stores:
        assert await store.begin(ONE, "r", now=2.0) == (202, {"id": "é\0"})
        with pytest.raises(Conflict, match="another request"):
            await store.begin(ONE, "other", now=2.0)
    # keys are each principal's own
    assert await there.begin(Ticket("bob", "k"), "r", now=2.0) is None
    assert await there.begin(ONE, "r", now=2.0 + ANSWERS_LIVE) is None


async def test_of_many_that_begin_at_once_one_works(stores: Stores) -> None:
    begun = await asyncio.gather(*[s.begin(ONE, "r", now=0.0) for s in stores * 8], return_exceptions=True)
    assert begun.count(None) == 1
    assert all(isinstance(other, Conflict) for other in begun if other is not None)


async def test_what_failed_may_be_tried_again_and_what_another_does_is_not_touched(stores: Stores) -> None:
    here, there = stores
    await here.begin(ONE, "r", now=0.0)
    await there.abandon(ONE)
    await there.finish(ONE, 200, {}, now=0.0)
    with pytest.raises(Conflict):
        await there.begin(ONE, "r", now=0.0)
    await here.abandon(ONE)
    assert await there.begin(ONE, "r", now=0.0) is None


async def test_answers_are_bounded_and_those_being_worked_on_stay(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar_api.admin.store.store.ANSWERS", 3)
    here, there = stores
    await here.begin(ONE, "r", now=0.0)
    for number in range(5):
        ticket = Ticket("bob", str(number))
        assert await there.begin(ticket, "r", now=0.0) is None
        await there.finish(ticket, 200, number, now=float(number))
    assert await here.begin(Ticket("bob", "4"), "r", now=9.0) == (200, 4)
    assert await here.begin(Ticket("bob", "0"), "r", now=9.0) is None
    with pytest.raises(Conflict, match="worked on"):
        await here.begin(ONE, "r", now=9.0)


async def test_an_act_without_a_sign_of_life_is_taken_over_once_and_not_done_again(stores: Stores) -> None:
    here, there = stores
    await here.begin(ONE, "r", now=0.0)
    assert await here.describe(ONE, action="policy.put", actors="a + b", digest="d")
    await here.renew(ONE, now=30.0)
    assert await there.orphans(now=LEASE + 1.0, every=False) == []
    late = 30.0 + LEASE + 1.0
    taken = await asyncio.gather(*[there.orphans(now=late, every=False) for _ in range(4)])
    (orphan,) = [one for some in taken for one in some]
    assert (orphan.action, orphan.actors, orphan.object) == ("policy.put", "a + b", "d")
    await there.interrupted(ONE, now=late)
    # whoever was thought dead says no more
    await here.finish(ONE, 200, {}, now=late)
    for store in stores:
        with pytest.raises(Interrupted):
            await store.begin(ONE, "r", now=late)
    assert await there.orphans(now=late + 2 * LEASE, every=True) == []


async def test_what_was_begun_and_not_recorded_may_be_tried_again(stores: Stores) -> None:
    here, there = stores
    await here.begin(ONE, "r", now=0.0)
    assert await there.orphans(now=1.0, every=True) == []
    assert await there.begin(ONE, "r", now=2.0) is None


async def test_a_start_takes_over_what_others_left_and_never_its_own(stores: Stores) -> None:
    here, there = stores
    for store, ticket in ((here, ONE), (there, Ticket("bob", "k"))):
        await store.begin(ticket, "r", now=0.0)
        await store.describe(ticket, action="x", actors="y", digest="z")
    assert [orphan.ticket for orphan in await there.orphans(now=1.0, every=True)] == [ONE]


async def test_a_proposal_waits_for_everybody_and_is_taken_once(stores: Stores) -> None:
    here, there = stores
    await here.propose("p", {"id": "p", "shown": "é"}, {"t": "\0é"}, until=10.0, now=0.0)
    assert await there.proposal("p", now=1.0) == ({"id": "p", "shown": "é"}, {"t": "\0é"})
    assert [one["id"] for one in await there.proposals(now=1.0)] == ["p"]
    assert await there.proposal("p", now=10.0) is None
    taken = await asyncio.gather(
        *[store.describe(ONE, action="x", actors="y", digest="z", proposal="p") for store in stores * 4]
    )
    assert sum(taken) == 1
    assert await here.proposal("p", now=1.0) is None
    assert await there.proposals(now=1.0) == []


async def test_proposals_are_bounded(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar_api.admin.store.store.PROPOSALS", 3)
    here, there = stores
    for number in range(3):
        await here.propose(str(number), {}, {}, until=10.0, now=0.0)
    with pytest.raises(Unavailable):
        await there.propose("more", {}, {}, until=10.0, now=0.0)
    await there.propose("more", {}, {}, until=30.0, now=20.0)
    assert len(await here.proposals(now=20.0)) == 1


async def test_one_principal_cannot_take_all_the_room(stores: Stores) -> None:
    here, there = stores
    for number in range(10):
        await stores[number % 2].propose(str(number), {"by": "alice"}, {}, until=10.0, now=0.0)
    for store in stores:
        with pytest.raises(QuotaExceeded):
            await store.propose("more", {"by": "alice"}, {}, until=10.0, now=0.0)
    await here.propose("bobs", {"by": "bob"}, {}, until=10.0, now=0.0)
    await there.propose("later", {"by": "alice"}, {}, until=30.0, now=20.0)


async def test_one_tenant_cannot_take_the_others_room(stores: Stores) -> None:
    # ten principals of one tenant, as many proposals each as they may have
    for number in range(20):
        proposal = {"by": f"p{number % 10}", "tenant": "acme"}
        await stores[number % 2].propose(str(number), proposal, {}, until=10.0, now=0.0)
    for number in range(20, 100):
        with pytest.raises(QuotaExceeded, match="of your tenant"):
            await stores[number % 2].propose(
                str(number), {"by": f"p{number % 10}", "tenant": "acme"}, {}, until=10.0, now=0.0
            )
    for number in range(100):
        await stores[number % 2].propose(
            f"all {number}", {"by": f"a{number // 10}", "tenant": "*"}, {}, until=10.0, now=0.0
        )
    # nobody's room is anybody else's, whichever is full
    await stores[1].propose("blues", {"by": "blue", "tenant": "blue"}, {}, until=10.0, now=0.0)
    with pytest.raises(Unavailable):
        await stores[0].propose("one more", {"by": "alice", "tenant": "*"}, {}, until=10.0, now=0.0)
    assert len(await stores[0].proposals(now=9.0)) == 121
    # and what has waited too long makes room, also when it is only looked at
    assert await stores[0].proposals(now=10.0) == []
    async with stores[1]._driver.transaction() as tx:
        assert await tx.run("SELECT count(*) FROM tcd_admin_proposal") == [(0,)]
    await stores[1].propose("again", {"by": "p0", "tenant": "acme"}, {}, until=30.0, now=10.0)
    # nobody has to look or to propose: a plane frees it from time to time
    await stores[0].forget(now=29.0)
    assert len(await stores[1].proposals(now=29.0)) == 1
    await stores[0].forget(now=30.0)
    assert await stores[1].proposal("again", now=29.0) is None


async def test_of_proposals_at_once_at_two_replicas_no_more_wait_than_may(stores: Stores) -> None:
    made = [
        stores[n % 2].propose(str(n), {"by": "alice", "tenant": "acme"}, {}, until=10.0, now=0.0) for n in range(40)
    ]
    outcomes = await asyncio.gather(*made, return_exceptions=True)
    assert outcomes.count(None) == 10
    assert sum(isinstance(one, QuotaExceeded) for one in outcomes) == 30


async def test_nobody_pushes_out_the_answer_that_another_one_may_ask_for_again(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar_api.admin.store.store.ANSWERS", 5)
    here, there = stores
    assert await here.begin(ONE, "r", now=0.0) is None
    await here.finish(ONE, 200, "done", now=0.0)
    for number in range(20):
        ticket = Ticket("mallory", str(number))
        assert await there.begin(ticket, "r", now=1.0 + number) is None
        await there.finish(ticket, 200, number, now=1.0 + number)
    # the retry is not done again
    assert await here.begin(ONE, "r", now=30.0) == (200, "done")


async def test_principals_are_replaced_where_the_expected_ones_are(stores: Stores) -> None:
    here, there = stores
    assert await here.principals() is None
    assert not await here.replace_principals("sha256:x", "sha256:a", "A")
    first = await asyncio.gather(*[store.replace_principals(None, "sha256:a", "A") for store in stores])
    assert sorted(first) == [False, True]
    assert await there.principals() == "A"
    assert not await there.replace_principals("sha256:x", "sha256:b", "B")
    assert await there.replace_principals("sha256:a", "sha256:b", "B")
    assert await here.principals() == "B"


# ---------------------------------------------------------------- the places


async def test_a_file_is_its_owners_alone_and_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    first = AdminStore(SqliteDriver(path), owner="a")
    assert first.durable
    assert not first.shared
    assert await first.use_nonce("k", "n", until=10.0, now=0.0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await first.close()
    again = AdminStore(SqliteDriver(path), owner="b")
    assert not await again.use_nonce("k", "n", until=10.0, now=0.0)
    await again.close()


async def test_what_is_forgotten_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    driver = SqliteDriver(path)
    store = AdminStore(driver, owner="a")
    # longer than a page
    await store.propose("p", {"about": "somebody " * 2000}, {}, until=10.0, now=0.0)
    assert b"somebody" in path.read_bytes()
    await store.propose("q", {}, {}, until=30.0, now=20.0)
    assert b"somebody" not in path.read_bytes()
    # some builds of SQLite have it on already
    async with driver.transaction() as tx:
        assert await tx.run("PRAGMA secure_delete") == [(1,)]
    await store.close()


def _newer(path: Path) -> None:
    made = sqlite3.connect(path)
    made.execute("PRAGMA user_version = 99")
    made.close()


def _no_database(path: Path) -> None:
    path.write_bytes(b"something else" * 100)


@pytest.mark.parametrize(("spoil", "error"), [(_newer, ConfigError), (_no_database, Unavailable)])
async def test_another_file_is_refused(tmp_path: Path, spoil: Callable[[Path], None], error: type[Exception]) -> None:
    spoil(tmp_path / "s.sqlite")
    store = AdminStore(SqliteDriver(tmp_path / "s.sqlite"), owner="a")
    with pytest.raises(error):
        await store.use_nonce("k", "n", until=10.0, now=0.0)
    await store.close()


async def test_an_error_within_a_transaction_changes_nothing(tmp_path: Path) -> None:
    driver = SqliteDriver(tmp_path / "s.sqlite")

    async def broken() -> None:
        async with driver.transaction() as tx:
            await tx.run("INSERT INTO tcd_admin_nonce (kid, nonce, until) VALUES ('k', 'n', 1)")
            raise KeyError

    with pytest.raises(KeyError):
        await broken()
    async with driver.transaction() as tx:
        assert await tx.run("SELECT count(*) FROM tcd_admin_nonce") == [(0,)]
    await driver.close()


async def test_a_database_that_is_away_is_no_yes_and_its_password_is_not_said() -> None:
    store = AdminStore(PostgresDriver(f"postgresql://tcd:{PASSWORD}@127.0.0.1:1/x"), owner="a")
    with pytest.raises(Unavailable) as caught:
        await store.use_nonce("k", "n", until=10.0, now=0.0)
    assert PASSWORD not in str(caught.value)
    await store.close()


async def test_replicas_that_start_together_make_the_tables_once(postgres: PostgresServer) -> None:
    url = postgres.place()
    stores = [AdminStore(PostgresDriver(url), owner=str(number)) for number in range(6)]
    assert sum(await asyncio.gather(*[s.use_nonce("k", "n", until=10.0, now=0.0) for s in stores])) == 1
    for store in stores:
        await store.close()
