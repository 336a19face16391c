"""The canary: hysteresis both ways, healing with pauses, readiness as a state."""

from __future__ import annotations

import asyncio
from typing import Any

from tcd.errors import LauncherError, ScoringError, ScoringTimeout
from tcd.triton.health import HealthMonitor, HealthState


def failing(client: Any, *, on: bool = True) -> None:
    client.fail = (lambda _: ScoringTimeout("lost")) if on else (lambda _: None)


async def checks(monitor: HealthMonitor, n: int) -> list[bool]:
    ready = []
    for _ in range(n):
        await monitor.check()
        ready.append(monitor.ready)
    return ready


async def test_nothing_is_ready_before_the_first_canary_and_one_is_enough_at_the_start(client: Any) -> None:
    monitor = HealthMonitor(client)
    assert not monitor.ready
    assert await checks(monitor, 1) == [True]
    assert monitor.state.error == ""
    assert client.sizes == [1]


async def test_one_lost_canary_does_not_end_readiness_two_do_and_two_bring_it_back(client: Any) -> None:
    changes: list[HealthState] = []
    monitor = HealthMonitor(client, fall=2, rise=2, on_change=changes.append)
    await checks(monitor, 1)
    failing(client)
    assert await checks(monitor, 1) == [True]
    failing(client, on=False)
    assert await checks(monitor, 1) == [True]
    failing(client)
    assert await checks(monitor, 3) == [True, False, False]
    assert monitor.state.error == "lost"
    failing(client, on=False)
    assert await checks(monitor, 2) == [False, True]
    assert [c.ready for c in changes] == [True, False, True]


async def test_a_server_that_flaps_stays_out(client: Any) -> None:
    monitor = HealthMonitor(client, fall=2, rise=2)
    failing(client)
    await checks(monitor, 2)
    failing(client, on=False)
    await checks(monitor, 1)  # the first answer ever is enough
    failing(client)
    await checks(monitor, 2)
    seen = []
    for _ in range(6):
        failing(client, on=False)
        seen += await checks(monitor, 1)
        failing(client)
        seen += await checks(monitor, 1)
    assert not any(seen)


async def test_healing_starts_after_enough_losses_and_pauses_while_it_does_not_help(client: Any) -> None:
    calls: list[float] = []
    loop = asyncio.get_running_loop()

    async def heal() -> str:
        calls.append(loop.time())
        if len(calls) == 1:
            msg = "not yet"
            raise LauncherError(msg)
        if len(calls) == 3:
            failing(client, on=False)
        return "restarted"

    failing(client)
    back = asyncio.Event()
    monitor = HealthMonitor(client, interval=0.02, heal=heal, heal_after=3, on_change=lambda _: back.set())
    async with monitor.running():
        await asyncio.wait_for(back.wait(), 60)
    assert monitor.ready
    assert len(calls) == 3
    assert calls[1] - calls[0] >= 0.02
    assert calls[2] - calls[1] >= 0.04, "the pause doubles"
    assert monitor.state.heals == 3
    assert monitor.state.failures == 0


async def test_run_ends_with_its_context(client: Any) -> None:
    monitor = HealthMonitor(client, interval=0.01)
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with monitor.running():
        while len(client.calls) < 4:
            assert loop.time() - began < 60
            await asyncio.sleep(0.005)
    sent = len(client.calls)
    assert sent <= (loop.time() - began) / 0.01 + 2, "one check per interval"
    await asyncio.sleep(0.03)
    assert len(client.calls) == sent


async def test_any_scoring_error_loses_a_canary(client: Any) -> None:
    client.fail = lambda _: ScoringError("nan")
    monitor = HealthMonitor(client)
    assert not await monitor.check()
    assert monitor.state.failures == 1
