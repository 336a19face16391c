"""Faults of the network, of a real Triton and of the store, under load.

Each failure policy is honoured, no request hangs, recovery needs nobody, the counts are right, nothing is lost.
Nothing here depends on how fast the machine is: conditions are waited for.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.app import Edges, create_app
from tcd.background import running
from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.ledger import SqliteLedger
from tcd.receipts import KeySet, VerifyPolicy, verify_single
from tcd.risk_av import Controller
from tcd.scoring import LibraryScorer
from tcd.triton.batcher import MicroBatcher
from tcd.triton.client import connect
from tcd.triton.health import HealthMonitor
from tcd.triton.launcher import TritonServer
from tests.faults.proxy import Fault, FaultProxy, faulty
from tests.unit.shim.conftest import Client, settings_of
from tests.unit.surfaces.ways import app_of

pytestmark = pytest.mark.triton
ACTIONS = {"closed": "block", "open": "allow", "static": "degrade"}
DEADLINE_MS = 1000.0
#: Seconds after which a request counts as hanging: far above the deadline, so that a busy machine is no failure.
HANGING = 60.0
#: Seconds that a condition may take to come about.
PATIENCE = 240.0
SESSIONS = 12


class Load:
    """Sessions that go on step after step; remembers every answer."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.answers: list[Any] = []
        self._number = 0

    async def once(self, **members: Any) -> Any:
        self._number += 1
        body = {"session": f"s{self._number}", "trace_vector": [-1.0], "entropy": 1.0, **members}
        reply = await asyncio.wait_for(self.client.post(body), HANGING)
        assert reply.status == 200, reply.body
        answer = reply.json()
        self.answers.append(answer)
        return answer

    async def burst(self) -> list[Any]:
        return list(await asyncio.gather(*(self.once() for _ in range(SESSIONS))))

    async def until(self, wanted: Callable[[list[Any]], bool]) -> list[Any]:
        loop = asyncio.get_running_loop()
        until = loop.time() + PATIENCE
        while not wanted(found := await self.burst()):
            assert loop.time() < until, found
        return found

    def degraded(self) -> list[Any]:
        return [answer for answer in self.answers if answer["cause"] == "degraded"]

    def counted(self) -> dict[str, int]:
        page = self.client.app.runtime.exporter.expose("", sessions=0, dropped=0)[0].decode()
        found = re.findall(r'tcd_degraded_decisions_total\{reason="(\w+)"\} ([\d.]+)', page)
        return {reason: int(float(value)) for reason, value in found}


def fine(answers: list[Any]) -> bool:
    return all(answer["cause"] == "" for answer in answers)


def all_degraded(answers: list[Any]) -> bool:
    return all(answer["cause"] == "degraded" for answer in answers)


async def check_nothing_is_lost(load: Load) -> None:
    """Each receipt that went out verifies and is in the ledger; the events make the controller that runs."""
    check_receipts(load)
    runtime = load.client.app.runtime
    await runtime.service.judge.flush()
    for answer in load.answers:
        if answer["receipt"] is not None:
            assert await runtime.ledger.get(answer["receipt"]) is not None
    controller = runtime.service.budget.controller
    events = (await runtime.ledger.events(limit=100_000)).events
    assert Controller.replay(events, controller.params).digest() == controller.digest()


def check_policy(load: Load, on_failure: str, reasons: set[str]) -> None:
    """What was degraded followed the policy, said so, and was counted."""
    degraded = load.degraded()
    assert degraded
    assert {answer["action"] for answer in degraded} == {ACTIONS[on_failure]}
    for answer in degraded:
        assert answer["guarantee"].startswith("none (")
        assert any(check["status"] == "failed" for check in answer["checks"])
    counted = load.counted()
    assert counted.keys() <= reasons
    assert sum(counted.values()) == len(degraded)


def check_receipts(load: Load) -> None:
    """An answer without a receipt says why it has none."""
    receipts = load.client.app.runtime.service.judge.receipts
    assert receipts is not None
    policy = VerifyPolicy(KeySet([receipts.issuer.pinned()]))
    for answer in load.answers:
        if answer["receipt"] is None:
            check = next(c for c in answer["checks"] if c["name"] == "receipt")
            assert (check["status"], answer["cause"]) == ("failed", "degraded"), check
            assert check["reason"]
            continue
        report = verify_single(answer["receipt_body"], head=answer["receipt"], sig=answer["receipt_sig"], policy=policy)
        assert report.ok


@asynccontextmanager
async def shim(url: str, on_failure: str) -> AsyncIterator[Load]:
    connection = connect(url)
    app = app_of(
        MicroBatcher(connection),
        assets=AssetDirectory(default_asset_dir()),
        on_failure=on_failure,
        deadline_ms=DEADLINE_MS,
    )
    try:
        yield Load(Client(app))
    finally:
        await connection.close()


@asynccontextmanager
async def behind_proxy(server: TritonServer, on_failure: str) -> AsyncIterator[tuple[FaultProxy, Load]]:
    async with faulty(server.http_url.removeprefix("http://")) as proxy, shim(proxy.url, on_failure) as load:
        yield proxy, load


FAULTS = ["delay", "reset", "blackhole", "half_close"]
#: In CI each fault and each policy once.
SHORT = [("delay", "closed"), ("reset", "open"), ("blackhole", "static"), ("half_close", "closed")]
CASES = [
    pytest.param(*case, marks=() if case in SHORT else pytest.mark.long) for case in itertools.product(FAULTS, ACTIONS)
]


@pytest.mark.parametrize(("fault", "on_failure"), CASES)
async def test_a_fault_of_the_network(triton_server: TritonServer, fault: Fault, on_failure: str) -> None:
    async with behind_proxy(triton_server, on_failure) as (proxy, load):
        await load.until(fine)
        under_way = asyncio.ensure_future(load.burst())
        await asyncio.sleep(0)
        proxy.set(fault, delay=3 * DEADLINE_MS / 1000.0)
        await under_way
        if fault == "half_close":
            # what is open ends, new connections work: at most the answers under way are lost
            await load.until(fine)
        else:
            await load.until(all_degraded)
            proxy.set("none")
            await load.until(fine)
        if load.degraded() or fault != "half_close":
            check_policy(load, on_failure, {"timeout", "scoring"})
        await check_nothing_is_lost(load)


async def test_a_delay_within_the_deadline_is_no_failure(triton_server: TritonServer) -> None:
    async with behind_proxy(triton_server, "closed") as (proxy, load):
        proxy.set("delay", delay=0.02)
        answers = [await load.once(deadline_ms=10_000.0) for _ in range(5)]
        assert fine(answers)
        assert load.counted() == {}


async def test_a_triton_that_is_stopped_then_killed_and_started_again(own_triton: TritonServer) -> None:
    assert own_triton.pid is not None
    async with shim(own_triton.http_url, "static") as load:
        await load.until(fine)
        os.kill(own_triton.pid, signal.SIGSTOP)
        try:
            await load.until(all_degraded)
        finally:
            os.kill(own_triton.pid, signal.SIGCONT)
        await load.until(fine)
        assert load.counted().keys() == {"timeout"}
        connection = connect(own_triton.http_url)
        monitor = HealthMonitor(connection, interval=0.1, timeout=5.0, heal=lambda: asyncio.to_thread(own_triton.heal))
        async with running(monitor.run()):
            os.kill(own_triton.pid, signal.SIGKILL)
            await load.until(all_degraded)
            # nobody does anything: the monitor heals
            await load.until(fine)
        await connection.close()
        check_policy(load, "static", {"timeout", "scoring"})
        await check_nothing_is_lost(load)


class FailingDisk(SqliteLedger):
    """A ledger whose disk is full while `full` is set."""

    full = False

    async def append(self, batch: Any, *, now_us: int, expected_size: int | None = None) -> Any:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return await super().append(batch, now_us=now_us, expected_size=expected_size)


@pytest.mark.parametrize("on_failure", list(ACTIONS))
async def test_a_store_that_fails_and_comes_back(tmp_path: Path, on_failure: str) -> None:
    ledger = FailingDisk(tmp_path)
    app = create_app(
        settings_of(log_decisions=False, edge_rate_cap=1e9, edge_rate_refill=1e9, on_failure=on_failure),
        scorer=LibraryScorer(AssetDirectory(default_asset_dir()).current()),
        assets=AssetDirectory(default_asset_dir()),
        edges=Edges(ledger=ledger),
    )
    load = Load(Client(app))
    await load.until(fine)
    under_way = asyncio.ensure_future(load.burst())
    await asyncio.sleep(0)
    ledger.full = True
    await under_way
    found = await load.until(all_degraded)
    assert {answer["receipt"] for answer in found} == {None}
    ledger.full = False
    await load.until(fine)
    check_policy(load, on_failure, {"ledger"})
    await check_nothing_is_lost(load)
    await app.runtime.service.stop(timeout=10.0)
    await ledger.close()
