"""The same request through every surface; each way gives the answer's or the problem's members."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
from collections.abc import AsyncIterator
from typing import Any, Protocol

import grpc
from google.rpc import status_pb2

from sidecar_api.app import Edges, create_app
from sidecar_api.grpc import GrpcServer
from sidecar_api.grpc.errors import DETAILS
from sidecar_api.http.surface import ShimApp
from sidecar_api.pins import FixedAssets
from tcd.client import messages
from tcd.v1 import tcd_pb2 as pb
from tcd.v1.tcd_pb2_grpc import TcdServiceStub
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of, synthetic_assets

_SUBJECT = ("tenant", "user", "session")


def counted() -> Any:
    """Bytes that look random and are the same in every app."""
    number = 0

    def random(size: int) -> bytes:
        nonlocal number
        number += 1
        return hashlib.shake_256(str(number).encode()).digest(size)

    return random


def app_of(scorer: Any = None, *, assets: Any = None, **changes: Any) -> ShimApp:
    edges = Edges(now_us=lambda: 1_700_000_000_000_000, random=counted())
    return create_app(
        settings_of(**{"log_decisions": False, "edge_rate_cap": 1e9, "edge_rate_refill": 1e9, **changes}),
        scorer=scorer or ScriptedScorer(lambda row: 1.0 / (1.0 + row.trace.shape[0])),
        assets=assets or FixedAssets(synthetic_assets()),
        edges=edges,
    )


class Way(Protocol):
    app: ShimApp

    async def send(self, request: dict[str, Any]) -> dict[str, Any]: ...


class Http:
    def __init__(self, app: ShimApp) -> None:
        self.app = app
        self.client = Client(app)

    async def send(self, request: dict[str, Any]) -> dict[str, Any]:
        return dict((await self.client.post(request)).json())


class Batch(Http):
    async def send(self, request: dict[str, Any]) -> dict[str, Any]:
        reply = await self.client.post([request], "/v1/diagnose:batch")
        assert reply.status == 200
        ((_, value),) = reply.json()["results"][0].items()
        return dict(value)


class WebSocket:
    """A driver that speaks ASGI; one socket per subject."""

    def __init__(self, app: ShimApp) -> None:
        self.app = app
        self._sockets: dict[str, tuple[asyncio.Queue[Any], asyncio.Queue[Any], asyncio.Task[None]]] = {}

    async def open(self, query: str, headers: Any = ()) -> tuple[asyncio.Queue[Any], asyncio.Queue[Any]]:
        if query not in self._sockets:
            inbox: asyncio.Queue[Any] = asyncio.Queue()
            outbox: asyncio.Queue[Any] = asyncio.Queue()
            scope = {
                "type": "websocket",
                "path": "/v1/stream",
                "query_string": query.encode(),
                "headers": list(headers),
                "client": ("127.0.0.1", 5),
                "extensions": {"websocket.http.response": {}},
            }
            inbox.put_nowait({"type": "websocket.connect"})
            task = asyncio.ensure_future(self.app(scope, inbox.get, outbox.put))
            self._sockets[query] = (inbox, outbox, task)
        return self._sockets[query][:2]

    async def send(self, request: dict[str, Any]) -> dict[str, Any]:
        fixed = {n: request[n] for n in _SUBJECT if n in request}
        fresh = (query := "&".join(f"{k}={v}" for k, v in fixed.items())) not in self._sockets
        inbox, outbox = await self.open(query)
        if fresh:
            assert (await outbox.get())["type"] == "websocket.accept"
        step = {k: v for k, v in request.items() if k not in _SUBJECT}
        inbox.put_nowait({"type": "websocket.receive", "text": json.dumps(step)})
        return dict(json.loads((await outbox.get())["text"]))

    async def close(self) -> None:
        for inbox, _, task in self._sockets.values():
            inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})
            await task


class Grpc:
    #: Status code of the last error.
    code: Any = None

    def __init__(self, app: ShimApp, stub: Any) -> None:
        self.app = app
        self.stub = stub

    async def send(self, request: dict[str, Any]) -> dict[str, Any]:
        call = self.stub.Diagnose(messages.request(request))
        self.code = await call.code()
        if self.code is grpc.StatusCode.OK:
            return messages.decision(await call)
        status = status_pb2.Status.FromString(dict(await call.trailing_metadata())[DETAILS])
        assert status.code == self.code.value[0]
        assert status.message == await call.details()
        problem = pb.Problem()
        assert any(detail.Unpack(problem) for detail in status.details)
        return messages.problem(problem)


class GrpcStream(Grpc):
    def __init__(self, app: ShimApp, stub: Any) -> None:
        super().__init__(app, stub)
        self.call = stub.DiagnoseStream()

    async def send(self, request: dict[str, Any]) -> dict[str, Any]:
        await self.call.write(messages.request(request))
        reply = await self.call.read()
        if reply.WhichOneof("result") == "problem":
            return messages.problem(reply.problem)
        return messages.decision(reply.response)


@contextlib.asynccontextmanager
async def grpc_to(app: ShimApp) -> AsyncIterator[tuple[Any, Any]]:
    """A served app: its stub and channel."""
    server = GrpcServer(app.runtime, host="127.0.0.1", port=0)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub: Any = TcdServiceStub(channel)  # type: ignore[no-untyped-call]
            yield stub, channel
    finally:
        await server.stop(grace=0)


@contextlib.asynccontextmanager
async def all_ways(**changes: Any) -> AsyncIterator[dict[str, Way]]:
    """Every surface, each over an app of its own in the same state."""
    async with contextlib.AsyncExitStack() as stack:
        socket = WebSocket(app_of(**changes))
        stack.push_async_callback(socket.close)
        unary, stream = app_of(**changes), app_of(**changes)
        yield {
            "http": Http(app_of(**changes)),
            "batch": Batch(app_of(**changes)),
            "ws": socket,
            "grpc": Grpc(unary, (await stack.enter_async_context(grpc_to(unary)))[0]),
            "grpc_stream": GrpcStream(stream, (await stack.enter_async_context(grpc_to(stream)))[0]),
        }


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit; an integral real may have become an integer."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a):
        return math.isnan(b)
    return bool(a == b) and isinstance(a, bool) is isinstance(b, bool)
