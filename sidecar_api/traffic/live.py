"""A running shim over HTTP: keep-alive connections, patient where it is told to wait, verified where keys are given."""

from __future__ import annotations

import asyncio
import os
from time import perf_counter
from typing import Any, Final

import httpx2
import msgspec
from typing_extensions import Self

from sidecar_api.traffic.lines import Line
from sidecar_api.traffic.outcome import Outcome, decided_of
from sidecar_api.traffic.receipts import Receipts
from tcd.errors import Unavailable

_OK: Final = 200
#: Answers after which the same request is sent again: rate limits, overload.
_AGAIN: Final = frozenset({429, 503})
_LONGEST: Final = 5.0
#: How often a request is sent again where nothing came back.
_TRIES: Final = 3


class Live:
    """A `Side` behind a URL. Each request has an idempotency key, so that sending it again decides nothing twice."""

    concurrent = True

    def __init__(
        self,
        name: str,
        url: str,
        *,
        connections: int,
        receipts: Receipts | None = None,
        patience: float = 60.0,
        transport: Any = None,
    ) -> None:
        """Call the shim at `url`; a request that is refused for load is sent again for `patience` seconds.

        `transport` is httpx2's, for tests.
        """
        self.name = name
        self._receipts = receipts
        self._patience = patience
        self._run = os.urandom(8).hex()
        self._number = 0
        self._client = httpx2.AsyncClient(
            base_url=url,
            timeout=30.0,
            transport=transport,
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    async def __aenter__(self) -> Self:
        """Open."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def reachable(self) -> None:
        """See that a shim is there.

        Raises:
            Unavailable: it is not.
        """
        try:
            reply = await self._client.get("/version")
        except (httpx2.TransportError, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            msg = f"{self.name}: {type(error).__name__}: {error}"
            raise Unavailable(msg) from None
        if reply.status_code != _OK:
            msg = f"{self.name}: /version answers {reply.status_code}"
            raise Unavailable(msg)

    async def decide(self, line: Line) -> Outcome:
        """See `Side`."""
        self._number += 1
        headers = {"content-type": "application/json", "idempotency-key": f"replay-{self._run}-{self._number}"}
        content = msgspec.json.encode(line.request)
        began, retries = perf_counter(), 0
        while True:
            outcome, wait = await self._once(line, content, headers)
            tired = outcome.problem == "transport" and retries >= _TRIES
            if wait is None or tired or perf_counter() - began + wait > self._patience:
                return msgspec.structs.replace(outcome, retries=retries)
            retries += 1
            await asyncio.sleep(wait)

    async def _once(self, line: Line, content: bytes, headers: dict[str, str]) -> tuple[Outcome, float | None]:
        """An outcome, and after how many seconds it is worth to ask again; None = never."""
        began = perf_counter()
        try:
            reply = await self._client.post("/diagnose", content=content, headers=headers)
        except httpx2.TransportError as error:
            return Outcome(None, "transport", f"{type(error).__name__}: {error}"), 0.5
        seconds = perf_counter() - began
        if reply.status_code != _OK:
            return _problem(reply, seconds), _wait(reply)
        try:
            decided = decided_of(reply.content)
        except msgspec.DecodeError as error:
            return Outcome(None, "transport", f"no answer of /diagnose: {error}", seconds=seconds), None
        receipt = "" if self._receipts is None else self._receipts.check(line.request, decided)
        return Outcome(decided, receipt=receipt, seconds=seconds), None


def _wait(reply: Any) -> float | None:
    if reply.status_code not in _AGAIN:
        return None
    try:
        return min(max(float(reply.headers.get("retry-after", "1")), 0.05), _LONGEST)
    except ValueError:
        return 1.0


def _problem(reply: Any, seconds: float) -> Outcome:
    try:
        value = msgspec.json.decode(reply.content)
        return Outcome(None, str(value["code"]), str(value.get("detail", "")), seconds=seconds)
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        return Outcome(None, "transport", f"status {reply.status_code}, no problem of tcd", seconds=seconds)
