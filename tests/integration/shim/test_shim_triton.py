"""The shim before a real Triton: same bits as the library, readiness, failure policies when Triton dies."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx2
import numpy as np
import pytest

from sidecar_api.app import Edges, create_app
from sidecar_api.http.surface import ShimApp
from tcd.background import running
from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.config import Settings
from tcd.receipts import KeySet, VerifyPolicy, verify_single
from tcd.rows import Scorer
from tcd.scoring import LibraryScorer
from tcd.triton.batcher import MicroBatcher
from tcd.triton.client import connect
from tcd.triton.health import HealthMonitor
from tcd.triton.launcher import LaunchOptions, TritonServer
from tests.unit.shim.conftest import PATIENT

pytestmark = pytest.mark.triton
ROOMY: dict[str, Any] = {"http_rate_cap": 1e9, "http_rate_refill": 1e9, "session_waiters": 64, **PATIENT}


def free_ports(**changes: Any) -> LaunchOptions:
    return LaunchOptions(http_port=0, grpc_port=0, metrics_port=0, **changes)


@pytest.fixture(scope="module")
def triton() -> Iterator[TritonServer]:
    with TritonServer(free_ports()) as server:
        yield server


async def becomes(state: Callable[[], bool], wanted: Literal[True, False]) -> bool:
    """Whether a state is reached within a minute."""
    for _ in range(3000):
        if state() is wanted:
            return True
        await asyncio.sleep(0.02)
    return False


def make_app(scorer: Scorer, *, edges: Edges | None = None, **changes: Any) -> ShimApp:
    settings = Settings(**{**ROOMY, **changes})
    return create_app(settings, scorer=scorer, assets=AssetDirectory(default_asset_dir()), edges=edges)


def client_of(app: ShimApp) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://shim")


@pytest.fixture
async def batcher(triton: TritonServer) -> AsyncIterator[MicroBatcher]:
    client = connect(triton.http_url)
    yield MicroBatcher(client)
    await client.close()


def trace(n: int, session: str) -> list[dict[str, Any]]:
    rng = np.random.default_rng(len(session) + sum(map(ord, session)))
    return [
        {
            "trace_vector": [float(-rng.exponential())],
            "entropy": float(rng.exponential()),
            "spectrum": [float(x) for x in rng.exponential(size=16)],
            "features": [float(x) for x in rng.normal(size=16)],
            "session": session,
            "step_id": i,
            "context": {"temperature": 0.7},
        }
        for i in range(n)
    ]


async def test_an_answer_has_the_same_bits_from_triton_and_from_the_library(batcher: MicroBatcher) -> None:
    library = make_app(LibraryScorer(AssetDirectory(default_asset_dir()).current()))
    served = make_app(batcher)
    names = (
        "verdict",
        "score",
        "threshold",
        "p_value",
        "trigger",
        "route",
        "action",
        "e_value",
        "guarantee",
        "calibration",
    )

    async def session(name: str) -> None:
        async with client_of(library) as one, client_of(served) as other:
            for request in trace(40, name):
                a = (await one.post("/diagnose", json=request)).json()
                b = (await other.post("/diagnose", json=request)).json()
                assert {n: a[n] for n in names} == {n: b[n] for n in names}
                for part in set(a["components"]) - {"av"}:
                    assert a["components"][part] == b["components"][part]

    await asyncio.gather(*(session(f"s{i}") for i in range(8)))


async def test_receipts_of_answers_from_triton_verify(batcher: MicroBatcher) -> None:
    app = make_app(batcher)
    judge = app.runtime.service.judge
    assert judge.receipts is not None
    policy = VerifyPolicy(KeySet([judge.receipts.issuer.pinned()]))
    async with client_of(app) as client:
        for request in trace(20, "r"):
            answer = (await client.post("/v1/diagnose", json=request)).json()
            report = verify_single(
                answer["receipt_body"],
                head=answer["receipt"],
                sig=answer["receipt_sig"],
                policy=policy,
                comp_obj=answer["components"],
                e_obj=answer["components"]["av"],
            )
            assert report.ok, report.checks
            assert answer["guarantee"].startswith("none (")


@pytest.mark.parametrize(("policy", "action"), [("closed", "block"), ("open", "allow"), ("static", "degrade")])
async def test_a_killed_triton_degrades_by_policy_and_nothing_hangs(policy: str, action: str) -> None:
    with TritonServer(free_ports()) as server:
        connection = connect(server.http_url)
        monitor = HealthMonitor(connection, interval=0.05, timeout=5.0)
        app = make_app(
            MicroBatcher(connection),
            on_failure=policy,
            deadline_ms=1500.0,
            edges=Edges(checks={"triton": lambda: "" if monitor.ready else monitor.state.error}),
        )
        loop = asyncio.get_running_loop()
        async with client_of(app) as client, running(monitor.run()):
            assert await becomes(lambda: monitor.ready, True)
            assert (await client.get("/readyz")).json()["ready"] is True

            answered = 0

            async def load(name: str) -> list[tuple[str, str, float]]:
                nonlocal answered
                out = []
                for request in trace(12, name):
                    began = loop.time()
                    reply = await client.post("/diagnose", json=request)
                    assert reply.status_code == 200, reply.text
                    answer = reply.json()
                    assert answer["receipt"] is not None
                    answered += 1
                    out.append((answer["cause"], answer["action"], loop.time() - began))
                return out

            loads = [asyncio.ensure_future(load(f"k{i}")) for i in range(8)]
            # in the middle of it, however fast or slow the machine is
            assert await becomes(lambda: answered > 8, True)
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            seen = [step for steps in await asyncio.gather(*loads) for step in steps]
            degraded = [step for step in seen if step[0] == "degraded"]
            assert degraded
            assert {step[1] for step in degraded} == {action}
            assert max(step[2] for step in seen) < 60.0, "nothing hangs"
            assert await becomes(lambda: monitor.ready, False)
            ready = await client.get("/readyz?verbose")
            assert ready.status_code == 503
            assert ready.json()["checks"]["triton"] != "ok"
        await connection.close()


async def test_new_assets_under_way_close_the_hypothesis(tmp_path: Path) -> None:
    """The directory changes below both: the session goes on under new pins, and says so in its chain."""
    directory = tmp_path / "assets"
    shutil.copytree(default_asset_dir(), directory)
    with TritonServer(free_ports(assets=directory)) as server:
        connection = connect(server.http_url)
        settings = Settings(**ROOMY)
        app = create_app(settings, scorer=MicroBatcher(connection), assets=AssetDirectory(directory))
        async with client_of(app) as client:
            requests = trace(12, "pins")
            before = [(await client.post("/diagnose", json=r)).json() for r in requests[:6]]
            manifest = json.loads((directory / "manifest.json").read_text())
            binding = next(b for b in [*manifest["keys"], manifest["default"]] if b and b["multivariate"])
            assert binding
            for b in [*manifest["keys"], manifest["default"]]:
                if b:
                    b["multivariate"] = None
            fresh = directory / "manifest.new"
            fresh.write_text(json.dumps(manifest))
            fresh.replace(directory / "manifest.json")
            after = [(await client.post("/diagnose", json=r)).json() for r in requests[6:]]
        assert before[-1]["calibration"]["manifest"] != after[-1]["calibration"]["manifest"]
        assert after[-1]["calibration"]["multivariate"] is None
        assert "degraded" not in {a["cause"] for a in (*before, *after)}
        chains = [json.loads(a["receipt_body"])["chain"]["id"] for a in (before[-1], after[-1])]
        assert chains[0] != chains[1]
        await connection.close()
