"""A Triton that is hurt: dead stubs, a hung or killed server; and that nothing is left after a stop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tcd.errors import LauncherError, ScoringError, ScoringTimeout
from tcd.rows import pack
from tcd.triton.batcher import MicroBatcher
from tcd.triton.client import InferenceClient, ScoringUnreachable, connect
from tcd.triton.health import HealthMonitor
from tcd.triton.launcher import LaunchOptions, TritonServer
from tcd.triton.probe import CANARY
from tcd.triton.process import group_members
from tests.integration.conftest import stub_pid

pytestmark = pytest.mark.triton


def pid_of(server: TritonServer) -> int:
    assert server.pid is not None
    return server.pid


def shared_memory(server_pid: int) -> set[str]:
    maps = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in group_members(server_pid))
    return {line.split()[-1] for line in maps.splitlines() if "/dev/shm/" in line}  # noqa: S108 - it is only read


def leftovers() -> set[str]:
    return {str(p) for p in Path("/dev/shm").iterdir()}  # noqa: S108 - it is only read


async def until(monitor: HealthMonitor, *, ready: bool, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while monitor.ready != ready:
        assert time.monotonic() < deadline, monitor.state
        await asyncio.sleep(0.05)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that takes no server for dead because this machine is busy."""
    for name in ("_PROBE_TIMEOUT", "_PATIENT_TIMEOUT"):
        monkeypatch.setattr(f"tcd.triton.launcher.{name}", 60.0)


@pytest.fixture
async def client(own_triton: TritonServer) -> AsyncIterator[InferenceClient]:
    made = connect(own_triton.http_url)
    yield made
    await made.close()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("model", ["tcd_detector", "tcd_routing"])
async def test_a_killed_stub_is_noticed_by_the_canary_and_healed_by_a_reload(
    own_triton: TritonServer, client: InferenceClient, model: str
) -> None:
    monitor = HealthMonitor(
        client, interval=0.1, timeout=60.0, heal_after=2, heal=lambda: asyncio.to_thread(own_triton.heal)
    )
    server_pid = own_triton.pid
    async with monitor.running():
        await until(monitor, ready=True, seconds=60)
        os.kill(stub_pid(own_triton, model), signal.SIGKILL)
        await until(monitor, ready=False, seconds=240)
        assert await client.ready(timeout=60), "Triton itself stays ready: that is why there is a canary"
        await until(monitor, ready=True, seconds=240)
    assert own_triton.pid == server_pid, "a reload was enough"
    assert (own_triton.reloads, own_triton.restarts) == (1, 0)


async def test_a_hung_server_is_a_timeout_by_the_deadline_and_healed_by_a_restart(
    own_triton: TritonServer, client: InferenceClient
) -> None:
    batcher = MicroBatcher(client)
    await batcher.score(CANARY, timeout=60)
    os.kill(pid_of(own_triton), signal.SIGSTOP)
    loop = asyncio.get_running_loop()
    started = loop.time()
    outcomes = await asyncio.gather(*(batcher.score(CANARY, timeout=0.5) for _ in range(20)), return_exceptions=True)
    assert all(isinstance(o, ScoringTimeout) for o in outcomes)
    # it would never answer
    assert 0.45 <= loop.time() - started < 60
    before = own_triton.http_url
    assert await asyncio.to_thread(own_triton.heal) == "restarted"
    assert own_triton.http_url == before, "clients keep their address"
    await batcher.score(CANARY, timeout=60)


async def test_a_killed_server_is_noticed_and_restarted(own_triton: TritonServer, client: InferenceClient) -> None:
    await client.infer(pack([CANARY]), timeout=60)
    old = pid_of(own_triton)
    regions = shared_memory(old)
    os.kill(old, signal.SIGKILL)
    assert await asyncio.to_thread(own_triton.wait, 60)
    assert own_triton.poll() == -signal.SIGKILL
    assert group_members(old) == []
    assert not regions & leftovers()
    with pytest.raises(ScoringUnreachable):
        await client.infer(pack([CANARY]), timeout=60)
    assert await asyncio.to_thread(own_triton.heal) == "restarted"
    await client.infer(pack([CANARY]), timeout=60)


@pytest.mark.usefixtures("patient")
def test_a_healthy_server_is_left_alone(triton_server: TritonServer) -> None:
    before = triton_server.pid
    assert triton_server.heal() == "healthy"
    assert triton_server.pid == before


@pytest.mark.parametrize("hung", [False, True])
def test_a_stop_leaves_no_process_no_shared_memory_and_no_directory(tmp_path: Path, *, hung: bool) -> None:
    options = LaunchOptions(
        http_port=0, grpc_port=0, metrics_port=0, models=("tcd_multivariate",), stop_timeout=2.0 if hung else 20.0
    )
    server = TritonServer(options).start()
    pid = pid_of(server)
    regions = shared_memory(pid)
    directory = server.log_path.parent
    assert regions
    assert len(group_members(pid)) >= 2
    if hung:
        os.kill(pid, signal.SIGSTOP)
        os.kill(stub_pid(server, "tcd_multivariate"), signal.SIGSTOP)
    server.stop()
    assert group_members(pid) == []
    assert not regions & leftovers()
    assert not directory.exists()


async def test_an_asynchronous_program_starts_and_stops_it() -> None:
    options = LaunchOptions(http_port=0, grpc_port=0, metrics_port=0, models=("tcd_multivariate",))
    async with TritonServer(options) as server:
        pid = pid_of(server)
        assert server.poll() is None
    assert group_members(pid) == []


def test_a_model_without_assets_is_a_clear_error(tmp_path: Path) -> None:
    options = LaunchOptions(
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        models=("tcd_detector",),
        assets=tmp_path / "none",
        log_path=tmp_path / "triton.log",
    )
    with pytest.raises(LauncherError, match=r"model tcd_detector: .*manifest.*; remedy: see .*triton\.log"):
        TritonServer(options).start()


async def test_restricted_interfaces_can_be_left_open(tmp_path: Path) -> None:
    options = LaunchOptions(
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        models=("tcd_multivariate",),
        restrict_admin=False,
        log_path=tmp_path / "log",
    )
    async with TritonServer(options) as server:
        assert server.admin_headers == {}
        client = connect(server.http_url)
        with pytest.raises(ScoringError):
            await client.infer(pack([CANARY]), timeout=60)  # tcd_diagnose is not loaded
        assert await client.ready(timeout=60)
        await client.close()
