"""The `InferenceClient` port and `connect`, which makes the adapter that an URL asks for.

The lean HTTP adapter costs a fourth to a sixth of any gRPC client and is the default; the gRPC adapter is
tritonclient's, for deployments that only open that port.
"""

from __future__ import annotations

from typing import Protocol

from tcd.contract import DIAGNOSE, Model
from tcd.errors import ScoringError
from tcd.triton.wire import Tensors

__all__ = ["InferenceClient", "ScoringUnreachable", "Tensors", "connect"]


class ScoringUnreachable(ScoringError):
    """No connection to the server could be made, or it broke before an answer came."""


class InferenceClient(Protocol):
    """A model server as tensors in, tensors out."""

    async def infer(self, tensors: Tensors, *, model: Model | str = DIAGNOSE, timeout: float) -> Tensors:
        """Run a model on a batch.

        Args:
            tensors: inputs by contract name, batch first, of the contract's dtypes.
            model: the model or its name in the contract.
            timeout: seconds until `ScoringTimeout`.

        Returns:
            The outputs by name, held to the contract: dtypes, shapes, finite, in range; possibly read-only.

        Raises:
            ScoringTimeout: no answer by the deadline.
            ScoringUnreachable: no server, or the connection broke.
            ScoringError: the server refused, failed or answered something else than the contract says.
            ValueError: the tensors are not the model's inputs.
        """
        ...

    async def ready(self, *, timeout: float = 1.0) -> bool:
        """Whether the server says that it is ready (a dead stub does not show here: see `health`)."""
        ...

    async def close(self) -> None:
        """Close all connections; calls under way fail with `ScoringUnreachable`."""
        ...


def connect(url: str, *, max_connections: int = 16) -> InferenceClient:
    """A client for `http://host:port`, `https://host:port` or `grpc://host:port`.

    Connections are made at the first call, in the running event loop.

    Raises:
        ValueError: the URL has another scheme or no port.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "grpc":
        from tcd.triton.grpc_client import GrpcClient  # noqa: PLC0415 - grpc costs 100 ms of start-up

        return GrpcClient(rest)
    from tcd.triton.http_client import HttpClient  # noqa: PLC0415 - it imports this module's port

    return HttpClient(url, max_connections=max_connections)
