"""What every ledger does: atomic batches, chains, idempotency, log order, checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tcd.errors import Conflict, Unavailable
from tcd.ledger import Batch, Checkpoint, Ledger, MemoryLedger, SavedState, SqliteLedger
from tcd.ledger.values import Stub
from tcd.receipts import ChainState
from tcd.risk_av import Controller
from tests.unit.ledger.records import answer, erasing, issue, records


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    made: Ledger
    if request.param == "postgres":
        # made now: where there is none, only these are skipped
        url = request.getfixturevalue("postgres").place()
        from tcd.ledger.postgres import PostgresLedger  # noqa: PLC0415 - an extra

        made = await PostgresLedger.open(url)
    else:
        made = MemoryLedger() if request.param == "memory" else SqliteLedger(tmp_path / "data")
    yield made
    await made.close()


async def test_append_and_look_up(ledger: Ledger) -> None:
    made = records("a", 3)
    controller = Controller()
    controller.reserve(stream="s", hypothesis="h")
    events = controller.take_events()
    appended = await ledger.append(Batch(tuple(made), events, (answer(),)), now_us=0, expected_size=0)
    assert (appended.size, appended.events, appended.indices) == (3, 2, (0, 1, 2))
    stored = await ledger.get(made[1].head_hex)
    assert stored is not None
    assert (stored.index, stored.receipt) == (1, made[1])
    assert await ledger.get("0" * 64) is None
    assert await ledger.chain(made[0].chain) == made[-1].next()
    assert await ledger.chain("sha256:" + "0" * 64) is None
    assert [r.receipt for r in await ledger.chain_records(made[0].chain, first=1, limit=1)] == [made[1]]
    page = await ledger.events()
    assert Controller.replay(page.events).digest() == controller.digest()
    found = await ledger.answer("t", "k", now_us=99)
    assert found is not None
    assert found.answer == b"answer"
    assert await ledger.answer("u", "k", now_us=0) is None


async def test_a_refused_batch_changes_nothing(ledger: Ledger) -> None:
    made = records("a", 4)
    await ledger.append(Batch(tuple(made[:2]), (), (answer(),)), now_us=0)
    before = await ledger.stats()
    controller = Controller()
    controller.reserve(stream="s", hypothesis="h")
    events = controller.take_events()
    fork = issue(made[0].next(), "gap", 77)
    for receipts, answers in (
        ((made[2], made[1]), ()),
        ((made[3],), ()),
        ((fork,), ()),
        ((made[2], made[2]), ()),
        ((made[2],), (answer(),)),
        ((made[2],), (answer("x"), answer("x"))),
    ):
        with pytest.raises(Conflict):
            await ledger.append(Batch(receipts, events, answers), now_us=0)
        assert await ledger.stats() == before
        assert await ledger.chain(made[0].chain) == made[1].next()
    with pytest.raises(Conflict):
        await ledger.append(Batch((made[2],)), now_us=0, expected_size=1)
    await ledger.append(Batch((made[2],), events), now_us=0, expected_size=2)


async def test_a_closed_chain_takes_no_more(ledger: Ledger) -> None:
    made = records("a", 2, close=True)
    await ledger.append(Batch(tuple(made)), now_us=0)
    late = issue(ChainState(made[-1].chain, made[-1].seq + 1, made[-1].head_hex), "gap")
    with pytest.raises(Conflict):
        await ledger.append(Batch((late,)), now_us=0)


async def test_answers_expire(ledger: Ledger) -> None:
    await ledger.append(Batch(answers=(answer(expires=100),)), now_us=0)
    assert await ledger.answer("t", "k", now_us=100) is None
    with pytest.raises(Conflict):
        await ledger.append(Batch(answers=(answer(expires=200),)), now_us=99)
    await ledger.append(Batch(answers=(answer(expires=200, payload="q"),)), now_us=100)
    assert (await ledger.stats()).answers == 1


async def test_a_closed_ledger_refuses(ledger: Ledger) -> None:
    await ledger.close()
    with pytest.raises(Unavailable):
        await ledger.append(Batch(), now_us=0)
    with pytest.raises(Unavailable):
        await ledger.get("0" * 64)


async def test_heads_are_the_leaves_in_order(ledger: Ledger) -> None:
    one, two = records("a", 3), records("b", 2)
    await ledger.append(Batch((one[0], two[0], one[1])), now_us=0)
    await ledger.append(Batch((two[1], one[2])), now_us=0)
    heads = [r.head for r in (one[0], two[0], one[1], two[1], one[2])]
    assert list(await ledger.heads()) == heads
    assert list(await ledger.heads(first=1, limit=2)) == heads[1:3]
    assert list(await ledger.heads(first=5)) == []
    for index, head in enumerate(heads):
        stored = await ledger.get(head.hex())
        assert stored is not None
        assert stored.index == index


async def test_records_in_the_order_of_the_ledger(ledger: Ledger) -> None:
    one, two = records("a", 3), records("b", 2)
    await ledger.append(Batch((one[0], two[0], one[1], two[1], one[2])), now_us=0)
    page = await ledger.records(first=1, limit=3)
    assert [(stored.index, stored.head) for stored in page] == [
        (1, two[0].head_hex),
        (2, one[1].head_hex),
        (3, two[1].head_hex),
    ]
    assert [stored.receipt for stored in page] == [two[0], one[1], two[1]]
    assert list(await ledger.records(first=5)) == []


async def test_an_erased_body_leaves_its_place_its_head_and_its_signature(ledger: Ledger) -> None:
    made = records("a", 3)
    shown = replace(answer(), head=made[1].head_hex, answer=made[1].body)
    await ledger.append(Batch(tuple(made), (), (shown, answer("other"))), now_us=0)
    before, heads = await ledger.chain(made[0].chain), await ledger.heads()
    note = records("b", 1)
    await ledger.append(Batch(tuple(note), erase=(0, 1)), now_us=0)
    await ledger.scrub()
    stored = await ledger.get(made[1].head_hex)
    assert stored is not None
    assert (stored.index, stored.head, stored.receipt) == (1, made[1].head_hex, None)
    assert stored.kept == stored.stub == Stub.of(made[1])
    assert list(await ledger.heads())[:3] == list(heads)
    assert await ledger.chain(made[0].chain) == before
    assert [r.receipt for r in await ledger.chain_records(made[0].chain)] == [None, None, made[2]]
    assert (await ledger.first_records([made[0].chain]))[made[0].chain].stub == Stub.of(made[0])
    # what a retry would be answered has the body too
    assert await ledger.answer("t", "k", now_us=0) is None
    assert await ledger.answer("t", "other", now_us=0) is not None
    stats = await ledger.stats()
    assert (stats.receipts, stats.bodies, stats.bodies_erased, stats.bodies_evicted) == (4, 2, 2, 0)
    # again, and the chain goes on
    await ledger.append(Batch((issue(made[-1].next(), "close"),), erase=(1,)), now_us=0)
    assert (await ledger.stats()).bodies_erased == 2


async def test_the_record_that_erased_a_body_is_found_by_its_place(ledger: Ledger) -> None:
    made = records("a", 6)
    await ledger.append(Batch(tuple(made)), now_us=0)
    heads = list(await ledger.heads())
    first, second = erasing((0, 2, 3), [heads[n] for n in (0, 2, 3)]), erasing((3, 4), heads[3:5], "again")
    await ledger.append(Batch(first, erase=(0, 2, 3)), now_us=0)
    await ledger.append(Batch(second, erase=(3, 4)), now_us=0)
    # a group of two erasures is committed as one batch
    third, fourth = erasing((1,), heads[1:2], "c"), erasing((3, 6), [heads[3], first[0].head], "d")
    await ledger.append(Batch((*third, *fourth), erase=(1, 3, 6)), now_us=0)
    await ledger.append(Batch(erase=(5,)), now_us=0)
    found = [await ledger.erasure(place) for place in range(16)]
    by = [first[1], third[1], first[1], first[1], second[1], None, fourth[1]]
    assert [None if f is None else f.receipt for f in found] == [*by, *[None] * 9]
    assert [f and f.index for f in found[:7]] == [7, 11, 7, 7, 9, None, 13]


async def test_what_was_not_there_before_cannot_be_erased(ledger: Ledger) -> None:
    made = records("a", 2)
    for places in ((0,), (2,), (-1,)):
        with pytest.raises(Conflict):
            await ledger.append(Batch(tuple(made), erase=places), now_us=0)
    assert (await ledger.stats()).receipts == 0


async def test_open_chains_in_pages(ledger: Ledger) -> None:
    made = {name: records(name, 2, close=name == "c") for name in "abcd"}
    for receipts in made.values():
        await ledger.append(Batch(tuple(receipts)), now_us=0)
    wanted = sorted((made[name][-1].next() for name in "abd"), key=lambda state: state.id)
    assert list(await ledger.open_chains()) == wanted
    first = await ledger.open_chains(limit=2)
    assert [*first, *await ledger.open_chains(after=first[-1].id, limit=2)] == wanted


async def test_checkpoints_only_grow_and_cover(ledger: Ledger) -> None:
    made = records("a", 6)
    assert await ledger.checkpoint() is None
    await ledger.append(Batch(tuple(made)), now_us=0)
    kept = [Checkpoint(size, bytes([size]) * 32, b"note %d" % size) for size in (2, 5)]
    for checkpoint in kept:
        await ledger.put_checkpoint(checkpoint)
    for size in (0, 2, 4, 5, 7):
        with pytest.raises(Conflict):
            await ledger.put_checkpoint(Checkpoint(size, bytes(32), b""))
    assert await ledger.checkpoint() == kept[1]
    covering = [await ledger.checkpoint(covering=index) for index in range(6)]
    assert covering == [kept[0], kept[0], kept[1], kept[1], kept[1], None]


async def test_a_failed_batch_leaves_the_events_where_they_were(ledger: Ledger) -> None:
    made = records("a", 2)
    controller = Controller()
    controller.reserve(stream="s", hypothesis="h")
    events = controller.take_events()
    with pytest.raises(Conflict):
        await ledger.append(Batch((made[1],), events), now_us=0)
    assert (await ledger.events()).events == ()
    appended = await ledger.append(Batch((made[0],), events), now_us=0)
    assert (appended.events, (await ledger.events(first=1)).events) == (len(events), events[1:])


async def test_states_only_grow_and_the_newest_two_are_kept(ledger: Ledger) -> None:
    controller = Controller()
    for i in range(4):
        controller.reserve(stream="s", hypothesis=str(i))
    await ledger.append(Batch(events=controller.take_events()), now_us=0)
    assert await ledger.states() == ()
    for events in (0, 6):
        with pytest.raises(Conflict):
            await ledger.put_state(SavedState(events, b""))
    for events in (2, 3, 5):
        await ledger.put_state(SavedState(events, b"state %d" % events))
    for events in (3, 4, 5):
        with pytest.raises(Conflict):
            await ledger.put_state(SavedState(events, b""))
    assert await ledger.states() == (5, 3)
    assert [await ledger.state(events) for events in (5, 3)] == [SavedState(5, b"state 5"), SavedState(3, b"state 3")]
    with pytest.raises(Unavailable, match="gone"):
        await ledger.state(2)


async def test_a_state_that_is_too_large_is_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcd.ledger.rules.MAX_STATE", 10)
    controller = Controller()
    controller.reserve(stream="s", hypothesis="h")
    await ledger.append(Batch(events=controller.take_events()), now_us=0)
    with pytest.raises(Unavailable, match="at most 10"):
        await ledger.put_state(SavedState(1, bytes(11)))
    await ledger.put_state(SavedState(1, bytes(10)))


async def test_first_records_of_many_chains_at_once(ledger: Ledger) -> None:
    made = {name: records(name, 3) for name in "abc"}
    for receipts in made.values():
        await ledger.append(Batch(tuple(receipts)), now_us=0)
    chains = [receipts[0].chain for receipts in made.values()]
    found = await ledger.first_records([*chains, "sha256:" + "0" * 64])
    assert {chain: stored.receipt for chain, stored in found.items()} == {r[0].chain: r[0] for r in made.values()}
    assert await ledger.first_records([]) == {}
