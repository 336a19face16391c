"""An ASGI application that forwards every request to another server and its answer back, as streams.

httpcore2 makes the connections: it adds no header, decodes nothing and reads only what is asked for, so a slow client
slows the upstream down. When the client goes away the upstream's connection is closed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpcore2

from tcd.background import end
from tcd.errors import ConfigError, TcdError
from tcd.proxy import headers as fields
from tcd.proxy.metrics import ProxyMetrics
from tcd.proxy.problems import UpstreamFailed, UpstreamTimeout, answer
from tcd.proxy.requests import Disconnected, Receive, Scope, Send, request_id

_PORTS: Final = {"http": 80, "https": 443}
#: Shorter than the idle time-outs of common servers (uvicorn 5 s), so that a request seldom meets a closing connection.
_KEEP_ALIVE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of connections to the upstream.

    Attributes:
        connect, read, write: seconds; `read` is the time between two pieces of an answer, its first byte included.
        connections: at once; a request waits `connect` seconds for one.
    """

    connect: float = 5.0
    read: float = 600.0
    write: float = 60.0
    connections: int = 1000

    def extension(self) -> dict[str, float]:
        """As httpcore2 takes them."""
        return {"connect": self.connect, "read": self.read, "write": self.write, "pool": self.connect}


@dataclass(frozen=True, slots=True)
class Target:
    """Where the upstream is: scheme, host, port, path before the request's own, and its `Host`."""

    scheme: bytes
    host: bytes
    port: int
    base: bytes
    authority: bytes

    @classmethod
    def parse(cls, url: str) -> Target:
        """Read an URL.

        Raises:
            ConfigError: it is no `http://` or `https://` URL, or it has a query or a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            msg = f"the upstream's URL cannot be read: {error}"
            raise ConfigError(msg) from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:
            msg = "the upstream is an URL http://host[:port][/path] or https://..., without query and credentials"
            raise ConfigError(msg)
        host = parts.hostname.encode("idna") if not parts.hostname.isascii() else parts.hostname.encode()
        named = b"[" + host + b"]" if b":" in host else host
        given = port is not None and port != _PORTS[parts.scheme]
        authority = named + (b":%d" % port if given and port is not None else b"")
        return cls(
            parts.scheme.encode(), host, port or _PORTS[parts.scheme], parts.path.rstrip("/").encode(), authority
        )

    def url(self, scope: Scope) -> httpcore2.URL:
        """The URL of a request, its path and query byte for byte."""
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        query: bytes = scope.get("query_string", b"")
        target = self.base + path + (b"?" + query if query else b"")
        return httpcore2.URL(scheme=self.scheme, host=self.host, port=self.port, target=target)


class Upstream:
    """Forwards. Close it in the end."""

    def __init__(
        self,
        url: str,
        *,
        metrics: ProxyMetrics,
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
        keep_host: bool = False,
        via: str | None = "tcd",
    ) -> None:
        """Forward to `url`.

        Args:
            url: `http://host:port/base`.
            metrics: where failures are counted.
            limits: of connections.
            tls: for `https`; default the system's certificate authorities.
            keep_host: forward the client's `Host` instead of the upstream's.
            via: pseudonym in `Via` of requests; None adds none.

        Raises:
            ConfigError: the URL is wrong.
        """
        self._target = Target.parse(url)
        self._limits = limits or Limits()
        self._host = None if keep_host else self._target.authority
        self._via = None if via is None else via.encode()
        self._metrics = metrics
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=self._limits.connections,
            max_keepalive_connections=self._limits.connections,
            keepalive_expiry=_KEEP_ALIVE,
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one request; an answer that breaks off breaks off for the client too."""
        if scope["type"] != "http":
            await _other(scope, receive, send)
            return
        body = _Body(receive)
        forwarding = asyncio.ensure_future(self._forward(scope, body, send))
        leaving = asyncio.ensure_future(body.left())
        try:
            await asyncio.wait([forwarding, leaving], return_when=asyncio.FIRST_COMPLETED)
            if not forwarding.done():
                self._metrics.failed("client_left")
        finally:
            await end(leaving)
            await end(forwarding)
        if not forwarding.cancelled():
            forwarding.result()

    async def _forward(self, scope: Scope, body: _Body, send: Send) -> None:
        content = body.chunks() if fields.has_body(scope["headers"]) else None
        if content is None:
            body.skipped()
        request = httpcore2.Request(
            method=scope["method"].encode(),
            url=self._target.url(scope),
            headers=fields.request_headers(scope["headers"], host=self._host, via=self._via),
            content=content,
            extensions={"timeout": self._limits.extension()},
        )
        started = False
        try:
            response = await self._pool.handle_async_request(request)
            try:
                out = fields.end_to_end(response.headers)
                started = True
                await send({"type": "http.response.start", "status": response.status, "headers": out})
                async for chunk in response.aiter_stream():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                await response.aclose()
        except Disconnected:
            return
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            failure = _failure(error)
            self._metrics.failed(failure.code)
            if not started:
                await answer(send, failure, request_id(scope))
            # else: without a last part the server closes the connection, and the client sees that there is more
            return
        except TcdError as error:
            # of the body: too large, too slow
            if not started:
                await answer(send, error, request_id(scope))
            return
        await send({"type": "http.response.body", "body": b""})


def _failure(error: Exception) -> TcdError:
    if isinstance(error, httpcore2.PoolTimeout):
        return UpstreamTimeout("no connection to the upstream became free in time")
    if isinstance(error, httpcore2.TimeoutException):
        return UpstreamTimeout("the upstream did not answer in time")
    if isinstance(error, httpcore2.ConnectError):
        return UpstreamFailed("the upstream cannot be reached")
    if isinstance(error, httpcore2.LocalProtocolError):
        return UpstreamFailed("the request cannot be forwarded: a field is not allowed in HTTP/1.1")
    return UpstreamFailed("the upstream broke the connection or did not speak HTTP")


class _Body:
    """The request's body as it comes, then the client's leaving."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body.

        Raises:
            Disconnected: the client left before its end.
        """
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            more = message.get("more_body", False)
            if message.get("body"):
                yield message["body"]
        self._read.set()

    def skipped(self) -> None:
        """There is none: what is received next is that the client left."""
        self._read.set()

    async def left(self) -> None:
        """Wait until the client has gone."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _other(scope: Scope, receive: Receive, send: Send) -> None:
    """Lifespan is accepted; WebSocket is not forwarded."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1003})
        return
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
