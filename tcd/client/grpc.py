"""gRPC: the same calls over `tcd.v1.TcdService`, blocking and asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import grpc
from google.rpc import status_pb2

from tcd.client import messages
from tcd.client.errors import ApiError, DeadlineExceeded, TransportFailed
from tcd.v1 import tcd_pb2 as pb
from tcd.v1.tcd_pb2_grpc import TcdServiceStub

_DETAILS: Final = "grpc-status-details-bin"
#: The server answers a little before its deadline; the transport waits a little longer.
_SLACK: Final = 0.05


def _failed(code: Any, details: str | None, trailing: Any) -> Exception:
    found = dict(trailing or ()).get(_DETAILS)
    if found is not None:
        problem = pb.Problem()
        for detail in status_pb2.Status.FromString(found).details:
            if detail.Unpack(problem):
                return ApiError(messages.problem(problem))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("no answer by the deadline")
    return TransportFailed(f"{code.name}: {details}")


def _prepare(path: str, body: Any, key: str | None, left: float) -> tuple[str, Any, Any]:
    """Method, message and translation of a call of the HTTP surface."""
    if path == "/v1/diagnose":
        members = {**body, "deadline_ms": left * 1000.0}
        if key is not None and "idempotency_key" not in members:
            members["idempotency_key"] = key
        return "Diagnose", messages.request(members), messages.decision
    if path == "/v1/verify":
        return "Verify", pb.VerifyRequest(**body), messages.report
    if path == "/version":
        return "Version", pb.VersionRequest(), messages.report
    msg = f"{path} is not there over gRPC"
    raise ValueError(msg)


class GrpcTransport:
    """One channel, blocking."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        """Call `host:port`, without TLS: a sidecar is on loopback."""
        self._metadata = tuple(headers.items())
        self._channel = grpc.insecure_channel(address)
        self._stub: Any = TcdServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def call(self, path: str, body: Any, *, key: str | None, left: float) -> Any:
        """See `HttpTransport.call`."""
        method, message, read = _prepare(path, body, key, left)
        try:
            reply = getattr(self._stub, method)(message, timeout=left + _SLACK, metadata=self._metadata)
        except grpc.RpcError as error:
            found: Any = error
            raise _failed(found.code(), found.details(), found.trailing_metadata()) from error
        return read(reply)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class AsyncGrpcTransport:
    """One channel, asyncio."""

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        """See `GrpcTransport`."""
        self._metadata = tuple(headers.items())
        self._channel = grpc.aio.insecure_channel(address)
        self._stub: Any = TcdServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def call(self, path: str, body: Any, *, key: str | None, left: float) -> Any:
        """See `HttpTransport.call`."""
        method, message, read = _prepare(path, body, key, left)
        try:
            reply = await getattr(self._stub, method)(message, timeout=left + _SLACK, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise _failed(error.code(), error.details(), error.trailing_metadata()) from error
        return read(reply)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
