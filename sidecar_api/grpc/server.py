"""The gRPC server: the service, grpc.health.v1 and reflection on one loopback port."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sidecar_api.grpc.service import TcdServicer
from sidecar_api.http.runtime import Runtime
from sidecar_api.snapshot import MAX_BYTES
from tcd.background import end
from tcd.errors import ConfigError
from tcd.v1 import tcd_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["TcdService"]
_OVERHEAD: Final = 4096
_HEALTH_SECONDS: Final = 0.5
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_BYTES + _OVERHEAD),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 4096),
    ("grpc.max_metadata_size", 16384),
)


def _handlers(servicer: TcdServicer) -> Any:
    """Raw bytes in: a message that cannot be parsed must be INVALID_ARGUMENT, which gRPC itself answers INTERNAL."""
    methods = {}
    for method in SERVICE.methods:
        made = grpc.stream_stream_rpc_method_handler if method.client_streaming else grpc.unary_unary_rpc_method_handler
        methods[method.name] = made(
            getattr(servicer, method.name),
            request_deserializer=None,
            response_serializer=lambda message: message.SerializeToString(),
        )
    return grpc.method_handlers_generic_handler(SERVICE.full_name, methods)


class GrpcServer:
    """Serves one runtime; `port` is known after `start`."""

    def __init__(self, runtime: Runtime, *, host: str, port: int) -> None:
        """A server that is not started; port 0 takes a free one."""
        self._runtime = runtime
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._server: Any = None
        self._health = health.aio.HealthServicer()
        self._watcher: asyncio.Task[None] | None = None
        self.port = port

    async def start(self) -> None:
        """Serve.

        Raises:
            ConfigError: the port is taken; says the remedy.
        """
        server = grpc.aio.server(options=_OPTIONS)
        server.add_generic_rpc_handlers((_handlers(TcdServicer(self._runtime)),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (SERVICE.full_name, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        try:
            self.port = server.add_insecure_port(self._address)
        except RuntimeError:
            self.port = 0
        if not self.port:
            msg = f"gRPC cannot listen on {self._address}; remedy: stop what listens there, or choose another port "
            msg += "with --grpc-port (0 picks a free one)"
            raise ConfigError(msg)
        await server.start()
        self._server = server
        await self._report()
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _report(self) -> None:
        serving = not any(self._runtime.readiness().values())
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", SERVICE.full_name):
            await self._health.set(name, status)

    async def _watch(self) -> None:
        """Keep grpc.health.v1 at what readiness says."""
        while True:
            await asyncio.sleep(_HEALTH_SECONDS)
            await self._report()

    async def stop(self, *, grace: float) -> None:
        """Refuse new calls, let those in flight end."""
        if self._watcher is not None:
            await end(self._watcher)
            self._watcher = None
        if self._server is not None:
            await self._health.enter_graceful_shutdown()
            await self._server.stop(grace)
            self._server = None
