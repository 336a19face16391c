"""The PostgreSQL ledger: commits of which nobody knows for a while whether they happened."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")

from tcd.errors import Conflict, Unavailable
from tcd.ledger import Batch
from tcd.ledger.postgres import PostgresLedger
from tcd.ledger.shared import InDoubt, Root
from tcd.risk_av import Event
from tests.postgres import PostgresServer
from tests.unit.ledger.lost_answer import LostAnswer
from tests.unit.ledger.records import answer, records, some_events


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.place()


@pytest.mark.parametrize("happens", [True, False])
async def test_a_commit_whose_answer_is_lost(url: str, monkeypatch: pytest.MonkeyPatch, *, happens: bool) -> None:
    ledger = await PostgresLedger.open(url)
    made = records("a", 2)
    batch = Batch((made[0],), some_events(), (answer(),))
    monkeypatch.setattr(ledger, "_commit", LostAnswer(ledger, happens=happens))
    if happens:
        appended = await ledger.append(batch, now_us=0)
        assert (appended.size, appended.events, appended.indices) == (1, 2, (0,))
    else:
        with pytest.raises(Unavailable) as refused:
            await ledger.append(batch, now_us=0)
        assert not isinstance(refused.value, InDoubt)
    monkeypatch.undo()
    stats = await ledger.stats()
    assert (stats.receipts, stats.events, stats.answers) == ((1, 2, 1) if happens else (0, 0, 0))
    await ledger.append(Batch((made[1],)) if happens else batch, now_us=0)
    await ledger.close()


@pytest.mark.parametrize("happens", [True, False])
async def test_a_commit_that_stays_in_doubt(url: str, monkeypatch: pytest.MonkeyPatch, *, happens: bool) -> None:
    """Nobody can be asked for a while: the next append begins with the same events, and they are there once."""
    ledger = await PostgresLedger.open(url)
    first, more = some_events("a"), some_events("b")
    monkeypatch.setattr("tcd.ledger.postgres._DOUBT_TRIES", 0)
    monkeypatch.setattr(ledger, "_commit", LostAnswer(ledger, happens=happens))
    with pytest.raises(InDoubt):
        await ledger.append(Batch(events=first), now_us=0)
    monkeypatch.undo()
    made = records("a", 2)
    with pytest.raises(Conflict):
        await ledger.append(Batch((made[1],), first + more), now_us=0)
    appended = await ledger.append(Batch((made[0],), first + more), now_us=0)
    assert appended.events == 4
    assert (await ledger.events()).events == first + more
    appended = await ledger.append(Batch(events=first), now_us=0)
    assert appended.events == 6
    await ledger.close()


def in_doubt(patch: pytest.MonkeyPatch, ledger: PostgresLedger, *, happens: bool) -> None:
    """The next commit happens or not, and nobody can be asked."""
    patch.setattr("tcd.ledger.postgres._DOUBT_TRIES", 0)
    patch.setattr(ledger, "_commit", LostAnswer(ledger, happens=happens))


async def lease(ledger: PostgresLedger, events: tuple[Event, ...]) -> None:
    async def work(root: Root) -> Batch:
        del root
        return Batch(events=events)

    await ledger.transact(work, now_us=0)


@pytest.mark.parametrize("happens", [True, False])
async def test_what_is_made_under_the_lock_meanwhile_forgets_no_doubt(
    url: str, monkeypatch: pytest.MonkeyPatch, *, happens: bool
) -> None:
    """A lease between a commit in doubt and its second try: the events are in the log once."""
    ledger = await PostgresLedger.open(url)
    first, leased, more = some_events("a"), some_events("lease"), some_events("b")
    with monkeypatch.context() as patch:
        in_doubt(patch, ledger, happens=happens)
        with pytest.raises(InDoubt):
            await ledger.append(Batch(events=first), now_us=0)
    await lease(ledger, leased)
    appended = await ledger.append(Batch(events=first + more), now_us=0)
    assert appended.known == (len(first) if happens else 0)
    assert (await ledger.events()).events == (first + leased + more if happens else leased + first + more)
    await ledger.close()


@pytest.mark.parametrize("second", [True, False])
async def test_a_second_doubt_adds_to_the_first(url: str, monkeypatch: pytest.MonkeyPatch, *, second: bool) -> None:
    ledger = await PostgresLedger.open(url)
    events = [some_events(name) for name in "abc"]
    for tries, happens in ((1, True), (2, second)):
        with monkeypatch.context() as patch:
            in_doubt(patch, ledger, happens=happens)
            with pytest.raises(InDoubt):
                await ledger.append(Batch(events=sum(events[:tries], ())), now_us=0)
    appended = await ledger.append(Batch(events=sum(events, ())), now_us=0)
    assert (appended.known, appended.events) == (4 if second else 2, 6)
    assert (await ledger.events()).events == sum(events, ())
    await ledger.close()


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_is_in_doubt_every_event_is_there_once(
    url: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Two writers, each with appends and leases that succeed, get lost, or are in doubt, in a random order."""
    random = np.random.default_rng(seed)
    ledgers = [await PostgresLedger.open(url) for _ in range(2)]
    carried: list[tuple[Event, ...]] = [(), ()]
    said: list[list[Event]] = [[], []]
    for n in range(60):
        at = int(random.integers(2))
        # without the opened epoch, which is the same in all of them
        ledger, events, fate = ledgers[at], some_events(str(n))[1:], random.choice(["done", "landed", "lost"])
        with monkeypatch.context() as patch:
            if fate != "done":
                in_doubt(patch, ledger, happens=fate == "landed")
            try:
                if random.random() < 0.3:
                    # planned anew from the log by whoever wants it: tried once here, and not checked
                    await lease(ledger, some_events(f"lease-{n}"))
                    continue
                carried[at] += events
                said[at] += events
                await ledger.append(Batch(events=carried[at]), now_us=0)
                carried[at] = ()
            except InDoubt:
                assert fate != "done"
    for at, ledger in enumerate(ledgers):
        await ledger.append(Batch(events=carried[at]), now_us=0)
    found = (await ledgers[0].events()).events
    for at in range(2):
        assert [event for event in found if event in said[at]] == said[at]
    for ledger in ledgers:
        await ledger.close()
