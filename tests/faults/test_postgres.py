"""kill -9 of PostgreSQL and of shims under load: no answer is lost, nothing that was spent comes back."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")

from tcd.receipts import KeySet, VerifyPolicy, verify_chain
from tcd.risk_av.events import Drawn
from tests.faults import pg_decider
from tests.faults.forked import STUCK, Forked
from tests.faults.shims import Shim, all_events, check_log, start_shim
from tests.postgres import PostgresServer, server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server that the test may kill."""
    made = server()
    yield made
    made.stop()


class Decider:
    """A process of `tests.faults.pg_decider`, and what it said so far."""

    def __init__(self, url: str, seed: int, ttl: float = 5.0) -> None:
        self.answered: list[dict[str, Any]] = []
        self.refused: list[dict[str, Any]] = []
        self._process = Forked(pg_decider.start, url, str(seed), str(ttl))
        self.errors = self._process.errors
        # a full pipe would stop it
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout:
            # the last one may be cut
            if line.endswith(b"\n"):
                said = json.loads(line)
                (self.answered if "receipt" in said else self.refused if "refused" in said else []).append(said)

    def until(self, what: str, count: int) -> None:
        """Wait until there are `count` more of what was `answered` or `refused`."""
        found = getattr(self, what)
        wanted, until = len(found) + count, time.monotonic() + STUCK
        while len(found) < wanted:
            assert self._process.running, self.errors()
            assert time.monotonic() < until, f"no more is {what}: {self.errors()}"
            time.sleep(0.005)

    def kill(self) -> None:
        if self._process.running:
            self._process.kill()
            self._reader.join()
            self._process.rest()


async def check(url: str, deciders: list[Decider]) -> None:
    """Every invariant, on what the ledger has against what was said."""
    shim = await start_shim(url, lease_ttl_s=5.0, epoch_length=40)
    ledger = shim.ledger
    for decider in deciders:
        assert decider.answered
        for line in decider.answered:
            assert await ledger.get(line["receipt"]) is not None, "an answered decision is lost"
        assert {line["refused"] for line in decider.refused} <= {200, 503}
        # the static policy's action, or a stricter one where the session was rejected before
        assert {line["action"] for line in decider.refused if line["refused"] == 200} <= {"degrade", "block"}
    events = await all_events(ledger)
    controller = check_log(events)
    for decider in deciders:
        for line in decider.answered:
            view = controller.state(shim.service.subjects.tenant(line["tenant"]))
            assert view.epoch >= line["epoch"]
            if view.epoch == line["epoch"]:
                assert view.spent >= line["spent"], "spent went back"
    await retries_are_free(shim, deciders)
    await chains_verify(shim, deciders)
    await shim.stop()


async def retries_are_free(shim: Shim, deciders: list[Decider]) -> None:
    """At a third shim: the same bytes, and no reservation more."""
    for decider in deciders:
        for line in [line for line in decider.answered if line["request"]][-15:]:
            reply = await shim.client.post(line["request"])
            assert (reply.status, reply.body.decode()) == (200, line["answer"])
    events = await all_events(shim.ledger)
    names = [event.hypothesis for event in events if isinstance(event, Drawn)]
    assert len(names) == len(set(names))


async def chains_verify(shim: Shim, deciders: list[Decider]) -> None:
    """Chains of answered decisions, over whatever happened to their shim."""
    assert shim.service.judge.receipts is not None
    policy = VerifyPolicy(KeySet([shim.service.judge.receipts.issuer.pinned()]))
    for decider in deciders:
        for line in decider.answered[:: max(1, len(decider.answered) // 15)]:
            stored = await shim.ledger.get(line["receipt"])
            assert stored is not None
            assert stored.receipt is not None
            records = [
                s.receipt for s in await shim.ledger.chain_records(stored.receipt.chain) if s.receipt is not None
            ]
            report = verify_chain(
                heads=[r.head_hex for r in records],
                bodies=[r.body_text for r in records],
                sigs=[r.sig_hex for r in records],
                policy=policy,
            )
            assert report.ok, report.checks


def drill(postgres: PostgresServer, *, kills: int, seed: int) -> None:
    """Two shims; PostgreSQL is killed again and again at random moments, and comes back after a while."""
    random = np.random.default_rng(seed)
    url = postgres.place()
    deciders = [Decider(url, seed * 100 + i) for i in range(2)]
    try:
        for decider in deciders:
            decider.until("answered", 10)
        for _ in range(kills):
            for decider in deciders:
                decider.until("answered", int(random.integers(1, 30)))
            time.sleep(float(random.uniform(0, 0.05)))
            postgres.kill()
            for decider in deciders:
                decider.until("refused", 2)
            postgres.start()
            # without anybody's help
            for decider in deciders:
                decider.until("answered", 5)
    finally:
        for decider in deciders:
            decider.kill()
    asyncio.run(check(url, deciders))


def test_two_kills_of_postgres(own_postgres: PostgresServer) -> None:
    drill(own_postgres, kills=2, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("block", range(10))
def test_fifty_kills_of_postgres(own_postgres: PostgresServer, block: int) -> None:
    drill(own_postgres, kills=5, seed=50 + block)


def shim_drill(postgres: PostgresServer, *, kills: int, seed: int) -> None:
    """Two shims; one is killed and started anew again and again while the other goes on."""
    random = np.random.default_rng(seed)
    url = postgres.place()
    steady, number = Decider(url, seed * 1000), 0
    killed: list[Decider] = []
    try:
        steady.until("answered", 10)
        for number in range(1, kills + 1):
            victim = Decider(url, seed * 1000 + number, ttl=600.0)
            killed.append(victim)
            victim.until("answered", int(random.integers(1, 60)))
            time.sleep(float(random.uniform(0, 0.02)))
            victim.kill()
            steady.until("answered", 20)
        # no victim lives long enough to declare it lost for being slow
        assert not steady.refused, steady.errors()
    finally:
        for decider in (steady, *killed):
            decider.kill()
    asyncio.run(check(url, [steady, *killed]))


def test_three_kills_of_a_shim(postgres: PostgresServer) -> None:
    shim_drill(postgres, kills=3, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("block", range(10))
def test_a_hundred_kills_of_a_shim(postgres: PostgresServer, block: int) -> None:
    shim_drill(postgres, kills=10, seed=100 + block)
