"""What the proxy itself answers when it fails: RFC 9457 problems. Answers of the upstream are never replaced."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from tcd.errors import InvalidRequest, TcdError


class UpstreamFailed(TcdError):
    """The upstream could not be reached, or did not speak HTTP."""

    code = "upstream_failed"
    http_status = 502
    grpc_status = "UNAVAILABLE"
    title = "Bad gateway"


class UpstreamTimeout(TcdError):
    """The upstream did not answer in time."""

    code = "upstream_timeout"
    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"
    title = "Gateway timeout"


class SlowRequest(InvalidRequest):
    """The client's body did not come in time."""

    code = "slow_request"
    http_status = 408
    title = "Request timeout"


async def answer(send: Any, error: TcdError, request_id: str) -> None:
    """Send a problem."""
    body = msgspec.json.encode(
        {
            "type": f"urn:tcd:problem:{error.code}",
            "title": error.title,
            "status": error.http_status,
            "detail": error.detail,
            "code": error.code,
            "request_id": request_id,
        }
    )
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
    ]
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    await send({"type": "http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
