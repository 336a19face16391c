"""The memory ledger: atomic batches, chains, idempotency, and evictions that are owned up to."""

from __future__ import annotations

import pytest

from tcd.errors import Conflict, Unavailable
from tcd.ledger import Batch, Idempotent, Ledger, Limits, MemoryLedger
from tcd.receipts import ChainState, Issuer, Receipt, SigningKey, chain_id
from tcd.receipts.records import Model, close_members, gap_members, open_session_members
from tcd.risk_av import Controller

D = "sha256:" + "d" * 64
ISSUER = Issuer(SigningKey(bytes(32)), origin="o")


def issue(chain: ChainState, typ: str = "gap", tag: int = 0) -> Receipt:
    if typ == "open":
        model = Model("m")
        members = open_session_members(
            subject=D, model=model, unit="session", keys=(1, 2, 3), mask=1, assets=(1, 2, 3), weight=0.5
        )
    elif typ == "close":
        members = close_members(reason="end", count=chain.seq + 1)
    else:
        members = gap_members(first=tag, last=tag, reason="test")
    return ISSUER.issue(
        chain=chain, typ=typ, tenant="t", config=D, policy=D, members=members, ts_us=1, nonce=tag.to_bytes(16, "big")
    )


def records(name: str, count: int, *, close: bool = False) -> list[Receipt]:
    out = [issue(ChainState(chain_id("session", name)), "open")]
    while len(out) < count:
        out.append(issue(out[-1].next(), "gap", len(out)))
    if close:
        out.append(issue(out[-1].next(), "close"))
    return out


def answer(key: str = "k", *, expires: int = 100, payload: str = "p") -> Idempotent:
    return Idempotent("t", key, payload, b"answer", "", expires)


async def test_append_and_look_up() -> None:
    ledger: Ledger = MemoryLedger()
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


async def test_a_refused_batch_changes_nothing() -> None:
    ledger = MemoryLedger()
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


async def test_a_closed_chain_takes_no_more() -> None:
    ledger = MemoryLedger()
    made = records("a", 2, close=True)
    await ledger.append(Batch(tuple(made)), now_us=0)
    late = issue(ChainState(made[-1].chain, made[-1].seq + 1, made[-1].head_hex), "gap")
    with pytest.raises(Conflict):
        await ledger.append(Batch((late,)), now_us=0)


async def test_answers_expire() -> None:
    ledger = MemoryLedger()
    await ledger.append(Batch(answers=(answer(expires=100),)), now_us=0)
    assert await ledger.answer("t", "k", now_us=100) is None
    with pytest.raises(Conflict):
        await ledger.append(Batch(answers=(answer(expires=200),)), now_us=99)
    await ledger.append(Batch(answers=(answer(expires=200, payload="q"),)), now_us=100)
    assert (await ledger.stats()).answers == 1


async def test_evictions_are_reported() -> None:
    ledger = MemoryLedger(Limits(bodies=2, heads=4, events=3, chains=2, answers=2))
    made = records("a", 6)
    controller = Controller()
    for i in range(5):
        controller.reserve(stream="s", hypothesis=str(i))
    await ledger.append(Batch(tuple(made), controller.take_events(), tuple(answer(str(i)) for i in range(3))), now_us=0)
    stats = await ledger.stats()
    assert (stats.receipts, stats.bodies, stats.bodies_evicted, stats.heads_evicted) == (6, 2, 4, 2)
    assert (stats.events, stats.events_evicted, stats.answers, stats.answers_evicted) == (6, 3, 2, 1)
    assert await ledger.get(made[0].head_hex) is None
    evicted = await ledger.get(made[3].head_hex)
    assert evicted is not None
    assert (evicted.index, evicted.receipt) == (3, None)
    assert [r.receipt for r in await ledger.chain_records(made[0].chain)] == made[4:]
    page = await ledger.events(first=1)
    assert (page.first, len(page.events), page.missing) == (3, 3, 2)
    await ledger.append(Batch((issue(made[-1].next(), "gap", 9),)), now_us=0)  # the chain's head is never evicted


async def test_open_chains_are_bounded_and_closed_ones_make_room() -> None:
    ledger = MemoryLedger(Limits(chains=2))
    one, two = records("a", 1), records("b", 1)
    await ledger.append(Batch((*one, *two)), now_us=0)
    three = records("c", 1)
    with pytest.raises(Unavailable):
        await ledger.append(Batch(tuple(three)), now_us=0)
    await ledger.append(Batch((issue(one[-1].next(), "close"),)), now_us=0)
    await ledger.append(Batch(tuple(three)), now_us=0)
    stats = await ledger.stats()
    assert (stats.chains, stats.chains_evicted) == (2, 1)
    assert await ledger.chain(one[0].chain) is None


async def test_a_closed_ledger_refuses() -> None:
    ledger = MemoryLedger()
    await ledger.close()
    with pytest.raises(Unavailable):
        await ledger.append(Batch(), now_us=0)
    with pytest.raises(Unavailable):
        await ledger.get("0" * 64)


def test_empty_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        Limits(bodies=0)
    with pytest.raises(ValueError, match="limit"):
        Limits(bodies=10, heads=9)
