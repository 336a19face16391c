"""The gRPC surface: `tcd.v1.TcdService` over the one dataplane, with health and reflection."""

from __future__ import annotations

from sidecar_api.grpc.server import GrpcServer

__all__ = ["GrpcServer"]
