"""The client against the real shim in process, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest
import stamina

from sidecar_api.grpc import GrpcServer
from sidecar_api.schemas import RiskResponse, VerifyResponse
from sidecar_api.schemas import Route as ServerRoute
from tcd.client import (
    ApiError,
    AsyncClient,
    Client,
    DeadlineExceeded,
    Decision,
    Report,
    Retries,
    Route,
    TransportFailed,
)
from tests.unit.shim.conftest import ScriptedScorer
from tests.unit.surfaces.ways import app_of

FAST = Retries(attempts=4, wait_initial=0.001, wait_max=0.002, wait_jitter=0.001)
STEP: dict[str, Any] = {"session": "s", "trace_vector": [-1.0], "entropy": 1.0}


@pytest.fixture(autouse=True)
def quiet() -> Any:
    stamina.instrumentation.set_on_retry_hooks([])
    yield
    stamina.instrumentation.set_on_retry_hooks(None)


@pytest.mark.parametrize(
    ("mine", "servers"), [(Decision, RiskResponse), (Route, ServerRoute), (Report, VerifyResponse)]
)
def test_the_models_have_the_servers_members(mine: type, servers: type) -> None:
    assert {f.name for f in msgspec.structs.fields(mine)} == {f.encode_name for f in msgspec.structs.fields(servers)}


@pytest.fixture(params=["http", "grpc"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AsyncClient]:
    app = app_of(ScriptedScorer(0.5))
    if request.param == "http":
        async with AsyncClient("http://shim", transport=httpx2.ASGITransport(app=app), deadline=30) as made:
            yield made
        return
    server = GrpcServer(app.runtime, host="127.0.0.1", port=0)
    await server.start()
    async with AsyncClient(f"grpc://127.0.0.1:{server.port}", deadline=30) as made:
        yield made
    await server.stop(grace=0)


async def test_a_generation(client: AsyncClient) -> None:
    for step in range(3):
        decision = await client.diagnose(step_id=step, context={"temperature": 0.5}, **STEP)
        assert (decision.step, decision.action, decision.stop, decision.degraded) == (step, "allow", False, False)
        assert decision.route.temperature == 0.5
    report = await client.verify(decision)
    assert (report.ok, report.code) == (True, "ok")
    assert (await client.version())["config_hash"] == decision.config_hash


async def test_a_refusal_is_an_error_and_not_tried_again(client: AsyncClient) -> None:
    with pytest.raises(ApiError) as caught:
        await client.diagnose(**{**STEP, "entropy": -1.0})
    error = caught.value
    assert (error.code, error.status, error.pointer) == ("validation_failed", 422, "/entropy")
    assert error.request_id in str(error)


async def test_the_same_key_is_the_same_decision(client: AsyncClient) -> None:
    first = await client.diagnose(key="k", **STEP)
    assert await client.diagnose(key="k", **STEP) == first
    assert (await client.diagnose(**STEP)).request_id != first.request_id


async def test_a_batch() -> None:
    app = app_of(ScriptedScorer(0.5))
    async with AsyncClient("http://shim", transport=httpx2.ASGITransport(app=app), deadline=30) as client:
        results = await client.diagnose_batch([{"session": "a"}, {"entropy": -1.0}])
    assert isinstance(results[0], Decision)
    assert isinstance(results[1], ApiError)


def test_the_blocking_client_over_both_transports() -> None:
    async def serve(started: asyncio.Future[int], stop: asyncio.Event) -> None:
        server = GrpcServer(app_of(ScriptedScorer(0.5)).runtime, host="127.0.0.1", port=0)
        await server.start()
        started.set_result(server.port)
        await stop.wait()
        await server.stop(grace=0)

    def use(port: int) -> None:
        with Client(f"grpc://127.0.0.1:{port}", deadline=30) as client:
            decision = client.diagnose(step_id=0, **STEP)
            assert client.verify(decision).ok
            client.diagnose(step_id=2, **STEP)
            with pytest.raises(ApiError, match="conflict"):
                client.diagnose(step_id=1, **STEP)

    async def main() -> None:
        started: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        task = asyncio.ensure_future(serve(started, stop))
        await asyncio.to_thread(use, await started)
        stop.set()
        await task

    asyncio.run(main())


class Script:
    """A server that plays its part; remembers what it was sent."""

    def __init__(self, *parts: Any) -> None:
        self.parts = list(parts)
        self.seen: list[Any] = []

    def __call__(self, request: Any) -> Any:
        self.seen.append(request)
        part = self.parts.pop(0)
        if isinstance(part, Exception):
            raise part
        return httpx2.Response(part["status"], content=json.dumps(part).encode())

    def client(self, **changes: Any) -> Client:
        return Client(
            "http://shim", transport=httpx2.MockTransport(self), **{"retries": FAST, "deadline": 30, **changes}
        )


def problem(code: str, status: int, **members: Any) -> dict[str, Any]:
    return {"code": code, "status": status, "detail": "d", "request_id": "r", **members}


def answer() -> dict[str, Any]:
    async def ask() -> Any:
        async with AsyncClient("http://s", transport=httpx2.ASGITransport(app=app_of()), deadline=30) as client:
            return await client.diagnose(**STEP)

    return {"status": 200, **msgspec.to_builtins(asyncio.run(ask()))}


def test_what_may_pass_is_tried_again_with_the_same_key() -> None:
    script = Script(
        httpx2.ConnectError("no"),
        problem("quota-exceeded", 429, retry_after=0.001),
        problem("conflict", 409, retry_after=0.001),
        answer(),
    )
    assert script.client().diagnose(**STEP).action == "allow"
    keys = {r.headers["idempotency-key"] for r in script.seen}
    assert (len(script.seen), len(keys)) == (4, 1)
    deadlines = [float(r.headers["x-deadline-ms"]) for r in script.seen]
    assert deadlines == sorted(deadlines, reverse=True)


@pytest.mark.parametrize(
    "part",
    [
        problem("conflict", 409),
        problem("validation_failed", 422),
        problem("deadline_exceeded", 504),
        problem("unavailable", 503, retry_after=60.0),
    ],
)
def test_what_cannot_pass_is_not(part: dict[str, Any]) -> None:
    script = Script(part)
    with pytest.raises(ApiError) as caught:
        script.client().diagnose(**STEP)
    assert caught.value.code == part["code"]
    assert len(script.seen) == 1


def test_attempts_end() -> None:
    script = Script(*[httpx2.ReadError("broken")] * 9)
    with pytest.raises(TransportFailed):
        script.client().diagnose(**STEP)
    assert len(script.seen) == FAST.attempts


def test_no_answer_in_time() -> None:
    with pytest.raises(DeadlineExceeded):
        Script(httpx2.ReadTimeout("slow")).client().diagnose(**STEP)


@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"status": 1}'])
def test_an_answer_that_is_not_of_tcd(body: bytes) -> None:
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200 if body != b"<html>" else 502, content=body))
    client = Client("http://shim", transport=transport, retries=Retries(attempts=1), deadline=30)
    with pytest.raises(TransportFailed):
        client.diagnose(**STEP)


def test_the_token_is_sent_and_never_shown() -> None:
    script = Script(problem("forbidden", 403))
    with pytest.raises(ApiError) as caught:
        script.client(token="secret-token").diagnose(**STEP)
    assert script.seen[0].headers["authorization"] == "Bearer secret-token"
    assert "secret-token" not in repr(caught.value)
