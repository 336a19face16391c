"""What the counts of the dashboard cost: `python -m tests.benchmarks.bench_dashboard 10000 1000000` (receipts)."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from tcd.errors import Unavailable
from tcd.ledger import MemoryLedger
from tcd.ledger.search import ReceiptIndex
from tcd.ledger.search_views import SearchViews

COLUMNS = "idx, ts_us, head, typ, tenant, subject, model, action, enforced, cause, verdict, erased"


def rows(count: int) -> Iterator[tuple[Any, ...]]:
    """Decisions of sessions of 30 steps, of 200 tenants, one in a hundred blocked."""
    rng = random.Random(1)  # noqa: S311 - seeded
    for at in range(count):
        blocked = rng.random() < 0.01
        action, cause = ("block", "av") if blocked else ("allow", "")
        tenant, subject = f"t{rng.randrange(200)}", f"s{at // 30}"
        yield (
            *(at, 1000 * at, at.to_bytes(32, "big"), "decision", tenant, subject, "m"),
            *(action, action, cause, int(blocked), 0),
        )


async def measured(count: int) -> None:
    """Fill an index and print milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        index = ReceiptIndex(Path(folder) / "search.sqlite", MemoryLedger())
        await index.catch_up()

        def write() -> None:
            connection = index._open()
            connection.execute("BEGIN")
            marks = ", ".join("?" * 12)
            connection.executemany(f"INSERT INTO receipt ({COLUMNS}) VALUES ({marks})", rows(count))  # noqa: S608
            connection.execute("COMMIT")

        await index._run(write)
        views = SearchViews(index)
        span = {"since_us": 0, "until_us": 10**18, "bins": 60}
        asked: dict[str, Callable[[], Awaitable[Any]]] = {
            "counts": lambda: views.counts(tenant=None, **span),
            "counts of a tenant": lambda: views.counts(tenant="t7", **span),
            "blocked sessions": lambda: views.sessions(tenant=None, enforced="block", limit=12),
            "blocked sessions of a tenant": lambda: views.sessions(tenant="t7", enforced="block", limit=12),
            "tenants": lambda: views.tenants(limit=21),
        }
        for name, work in asked.items():
            began = time.perf_counter()
            try:
                await work()
                said = ""
            except Unavailable:
                said = " (refused)"
            print(f"{count:>10,}  {name:<30}{1000 * (time.perf_counter() - began):10.1f} ms{said}")  # noqa: T201
        await index.close()


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        asyncio.run(measured(int(argument)))
