"""Experiment 1 of the controller through two real shims on PostgreSQL: the global null, retries at the other shim.

Per epoch of ten the chance of a trigger is 1 - prod(1 - alpha_t). A lost update between the shims would nearly double
it; the interval is 99.9 % Clopper-Pearson.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")

from tcd.bench.controller.null import ALPHA, target
from tcd.bench.controller.rate import Rate
from tcd.bench.controller.shim import LENGTH, NullScorer, make_app, post
from tcd.ledger.postgres import PostgresLedger
from tests.faults.shims import Shim, all_events, check_log
from tests.postgres import PostgresServer
from tests.unit.shim.conftest import Client


async def start(url: str, seed: int, ttl: float) -> Shim:
    ledger = await PostgresLedger.open(url)
    shim = Shim(Client(make_app(NullScorer(seed), ledger, lease_ttl_s=ttl)), ledger)
    await shim.replica.start()
    shim.service.start()
    return shim


@asynccontextmanager
async def two(url: str, seed: int, ttl: float) -> AsyncIterator[list[Shim]]:
    made = [await start(url, seed, ttl) for _ in range(2)]
    try:
        yield made
    finally:
        for shim in made:
            await shim.stop()


async def run(url: str, *, tenants: int, epochs: int, concurrency: int, seed: int, crashes: int = 0) -> tuple[int, int]:
    """Epochs with a trigger, and epochs; every answer counts for its own epoch."""
    triggered: dict[tuple[str, int], bool] = defaultdict(bool)
    sessions = tenants * epochs * LENGTH
    numbers = iter(range(sessions))
    rng = np.random.default_rng(seed)
    crash_at = {sessions * (i + 1) // (crashes + 1) for i in range(crashes)}
    # where none dies none is declared lost, however long a busy machine holds it up
    ttl = 5.0 if crashes else 120.0
    async with two(url, seed, ttl) as made:

        async def worker(index: int) -> None:
            for number in numbers:
                if number in crash_at:
                    victim = made[1]
                    made[1] = await start(url, seed, ttl)
                    await victim.crash()
                tenant = f"t{number % tenants}"
                value = {"trace_vector": [-float(number)], "session": f"s{number}", "tenant": tenant, "step_id": 0}
                value["request_id"] = f"r{number}"
                at = index % 2
                answer = await post(made[at].client.app, "/diagnose", value)
                if answer.get("cause") == "degraded" or "trigger" not in answer:
                    assert crashes, answer
                    continue
                triggered[tenant, answer["epoch"]] |= answer["trigger"]
                if rng.random() < 0.1:
                    again = await post(made[1 - at].client.app, "/diagnose", value)
                    assert crashes or again == answer

        await asyncio.gather(*(worker(i) for i in range(concurrency)))
        for shim in made:
            await shim.service.judge.flush()
        check_log(await all_events(made[0].ledger))
    return sum(triggered.values()), len(triggered)


async def test_the_null_through_two_shims(postgres: PostgresServer) -> None:
    hits, n = await run(postgres.place(), tenants=8, epochs=15, concurrency=32, seed=1)
    assert n == 8 * 15
    rate = Rate.of_hits("null", "two shims on PostgreSQL", hits, n, bound=target(LENGTH), check="contains")
    assert rate.ok, rate


@pytest.mark.long
@pytest.mark.parametrize("concurrency", [2, 16, 64])
async def test_the_null_through_two_shims_at_length(postgres: PostgresServer, concurrency: int) -> None:
    hits, n = await run(postgres.place(), tenants=32, epochs=60, concurrency=concurrency, seed=10 + concurrency)
    assert n == 32 * 60
    rate = Rate.of_hits("null", f"two shims, {concurrency} at once", hits, n, bound=target(LENGTH), check="contains")
    assert rate.ok, rate


@pytest.mark.long
async def test_the_null_with_shims_that_crash(postgres: PostgresServer) -> None:
    hits, n = await run(postgres.place(), tenants=32, epochs=40, concurrency=16, seed=5, crashes=20)
    rate = Rate.of_hits("null", "two shims, one of them killed 20 times", hits, n, bound=ALPHA, check="at_most")
    assert rate.ok, rate
