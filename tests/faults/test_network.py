"""Faults on the way to a real Triton, under load: policies honoured, deadlines kept, recovery, counts right."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tcd.background import running
from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.receipts import KeySet, VerifyPolicy, verify_single
from tcd.triton.batcher import MicroBatcher
from tcd.triton.client import connect
from tcd.triton.health import HealthMonitor
from tcd.triton.launcher import TritonServer
from tests.faults.proxy import Fault, FaultProxy, faulty
from tests.unit.shim.conftest import Client
from tests.unit.surfaces.ways import app_of

pytestmark = [pytest.mark.triton, pytest.mark.long]
ACTIONS = {"closed": "block", "open": "allow", "static": "degrade"}
DEADLINE_MS = 400.0
#: Seconds after which a request counts as hanging: far above the deadline, so that a busy machine is no failure.
HANGING = 20.0
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
        for _ in range(100):
            found = await self.burst()
            if wanted(found):
                return found
        raise AssertionError(found)

    def counted(self) -> dict[str, int]:
        page = self.client.app.runtime.exporter.expose("", sessions=0, dropped=0)[0].decode()
        found = re.findall(r'tcd_degraded_decisions_total\{reason="(\w+)"\} ([\d.]+)', page)
        return {reason: int(float(value)) for reason, value in found}


def fine(answers: list[Any]) -> bool:
    return all(answer["cause"] == "" for answer in answers)


def all_degraded(answers: list[Any]) -> bool:
    return all(answer["cause"] == "degraded" for answer in answers)


def check_receipts(load: Load) -> None:
    """Each receipt that went out verifies; an answer without one says that its commit came too late."""
    receipts = load.client.app.runtime.service.judge.receipts
    assert receipts is not None
    policy = VerifyPolicy(KeySet([receipts.issuer.pinned()]))
    for answer in load.answers:
        if answer["receipt"] is None:
            check = next(c for c in answer["checks"] if c["name"] == "receipt")
            assert (check["status"], answer["cause"]) == ("failed", "degraded"), check
            assert "not durable in time" in check["reason"]
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


@pytest.mark.parametrize("fault", ["delay", "reset", "blackhole", "half_close"])
@pytest.mark.parametrize("on_failure", ["closed", "open", "static"])
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
        degraded = [answer for answer in load.answers if answer["cause"] == "degraded"]
        assert {answer["action"] for answer in degraded} <= {ACTIONS[on_failure]}
        for answer in degraded:
            assert answer["guarantee"].startswith("none (")
            assert any(check["status"] == "failed" for check in answer["checks"])
        assert sum(load.counted().values()) == len(degraded)
        assert set(load.counted()) <= {"timeout", "scoring"}
        check_receipts(load)


async def test_a_delay_within_the_deadline_is_no_failure(triton_server: TritonServer) -> None:
    async with behind_proxy(triton_server, "closed") as (proxy, load):
        proxy.set("delay", delay=0.02)
        answers = [await load.once(deadline_ms=8000.0) for _ in range(5)]
        assert fine(answers)
        assert load.counted() == {}


async def test_a_stopped_triton_and_its_return(own_triton: TritonServer) -> None:
    assert own_triton.pid is not None
    async with shim(own_triton.http_url, "closed") as load:
        await load.until(fine)
        os.kill(own_triton.pid, signal.SIGSTOP)
        try:
            found = await load.until(all_degraded)
        finally:
            os.kill(own_triton.pid, signal.SIGCONT)
        assert {answer["action"] for answer in found} == {"block"}
        await load.until(fine)
        degraded = [answer for answer in load.answers if answer["cause"] == "degraded"]
        assert sum(load.counted().values()) == len(degraded)
        assert load.counted().keys() == {"timeout"}
        check_receipts(load)


async def test_a_killed_triton_is_started_again_and_served(own_triton: TritonServer) -> None:
    assert own_triton.pid is not None
    async with shim(own_triton.http_url, "open") as load:
        await load.until(fine)
        connection = connect(own_triton.http_url)
        monitor = HealthMonitor(connection, interval=0.1, timeout=1.0, heal=lambda: asyncio.to_thread(own_triton.heal))
        async with running(monitor.run()):
            os.kill(own_triton.pid, signal.SIGKILL)
            found = await load.until(all_degraded)
            assert {answer["action"] for answer in found} == {"allow"}
            for _ in range(600):
                if monitor.ready and fine(await load.burst()):
                    break
                await asyncio.sleep(0.1)
            assert fine(await load.burst())
        await connection.close()
        check_receipts(load)
