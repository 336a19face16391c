"""The same generation through every surface over a real Triton, and its rows directly through the ensemble."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest
from websockets.asyncio.client import connect as ws_connect

from tcd.calibration.store import AssetDirectory, default_asset_dir
from tcd.rows import Scorer, ScoreResult, ScoreRow, pack
from tcd.triton.batcher import MicroBatcher
from tcd.triton.client import connect
from tcd.triton.launcher import TritonServer
from tcd.v1 import tcd_pb2 as pb
from tcd.v1.tcd_pb2_grpc import TcdServiceStub
from tests.e2e.client import Connection
from tests.e2e.stack import Stack, serving
from tests.unit.surfaces.ways import Batch, Grpc, GrpcStream, Http, Way, WebSocket, app_of, grpc_to, same

pytestmark = pytest.mark.triton
STEPS = 24


def generation() -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    return [
        {
            "session": "g",
            "step_id": i,
            "trace_vector": [float(-rng.exponential())],
            "entropy": float(rng.exponential()),
            "spectrum": [float(x) for x in rng.exponential(size=16)],
            "features": [float(x) for x in rng.normal(size=16)],
            "context": {"temperature": 0.7, "max_tokens": 64},
            "request_id": f"r{i}",
            "deadline_ms": 60_000.0,
        }
        for i in range(STEPS)
    ]


@dataclass
class Recorder:
    """Passes rows on and keeps them with their results."""

    inner: Scorer
    seen: list[tuple[ScoreRow, ScoreResult]] = field(default_factory=list)

    async def score(self, row: ScoreRow, *, timeout: float) -> ScoreResult:
        result = await self.inner.score(row, timeout=timeout)
        self.seen.append((row, result))
        return result


async def test_every_surface_and_the_ensemble_itself_say_the_same(triton_server: TritonServer) -> None:
    client = connect(triton_server.http_url)
    recorder = Recorder(MicroBatcher(client))
    directory = AssetDirectory(default_asset_dir())

    def app(scorer: Scorer) -> Any:
        return app_of(scorer, assets=directory)

    rest = MicroBatcher(client)
    unary, streamed, socket = app(rest), app(rest), WebSocket(app(rest))
    async with grpc_to(unary) as (stub, _), grpc_to(streamed) as (other, _):
        ways: dict[str, Way] = {
            "http": Http(app(recorder)),
            "batch": Batch(app(rest)),
            "ws": socket,
            "grpc": Grpc(unary, stub),
            "grpc_stream": GrpcStream(streamed, other),
        }
        scores = []
        for step in generation():
            answers = {name: await way.send(step) for name, way in ways.items()}
            assert answers["http"]["cause"] != "degraded", answers["http"]["checks"]
            for name, answer in answers.items():
                assert same(answer, answers["http"]), name
            scores.append(answers["http"]["score"])
        await socket.close()
    assert len(set(scores)) > 1
    direct = connect(f"grpc://{triton_server.grpc_url}")
    for (row, _), score in zip(recorder.seen, scores, strict=True):
        outputs = await direct.infer(pack([row]), timeout=60.0)
        assert float(outputs["SCORE"].ravel()[0]) == score
    await direct.close()
    await client.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, triton_server: TritonServer) -> Any:
    folder = tmp_path_factory.mktemp("surfaces")
    (folder / "tcd.toml").write_text('mode = "monitor"\n')
    env = {"TCD_CONFIG_PATH": str(folder / "tcd.toml"), "TCD_CONFIG_WATCH": "false"}
    with serving(folder, "--triton-url", triton_server.http_url, env=env) as running:
        yield running


def grpc_address(stack: Stack) -> str:
    line = next(line for line in stack.log.read_text().splitlines() if line.startswith("grpc "))
    return line.split()[1]


async def test_a_served_shim_has_all_its_ways(stack: Stack) -> None:
    async with grpc.aio.insecure_channel(grpc_address(stack)) as channel:
        stub: Any = TcdServiceStub(channel)  # type: ignore[no-untyped-call]
        answer = await stub.Diagnose(pb.DiagnoseRequest(session="a", trace_vector=[-1.0]))
        assert answer.action == "allow"
        health = await stub.Health(pb.HealthRequest())
        for _ in range(600):
            if health.ready:
                break
            await asyncio.sleep(0.1)
            health = await stub.Health(pb.HealthRequest())
        assert health.ready
    async with Connection(stack.host, stack.port) as http:
        _, _, reply = await http.request("POST", "/v1/diagnose:batch", [{"session": "b"}, {"session": "c"}])
    assert [r["response"]["action"] for r in reply["results"]] == ["allow", "allow"]
    url = f"ws://{stack.host}:{stack.port}/v1/stream"
    async with ws_connect(f"{url}?session=d") as socket:
        for step in range(3):
            await socket.send(json.dumps({"step_id": step, "trace_vector": [-1.0]}))
            assert json.loads(await socket.recv())["step"] == step
    with pytest.raises(Exception, match="422"):
        await ws_connect(f"{url}?nope=d")


async def test_sighup_reloads_and_only_tightens(stack: Stack) -> None:
    async def config_hash() -> str:
        async with Connection(stack.host, stack.port) as http:
            return str((await http.request("GET", "/version"))[2]["config_hash"])

    async def hangup(text: str, said: str) -> None:
        (stack.log.parent / "tcd.toml").write_text(text)
        stack.process.send_signal(signal.SIGHUP)
        for _ in range(1200):
            if said in stack.log.read_text():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(stack.log.read_text())

    first = await config_hash()
    await hangup('mode = "enforce"\n', "config reloaded")
    second = await config_hash()
    assert second != first
    await hangup('mode = "monitor"\n', "loosens TCD_MODE")
    await hangup('mode = "enforce"\nunit = "request"\n', "needs a restart: TCD_UNIT")
    await hangup('mode = "enf', "reload by SIGHUP")
    assert await config_hash() == second
    await hangup('mode = "enforce"\nalpha = 0.04\n', "alpha: 0.05 -> 0.04")
    third = await config_hash()
    assert third != second
    await hangup('mode = "enforce"\nalpha = 0.05\n', "loosens TCD_ALPHA")
    assert await config_hash() == third
