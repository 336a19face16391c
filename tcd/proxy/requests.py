"""Reading a request's body up to what is held, and handing it on: whole, or what was held and the rest as it comes."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from tcd.errors import InvalidRequest, TooLarge
from tcd.proxy.headers import value
from tcd.proxy.problems import SlowRequest

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_DIGITS: Final = 15


class Disconnected(Exception):
    """The client went away."""


def request_id(scope: Scope) -> str:
    """The client's `X-Request-Id`, or a new one; the same for the same request."""
    made: str | None = scope.get("tcd.request_id")
    if made is None:
        given = value(scope["headers"], b"x-request-id")
        made = given.decode() if given is not None and _ID.fullmatch(given) else os.urandom(16).hex()
        scope["tcd.request_id"] = made
    return made


def check_length(scope: Scope, limit: int) -> None:
    """Refuse by `Content-Length` alone.

    Raises:
        TooLarge: it is over the limit.
        InvalidRequest: it is no number.
    """
    length = value(scope["headers"], b"content-length")
    if length is None:
        return
    if not length.isdigit():
        msg = "content-length is no number"
        raise InvalidRequest(msg)
    if len(length) > _DIGITS or int(length) > limit:
        msg = f"the body is over {limit} bytes"
        raise TooLarge(msg)


class Incoming:
    """The body of one request.

    Attributes:
        body: what was read.
        whole: whether that is all of it.
    """

    def __init__(self, receive: Receive, *, limit: int, seconds: float) -> None:
        """Read from `receive`; `limit` bytes at most, each part within `seconds`."""
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._seen = 0
        self._replayed = False
        self._stopped = asyncio.Event()
        self.body = b""
        self.whole = False

    async def read(self, held: int) -> None:
        """Read all of it, or a little more than `held` bytes.

        Raises:
            TooLarge, SlowRequest, Disconnected: it cannot be read.
        """
        parts: list[bytes] = []
        while not self.whole and self._seen <= held:
            parts.append(await self._part())
        self.body = b"".join(parts)

    async def _part(self) -> bytes:
        try:
            message = await asyncio.wait_for(self._receive(), self._seconds)
        except asyncio.TimeoutError:
            msg = f"no part of the body came for {self._seconds:g} s"
            raise SlowRequest(msg) from None
        if message["type"] == "http.disconnect":
            raise Disconnected
        body: bytes = message.get("body", b"")
        self.whole = not message.get("more_body", False)
        self._seen += len(body)
        if self._seen > self._limit:
            msg = f"the body is over {self._limit} bytes"
            raise TooLarge(msg)
        return body

    def replace(self, body: bytes) -> None:
        """Hand on something else."""
        self.body = body

    def stop(self) -> None:
        """Tell the application that the client has gone."""
        self._stopped.set()

    async def receive(self) -> Any:
        """`receive` of the application behind: what was read, the rest, then the client's leaving.

        Raises:
            TooLarge, SlowRequest: of the rest.
        """
        if self._stopped.is_set():
            return {"type": "http.disconnect"}
        if not self._replayed:
            self._replayed = True
            body, self.body = self.body, b""
            return {"type": "http.request", "body": body, "more_body": not self.whole}
        if not self.whole:
            try:
                return {"type": "http.request", "body": await self._part(), "more_body": not self.whole}
            except Disconnected:
                return {"type": "http.disconnect"}
        return await self._leaving()

    async def _leaving(self) -> Any:
        client = asyncio.ensure_future(self._receive())
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait([client, stopped], return_when=asyncio.FIRST_COMPLETED)
            return client.result() if client.done() else {"type": "http.disconnect"}
        finally:
            client.cancel()
            stopped.cancel()
