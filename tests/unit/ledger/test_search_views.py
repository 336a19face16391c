"""Counts and groups over the search index: what a scan counts, bounded in rows and in work."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tcd.errors import Unavailable
from tcd.ledger import MemoryLedger
from tcd.ledger.search import ReceiptIndex
from tcd.ledger.search_views import SearchViews

ROWS = 6000


@pytest.fixture
def index() -> Iterator[ReceiptIndex]:
    made = ReceiptIndex(":memory:", MemoryLedger())
    yield made
    asyncio.run(made.close())


def rows() -> list[dict[str, Any]]:
    rng = random.Random(3)  # noqa: S311 - seeded
    return [
        {
            "idx": at, "ts_us": 1000 + at, "head": at.to_bytes(32, "big"), "typ": "decision",
            "tenant": rng.choice(["a", "b", "-", "zz"]), "subject": f"s{rng.randrange(40)}", "model": "m",
            "action": rng.choice(["allow", "block"]), "enforced": rng.choice(["allow", "block", "degrade"]),
            "cause": rng.choice(["", "av"]), "verdict": rng.randrange(2), "erased": 0,
        }
        for at in range(ROWS)
    ]  # fmt: skip


async def filled(index: ReceiptIndex) -> list[dict[str, Any]]:
    made = rows()
    await index.catch_up()

    def write() -> None:
        connection = index._open()
        names = ", ".join(made[0])
        marks = ", ".join(f":{name}" for name in made[0])
        connection.executemany(f"INSERT INTO receipt ({names}) VALUES ({marks})", made)  # noqa: S608 - constants
        connection.execute(
            "INSERT INTO receipt (idx, ts_us, head, typ, tenant, erased) VALUES (?, 2000, x'00', 'admin', '-', 0)",
            [ROWS],
        )

    await index._run(write)
    return made


async def test_counts_are_those_of_a_scan(index: ReceiptIndex) -> None:
    made, views = await filled(index), SearchViews(index)
    for tenant in (None, "a", "nobody"):
        found, whole = await views.counts(tenant=tenant, since_us=1500, until_us=3500, bins=7)
        width = -(-2000 // 7)
        wanted = Counter(
            ((r["ts_us"] - 1500) // width, r["action"], r["enforced"], r["cause"], bool(r["verdict"]))
            for r in made
            if 1500 <= r["ts_us"] < 3500 and tenant in {None, r["tenant"]}
        )
        assert {(c.bin, c.action, c.enforced, c.cause, c.verdict): c.count for c in found} == wanted
        assert whole
        assert all(0 <= c.bin < 7 for c in found)


async def test_more_than_is_counted_is_said(index: ReceiptIndex) -> None:
    await filled(index)
    found, whole = await SearchViews(index).counts(tenant=None, since_us=0, until_us=9999, bins=3, most=100)
    assert (sum(c.count for c in found), whole) == (100, False)


async def test_sessions_come_newest_first_with_their_newest_record(index: ReceiptIndex) -> None:
    made = await filled(index)
    found = await SearchViews(index).sessions(tenant="b", enforced="block", limit=5)
    wanted: dict[str, list[dict[str, Any]]] = {}
    for row in reversed(made):
        if row["tenant"] == "b" and row["enforced"] == "block":
            wanted.setdefault(row["subject"], []).append(row)
    assert [(f.subject, f.ts_us, f.count, f.cause) for f in found] == [
        (subject, of[0]["ts_us"], len(of), of[0]["cause"]) for subject, of in list(wanted.items())[:5]
    ]
    few = await SearchViews(index).sessions(tenant=None, enforced="block", limit=50, most=10)
    assert sum(f.count for f in few) == 10


async def test_tenants_in_order_and_page_by_page(index: ReceiptIndex) -> None:
    await filled(index)
    views = SearchViews(index)
    assert await views.tenants() == ["a", "b", "zz"]
    assert await views.tenants(limit=2) == ["a", "b"]
    assert await views.tenants(after="b", limit=2) == ["zz"]
    assert await views.tenants(after="zz") == []


async def test_a_query_that_would_take_too_long_is_refused_and_the_next_one_is_not(index: ReceiptIndex) -> None:
    await filled(index)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Unavailable, match="too many receipts"):
        await index.select(endless, [], steps=1_000_000)
    assert await index.select("SELECT count(*) FROM receipt", [], steps=1_000_000) == [(ROWS + 1,)]
    # nor is one that needs no bound
    assert len(await index.search({}, limit=10_000)) == ROWS + 1
    with pytest.raises(Exception, match="no such table"):
        await index.select("SELECT x FROM missing", [], steps=1_000_000)


async def test_tenants_are_looked_up_not_read_through(index: ReceiptIndex) -> None:
    """A budget of work that reading through the rows would exceed."""
    await filled(index)

    async def repeated(sql: str, values: list[Any]) -> Any:
        return await index.select(sql, values, steps=0)

    with pytest.raises(Unavailable):
        await repeated("SELECT DISTINCT tenant || '' FROM receipt", [])
    views = SearchViews(index)
    cast("Any", views)._select = repeated
    assert await views.tenants() == ["a", "b", "zz"]
