"""The measurements: what each part costs, how the rate grows with the parts, and what a fault costs callers."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tcd.ledger.postgres_connect import connect
from tests.scaleout.check import check, check_retries
from tests.scaleout.load import Callers, Step
from tests.scaleout.parts import Deployment, deployment

#: Seconds from a kill until a supervisor starts the part again.
DOWN = 3.0
#: Cores of a part where parts are to be machines of their own: so few that all of them together are a fraction of this
#: one, and callers for each pair of parts.
SLICE, CALLERS = 0.05, 8


@asynccontextmanager
async def calling(made: Deployment, run: str, count: int) -> AsyncIterator[Callers]:
    """Callers that call while the block runs."""
    callers = Callers(f"http://127.0.0.1:{made.front}", run, count)
    task = asyncio.create_task(callers.go())
    try:
        yield callers
    finally:
        callers.stopped = True
        await task


def latencies(steps: list[Step]) -> dict[str, float]:
    """Milliseconds: median, 99th percentile, worst."""
    waits = np.array([step.ended - step.began for step in steps] or [0.0]) * 1e3
    return {"p50_ms": float(np.median(waits)), "p99_ms": float(np.quantile(waits, 0.99)), "max_ms": float(waits.max())}


async def sizes(url: str) -> dict[str, int]:
    """Bytes of the database and of its write-ahead log so far, commits, receipts."""
    connection = await connect(url)
    try:
        row = await connection.fetchrow(
            "SELECT pg_database_size(current_database()) AS database, (pg_current_wal_lsn() - '0/0')::bigint AS wal, "
            "(SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS commits, "
            "(SELECT count(*) FROM tcd_receipt) AS receipts"
        )
        return dict(row)
    finally:
        await connection.close()


async def throughput(made: Deployment, *, seconds: float, count: int, run: str) -> tuple[dict[str, Any], list[Step]]:
    """Decisions per second, CPU of each kind of part and bytes for each, after a warm-up of a fifth; all steps."""
    async with calling(made, run, count) as callers:
        await asyncio.sleep(seconds / 5)
        first, cpu, began, kept = len(callers.done), made.cpu_seconds(), time.monotonic(), await sizes(made.url)
        own = time.process_time()
        await asyncio.sleep(seconds)
        steps, after, ended = callers.done[first:], made.cpu_seconds(), time.monotonic()
        own = time.process_time() - own
        grown = await sizes(made.url)
    good = [step for step in steps if step.good]
    assert good, "nothing was decided"
    n = len(good)
    found = {
        "tritons": len(made.tritons),
        "shims": len(made.shims),
        "callers": count,
        "seconds": ended - began,
        "decisions": n,
        "per_second": n / (ended - began),
        "not_good": len(steps) - n,
        "joined": sum(step.joined for step in callers.done),
        **latencies(good),
        "cpu_us": {**{part: (after[part] - cpu[part]) / n * 1e6 for part in cpu}, "callers": own / n * 1e6},
        "bytes": {name: (grown[name] - kept[name]) / n for name in ("database", "wal")},
        "per_commit": n / max(1, grown["commits"] - kept["commits"]),
        "sent_bytes": float(np.mean([len(step.answer) for step in good])),
    }
    return found, callers.done


async def one_fault(
    made: Deployment, callers: Callers, name: str, kill: Callable[[], None], start: Callable[[], None], *, calm: float
) -> dict[str, Any]:
    """Kill a part under load, start it again after a while, and let it come back."""
    await asyncio.sleep(calm)
    killed = time.monotonic()
    await asyncio.to_thread(kill)
    await asyncio.sleep(DOWN)
    await asyncio.to_thread(start)
    started = time.monotonic()
    for part in made.parts:
        if part.name == name:
            await asyncio.to_thread(part.wait)
    back = time.monotonic()
    await asyncio.sleep(calm)
    end = time.monotonic()
    steps = [step for step in callers.done if killed - calm <= step.ended <= end]
    during = [step for step in steps if step.ended >= killed and step.began <= back]
    good = sorted(step.ended for step in steps if step.good)
    marks = [killed, *(at for at in good if at > killed)]
    gaps = [b - a for a, b in itertools.pairwise(marks)]
    return {
        "part": name,
        "down_s": started - killed,
        "ready_after_s": back - killed,
        "before": {
            "per_second": sum(at < killed for at in good) / calm,
            **latencies([s for s in steps if s.ended < killed]),
        },
        "while_down": {
            "per_second": sum(killed <= at < started for at in good) / (started - killed),
            **latencies([s for s in steps if killed <= s.ended < started]),
        },
        "after": {"per_second": sum(at >= back for at in good) / (end - back)},
        "longest_without_s": max(gaps, default=end - killed),
        "answered": len(during),
        "degraded": sum(step.status == 200 and not step.good for step in during),
        "refused": sum(step.status != 200 for step in during),
        "tried_again": sum(step.tries > 1 for step in during),
        "joined": len({step.request["session"] for step in during if step.joined}),
        "rate": rates([at - killed for at in good], calm),
    }


async def failover(made: Deployment, before: list[Step], *, callers: int, calm: float, run: str) -> dict[str, Any]:
    """A fault of each kind of part in turn under load; then everything that was answered, also before, is looked up."""
    faults = []
    async with calling(made, run, callers) as at_work:
        for name, (kill, start) in made.faults().items():
            faults.append(await one_fault(made, at_work, name, kill, start, calm=calm))
    front = f"http://127.0.0.1:{made.front}"
    found = await check(made.url, before + at_work.done)
    return {
        "callers": callers,
        "faults": faults,
        "steps": len(at_work.done),
        "good": sum(step.good for step in at_work.done),
        "gave_up": at_work.gave_up,
        "statuses": {str(s): sum(step.status == s for step in at_work.done) for s in {x.status for x in at_work.done}},
        "afterwards": {**found, "sent_again": await check_retries(front, made.url, at_work.done)},
    }


def rates(times: list[float], calm: float) -> list[list[float]]:
    """Good answers per second in slices of half a second; time 0 is the kill."""
    edges = np.arange(-calm, max(times, default=0.0) + 0.5, 0.5)
    counts = np.histogram(times, edges)[0]
    return [[float(edge), float(count) * 2] for edge, count in zip(edges[:-1], counts, strict=True)]


def with_faults(*, seconds: float, calm: float, callers: int) -> dict[str, Any]:
    """Three of each: the rate, then the faults."""
    with tempfile.TemporaryDirectory(prefix="tcd-scaleout-") as place, deployment(Path(place)) as made:
        whole, steps = asyncio.run(throughput(made, seconds=seconds, count=64, run="w"))
        return {"whole": whole, "failover": asyncio.run(failover(made, steps, callers=callers, calm=calm, run="f"))}


def measure(*, seconds: float, calm: float, callers: int, sliced: bool) -> dict[str, Any]:
    """All of it; `sliced`: see `slices`."""
    out: dict[str, Any] = {"down_s": DOWN, **with_faults(seconds=seconds, calm=calm, callers=callers)}
    with (
        tempfile.TemporaryDirectory(prefix="tcd-scaleout-") as place,
        deployment(Path(place), tritons=1, shims=1) as made,
    ):
        out["single"] = asyncio.run(throughput(made, seconds=seconds, count=64, run="s"))[0]
    return out | (slices(seconds) if sliced else {})


def slices(seconds: float) -> dict[str, Any]:
    """Decisions per second as pairs of a Triton and a shim are added, each part with a slice of a core."""
    out: dict[str, Any] = {"slice_cores": SLICE, "slice_callers": CALLERS, "slices": []}
    for count in (1, 2, 3):
        with (
            tempfile.TemporaryDirectory(prefix="tcd-scaleout-") as place,
            deployment(Path(place), tritons=count, shims=count, quota=SLICE) as made,
        ):
            out["slices"].append(
                asyncio.run(throughput(made, seconds=seconds, count=CALLERS * count, run=f"q{count}"))[0]
            )
    return out
