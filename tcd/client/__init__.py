"""The typed client of the shim: sync and async, HTTP and gRPC, with retries, idempotency keys and deadlines.

Install with `pip install "tcd[client]"`::

    with Client("http://127.0.0.1:8080") as tcd:
        decision = tcd.diagnose(session="g1", trace_vector=[-0.3], entropy=1.2)
"""

from __future__ import annotations

from tcd.client.api import AsyncClient, Client
from tcd.client.errors import ApiError, ClientError, DeadlineExceeded, TransportFailed
from tcd.client.models import Bodies, Decision, Report, Route
from tcd.client.retries import Retries

__all__ = [
    "ApiError",
    "AsyncClient",
    "Bodies",
    "Client",
    "ClientError",
    "DeadlineExceeded",
    "Decision",
    "Report",
    "Retries",
    "Route",
    "TransportFailed",
]
