"""The memory ledger: bounded, and evictions are owned up to."""

from __future__ import annotations

import pytest

from tcd.errors import Unavailable
from tcd.ledger import Batch, Limits, MemoryLedger
from tcd.risk_av import Controller
from tests.unit.ledger.records import answer, issue, records


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


def test_empty_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        Limits(bodies=0)
    with pytest.raises(ValueError, match="limit"):
        Limits(bodies=10, heads=9)
