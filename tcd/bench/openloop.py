"""Open-loop load: requests leave when they are due, whatever the server does (no coordinated omission).

One process, one thread, connections that are reused, answers of which only the status and the length are read: on a
machine that the server shares, the generator must cost a fraction of a request. wrk cannot keep a schedule, and k6's
script engine costs about as much CPU per request as the server's own work.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

_OK: Final = 200
#: Statuses that refuse an excess.
REFUSED: Final = frozenset({429, 503})
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"
_DEGRADED: Final = b'"cause":"degraded"'
#: Seconds without a request after which a connection is not used again: servers close those that are idle (`tcd serve`
#: after 5 s), and what is sent at that moment is lost. Other clients send it once more.
_FRESH: Final = 2.0
_REQUEST: Final = (
    b"POST /diagnose HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
)


@dataclass(frozen=True, slots=True)
class Shot:
    """One request: when it was due (seconds from the start), its latency from then on in seconds, its status.

    Status 0: no answer; `why` says which way it was lost. Of an answer 200 that is a degraded decision, `why` has the
    checks that failed, as the answer names them; of an error other than a refusal (429, 503) its detail; else nothing.
    """

    due: float
    latency: float
    status: int
    why: str = ""

    @property
    def degraded(self) -> bool:
        """Whether it was answered, with a degraded decision."""
        return self.status == _OK and bool(self.why)

    @property
    def well(self) -> bool:
        """Whether it was answered, with a decision that is not degraded."""
        return self.status == _OK and not self.why


def failed_checks(content: bytes) -> str:
    """The failed checks of a degraded decision with their reasons, in the order of the answer."""
    try:
        checks = json.loads(content)["checks"]
        failed = [f"{check['name']}: {check.get('reason', '')}" for check in checks if check["status"] == "failed"]
    except (ValueError, KeyError, TypeError):
        failed = []
    return ", ".join(failed) or "no reason given"


def detail_of(content: bytes) -> str:
    """The detail of a problem (RFC 9457), empty where there is none."""
    try:
        return str(json.loads(content)["detail"])
    except (ValueError, KeyError, TypeError):
        return ""


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._buffer = bytearray()
        self.due: float | None = None
        self.idle_since = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes
        self.transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, due: float) -> None:
        assert self.transport is not None  # noqa: S101 - for the type checker
        self.due = due
        self.transport.write(request)

    def leave(self) -> None:
        assert self.transport is not None  # noqa: S101 - for the type checker
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        end = buffer.find(_HEAD_END)
        if end < 0 or self.due is None:
            return
        head = bytes(buffer[:end]).lower()
        at = head.index(_LENGTH) + len(_LENGTH)
        size = int(head[at : head.find(b"\r", at) if head.find(b"\r", at) > 0 else len(head)])
        if len(buffer) < end + len(_HEAD_END) + size:
            return
        status, why = int(head[9:12]), ""
        # decoded only where there is something to say: next to all answers are not
        if status == _OK and _DEGRADED in buffer:
            why = failed_checks(bytes(buffer[end + len(_HEAD_END) :]))
        elif status != _OK and status not in REFUSED:
            why = detail_of(bytes(buffer[end + len(_HEAD_END) :]))
        due, self.due = self.due, None
        buffer.clear()
        self._pool.answered(self, due, status, why)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        self._pool.lost(self, self.due)


class _Pool:
    """Idle connections, requests that wait for one, and what came back."""

    def __init__(self, host: str, port: int, limit: int) -> None:
        self._host, self._port, self._limit = host, port, limit
        self._idle: list[_Connection] = []
        self._waiting: deque[tuple[bytes, float]] = deque()
        self._open: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.start = self._loop.time()
        self.shots: list[Shot] = []
        self.pending = 0
        self.closing = False
        self._empty = asyncio.Event()

    def fire(self, request: bytes, due: float) -> None:
        self.pending += 1
        self._empty.clear()
        while self._idle:
            connection = self._idle.pop()
            if self._loop.time() - connection.idle_since < _FRESH:
                connection.send(request, due)
                return
            connection.leave()
        self._waiting.append((request, due))
        if len(self._open) + len(self._opening) < self._limit:
            task = self._loop.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        try:
            _, connection = await self._loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except OSError:
            if self._waiting:
                self._done(self._waiting.popleft()[1], 0, "no connection")
            return
        self._open.add(connection)
        self._reuse(connection)

    def _reuse(self, connection: _Connection) -> None:
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            connection.idle_since = self._loop.time()
            self._idle.append(connection)

    def _done(self, due: float, status: int, why: str) -> None:
        self.pending -= 1
        if not self.pending:
            self._empty.set()
        self.shots.append(Shot(due, self._loop.time() - self.start - due, status, why))

    def answered(self, connection: _Connection, due: float, status: int, why: str) -> None:
        self._done(due, status, why)
        self._reuse(connection)

    def lost(self, connection: _Connection, due: float | None) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if due is not None and not self.closing:
            self._done(due, 0, "connection closed")

    async def drained(self, timeout: float) -> None:
        """Wait for the answers that are still out, at most `timeout` seconds."""
        if self.pending:
            waiting = self._loop.create_task(self._empty.wait())
            await asyncio.wait([waiting], timeout=timeout)
            waiting.cancel()

    def close(self) -> None:
        self.closing = True
        out = [due for _, due in self._waiting] + [one.due for one in self._open if one.due is not None]
        self._waiting.clear()
        for due in out:
            self._done(due, 0, "no answer in time")
        for connection in self._open:
            if connection.transport is not None:
                connection.transport.abort()


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of constant rate: requests per second, seconds."""

    rate: float
    seconds: float


def http_request(host: bytes, body: bytes) -> bytes:
    """A POST /diagnose as it goes over the wire."""
    return _REQUEST % (host, len(body), body)


async def drive(
    host: str,
    port: int,
    phases: tuple[Phase, ...],
    make: Callable[[int], bytes],
    *,
    connections: int = 2048,
    grace: float = 5.0,
    mark: Callable[[], None] | None = None,
) -> list[Shot]:
    """Run the phases one after the other; returns every request, in the order of the answers.

    Args:
        host: of the server.
        port: of the server.
        phases: rates and lengths.
        make: body of request number n.
        connections: at most; when all are in use, requests wait here and their latency counts.
        grace: seconds to wait for the last answers.
        mark: called when a phase begins, and when the last one has ended: later than due where this process lags.
    """
    pool, named = _Pool(host, port, connections), f"{host}:{port}".encode()
    loop = asyncio.get_running_loop()
    begin, number = 0.0, 0

    async def bound() -> None:
        await asyncio.sleep(max(0.0, begin - (loop.time() - pool.start)))
        if mark is not None:
            mark()

    for phase in phases:
        await bound()
        count = int(phase.rate * phase.seconds)
        for i in range(count):
            due = begin + i / phase.rate
            ahead = due - (loop.time() - pool.start)
            if ahead > 0:
                await asyncio.sleep(ahead)
            elif not i % 16:
                await asyncio.sleep(0)
            pool.fire(http_request(named, make(number)), due)
            number += 1
        begin += phase.seconds
    await bound()
    await pool.drained(grace)
    pool.close()
    return pool.shots
