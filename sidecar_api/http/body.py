"""Reading a body without ever holding more of it than the limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sidecar_api.cutoff import Cutoff
from tcd.errors import InvalidRequest, ScoringTimeout, TooLarge

Receive = Callable[[], Awaitable[Any]]


class Disconnected(Exception):
    """The client went away; there is nobody to answer."""


def check_length(value: bytes | None, limit: int) -> None:
    """Refuse by `Content-Length` alone.

    Raises:
        TooLarge: it is over the limit.
        InvalidRequest: it is no number.
    """
    if value is None:
        return
    if not value.isdigit():
        msg = "content-length is no number"
        raise InvalidRequest(msg)
    if len(value) > 15 or int(value) > limit:  # noqa: PLR2004 - no int() of a million digits
        msg = f"the body is over {limit} bytes"
        raise TooLarge(msg)


async def read_body(receive: Receive, limit: int, *, timeout: float) -> bytes:
    """The body.

    Args:
        receive: of ASGI.
        limit: bytes at most; the rest is not read.
        timeout: seconds until it must be here.

    Raises:
        TooLarge: more bytes came, whatever the Content-Length said.
        InvalidRequest: it did not come in time.
        Disconnected: the client went away.
    """
    message = await _first(receive, timeout)
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            msg = f"the body is over {limit} bytes"
            raise TooLarge(msg)
        return body
    try:
        with Cutoff(asyncio.get_running_loop().time() + timeout, "slow body"):
            return await _rest(receive, body, limit)
    except ScoringTimeout:
        msg = f"the body did not come within {timeout:g} s"
        raise InvalidRequest(msg) from None


async def _first(receive: Receive, timeout: float) -> dict[str, Any]:
    try:
        with Cutoff(asyncio.get_running_loop().time() + timeout, "slow body"):
            message: dict[str, Any] = await receive()
    except ScoringTimeout:
        msg = f"the body did not come within {timeout:g} s"
        raise InvalidRequest(msg) from None
    if message["type"] == "http.disconnect":
        raise Disconnected
    return message


async def _rest(receive: Receive, first: bytes, limit: int) -> bytes:
    chunks, size = [first], len(first)
    while size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if not message.get("more_body", False):
            break
    if size > limit:
        msg = f"the body is over {limit} bytes"
        raise TooLarge(msg)
    return b"".join(chunks)
