"""Decisions per second that PostgreSQL makes durable, by the size of a batch and the number of shims that write.

Starts a server of its own (fsync on). A decision is a receipt of real size, its two events and its idempotent answer;
the floor is a commit of one small row. Asserts nothing; prints a table in markdown.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import sys
import time

from tcd.bench.ledger import decisions, sample
from tcd.ledger import Batch
from tcd.ledger.postgres import PostgresLedger
from tcd.ledger.postgres_connect import connect
from tests.postgres import PostgresServer, binaries

BATCHES = (1, 8, 32, 128, 512)
WRITERS = (1, 4)
SECONDS = 3.0


def merged(batches: list[Batch]) -> Batch:
    """What a group commit makes of them."""
    return Batch(
        tuple(r for b in batches for r in b.receipts),
        tuple(e for b in batches for e in b.events),
        tuple(a for b in batches for a in b.answers),
    )


async def floor(url: str) -> float:
    """Median milliseconds of a commit of one small row."""
    connection = await connect(url)
    await connection.execute("CREATE TABLE floor (n int)")
    waits = []
    for n in range(200):
        start = time.perf_counter()
        await connection.execute("INSERT INTO floor VALUES ($1)", n)
        waits.append(time.perf_counter() - start)
    await connection.close()
    return statistics.median(waits) * 1e3


async def rate(server: PostgresServer, writers: int, size: int, made: list[list[Batch]]) -> tuple[float, float, float]:
    """Decisions per second, median milliseconds of an append, microseconds of this process's CPU per decision."""
    url = server.place()
    ledgers = [await PostgresLedger.open(url) for _ in range(writers)]
    waits: list[float] = []
    end = time.perf_counter() + SECONDS

    async def write(ledger: PostgresLedger, own: list[Batch]) -> int:
        done = 0
        while done + size <= len(own) and time.perf_counter() < end:
            batch = merged(own[done : done + size])
            start = time.perf_counter()
            await ledger.append(batch, now_us=0)
            waits.append(time.perf_counter() - start)
            done += size
        return done

    began, cpu = time.perf_counter(), time.process_time()
    done = sum(await asyncio.gather(*map(write, ledgers, made)))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    for ledger in ledgers:
        await ledger.close()
    return done / seconds, statistics.median(waits) * 1e3, cpu / done * 1e6


async def measure(server: PostgresServer) -> None:
    """All of it."""
    seen = await sample()
    made = decisions(seen, max(WRITERS), 8192)
    size = len(made[0][1].receipts[0].body)
    say(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; receipt {size} bytes; "
        f"commit of one row {await floor(server.place()):.1f} ms\n"
    )
    say(
        "| decisions per batch |"
        + "".join(f" {w} shim{'s' * (w > 1)}: per second | p50 ms | CPU µs |" for w in WRITERS)
    )
    say("|---|" + "---|---|---|" * len(WRITERS))
    for batch in BATCHES:
        found = [await rate(server, writers, batch, made) for writers in WRITERS]
        say(f"| {batch} |" + "".join(f" {n:,.0f} | {ms:.1f} | {cpu:.0f} |" for n, ms, cpu in found))


def say(line: str) -> None:
    """A line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Start a server, measure, stop it."""
    found = binaries()
    if found is None:
        sys.exit("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer(found)
    server.start()
    try:
        asyncio.run(measure(server))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
