"""The surfaces of `tcd serve`: HTTP, gRPC and the admin plane on one loop, until a signal, and the way down."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from sidecar_api.http.surface import ShimApp
    from tcd.config import Settings

#: Objects that are new before the collector looks at them.
_GC_NEW: Final = 20_000


class Stop:
    """SIGTERM and SIGINT: before serving they cancel the start, afterwards they drain."""

    def __init__(self) -> None:
        """Take the signals; inside the task that starts the server."""
        self.event = asyncio.Event()
        self.serving = False
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: made inside a coroutine
        self._task = task
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signal)

    def _signal(self) -> None:
        if not self.serving:
            self._task.cancel()
        self.event.set()


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
    import uvicorn

    from sidecar_api.decode import MAX_DIAGNOSE
    from sidecar_api.grpc import GrpcServer
    from sidecar_api.http.acceptor import Acceptor
    from sidecar_api.http.lean import LeanProtocol
    from tcd.cli.serve_beside import admin_plane

    grpc = GrpcServer(app.runtime, host=settings.grpc_host, port=settings.grpc_port)
    if settings.grpc_enable:
        await grpc.start()
    admin = admin_plane(settings, app)

    class Server(uvicorn.Server):
        """Leaves the signals to `Stop`: readiness has to go first. Accepts in bursts."""

        def protocol(self) -> asyncio.Protocol:
            return LeanProtocol(
                app.runtime, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=[])
            self.servers = [Acceptor(listener, self.protocol) for listener in sockets or []]  # type: ignore[misc]
            # what is here now stays: the collector need not look at it again and again
            gc.collect()
            gc.freeze()
            # a decision makes hundreds of objects, none in a cycle: looking after each 700 costs more than it finds
            gc.set_threshold(_GC_NEW, 20, 20)
            if admin is not None:
                await admin.start(print)
            announce(grpc.port)

    config = uvicorn.Config(
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
    server = Server(config)
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
