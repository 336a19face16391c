"""HTTP: what is sent and how an answer is read, with a sync and an async transport (httpx2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import msgspec

from tcd.client.errors import ApiError, DeadlineExceeded, TransportFailed

_OK: Final = 200


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request: path, JSON members, idempotency key and seconds left."""

    path: str
    body: Any
    key: str | None
    left: float
    headers: Mapping[str, str]

    def arguments(self) -> dict[str, Any]:
        """Arguments of httpx2's `request`."""
        headers = dict(self.headers)
        if self.body is None:
            return {"method": "GET", "url": self.path, "headers": headers, "timeout": self.left}
        if self.key is not None:
            headers["idempotency-key"] = self.key
            headers["x-deadline-ms"] = f"{max(self.left * 1000.0, 1.0):.3f}"
        headers["content-type"] = "application/json"
        content = msgspec.json.encode(self.body)
        return {"method": "POST", "url": self.path, "headers": headers, "content": content, "timeout": self.left}


def _read(reply: Any) -> Any:
    try:
        value = msgspec.json.decode(reply.content)
    except msgspec.DecodeError:
        value = None
    if reply.status_code == _OK and value is not None:
        return value
    if isinstance(value, dict) and "code" in value:
        raise ApiError(value)
    msg = f"an answer with status {reply.status_code} that is not of tcd"
    raise TransportFailed(msg)


def _failed(error: Exception) -> Exception:
    if isinstance(error, httpx2.TimeoutException):
        return DeadlineExceeded("no answer by the deadline")
    return TransportFailed(f"{type(error).__name__}: {error}")


class HttpTransport:
    """Keep-alive connections, blocking."""

    def __init__(self, url: str, headers: Mapping[str, str], transport: Any = None) -> None:
        """Call `url`; `transport` is httpx2's, for tests and proxies."""
        self._headers = headers
        self._client = httpx2.Client(base_url=url, transport=transport)

    def call(self, path: str, body: Any, *, key: str | None, left: float) -> Any:
        """The JSON of an answer.

        Raises:
            ApiError, TransportFailed, DeadlineExceeded: there is none.
        """
        try:
            reply = self._client.request(**Exchange(path, body, key, left, self._headers).arguments())
        except httpx2.TransportError as error:
            raise _failed(error) from error
        return _read(reply)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncHttpTransport:
    """Keep-alive connections, asyncio."""

    def __init__(self, url: str, headers: Mapping[str, str], transport: Any = None) -> None:
        """See `HttpTransport`."""
        self._headers = headers
        self._client = httpx2.AsyncClient(base_url=url, transport=transport)

    async def call(self, path: str, body: Any, *, key: str | None, left: float) -> Any:
        """See `HttpTransport.call`."""
        try:
            reply = await self._client.request(**Exchange(path, body, key, left, self._headers).arguments())
        except httpx2.TransportError as error:
            raise _failed(error) from error
        return _read(reply)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
