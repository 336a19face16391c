"""The surfaces of `tcd serve`: HTTP, gRPC and the admin plane on one loop, until a signal, and the way down."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Awaitable, Callable, Generator
from typing import Final

import uvicorn

from sidecar_api.decode import MAX_DIAGNOSE
from sidecar_api.grpc import GrpcServer
from sidecar_api.http.acceptor import Acceptor
from sidecar_api.http.lean import LeanProtocol
from sidecar_api.http.surface import ShimApp
from tcd.cli.serve_beside import admin_plane
from tcd.cli.serve_stop import Stop
from tcd.config import Settings

#: Objects that are new before the collector looks at them.
_GC_NEW: Final = 20_000


class Server(uvicorn.Server):
    """Leaves the signals to `Stop`: readiness has to go first. Accepts in bursts."""

    def __init__(self, config: uvicorn.Config, app: ShimApp, started: Callable[[], Awaitable[None]]) -> None:
        """Serve `app`; `started` is awaited once it answers."""
        super().__init__(config)
        self._app = app
        self._started = started

    def protocol(self) -> asyncio.Protocol:
        """Of a new connection."""
        return LeanProtocol(
            self._app.runtime, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """None of them."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        await super().startup(sockets=[])
        self.servers = [Acceptor(listener, self.protocol) for listener in sockets or []]  # type: ignore[misc]
        # what is here now stays: the collector need not look at it again and again
        gc.collect()
        gc.freeze()
        # a decision makes hundreds of objects, none in a cycle: looking after each 700 costs more than it finds
        gc.set_threshold(_GC_NEW, 20, 20)
        await self._started()


def _config(settings: Settings, app: ShimApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=MAX_DIAGNOSE + 4096,
        ws_per_message_deflate=False,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )


async def run(
    settings: Settings, sock: socket.socket, app: ShimApp, stop: Stop, announce: Callable[[int], None]
) -> None:
    """Run uvicorn, gRPC and the admin plane until a signal, then drain.

    Args:
        settings: in force.
        sock: listens already.
        app: the shim.
        stop: the signals.
        announce: told the port of gRPC once everything answers.
    """
    grpc = GrpcServer(app.runtime, host=settings.grpc_host, port=settings.grpc_port)
    if settings.grpc_enable:
        await grpc.start()
    admin = admin_plane(settings, app)

    async def started() -> None:
        if admin is not None:
            await admin.start(print)
        announce(grpc.port)

    server = Server(_config(settings, app), app, started)
    running = asyncio.ensure_future(server.serve(sockets=[sock]))
    stop.serving = True
    try:
        waiting = asyncio.ensure_future(stop.event.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not running.done():
            print("stopping: requests in flight finish, new ones get 503", flush=True)
            await app.runtime.service.drain(timeout=settings.drain_timeout_s)
    finally:
        if admin is not None:
            await admin.stop()
        await grpc.stop(grace=settings.drain_timeout_s)
        server.should_exit = True
        await running
    print("stopped", flush=True)
