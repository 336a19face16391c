"""The generator of open-loop load tells apart what became of each request."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import cast

import pytest

from tcd.bench import openloop, soak
from tcd.bench.openloop import Phase, Shot, drive, failed_checks

_CHECKS = [
    {"name": "rate", "status": "ran", "reason": ""},
    {"name": "scoring", "status": "failed", "reason": "ledger"},
    {"name": "receipt", "status": "failed", "reason": "not durable in time"},
]
_WHY = "scoring: ledger, receipt: not durable in time"
_DEGRADED = json.dumps({"cause": "degraded", "checks": _CHECKS}, separators=(",", ":")).encode()


async def _answering(make: Callable[[int], bytes], shots: int, grace: float) -> list[Shot]:
    """Load on a server that answers a request as its body says: a status and content, or by closing (0) or never."""

    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(cast("asyncio.Task[None]", asyncio.current_task()))
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            status, _, content = (await reader.readexactly(size)).partition(b" ")
            if status == b"never":
                continue
            if status == b"0":
                break
            writer.write(b"HTTP/1.1 %b X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        return await drive("127.0.0.1", port, (Phase(shots / 0.05, 0.05),), make, grace=grace)
    finally:
        server.close()
        await asyncio.gather(*serving)


def test_what_became_of_each_request_is_told_apart() -> None:
    busy = b'409 {"detail":"a step of this session is in flight"}'
    asked = [b"200 {}", b"200 " + _DEGRADED, b"503 " + _DEGRADED, b"429 {}", b"500 {}", busy, b"0"]
    shots = asyncio.run(_answering(lambda number: asked[number % len(asked)], 4 * len(asked), 60.0))
    assert soak.told(shots) == {
        "answered": 4,
        "failed": 24,
        "refused": 8,
        "degraded": 4,
        "lost": 4,
        "errors": 8,
        "why": {
            f"degraded: {_WHY}": 4,
            "lost: connection closed": 4,
            "status 409: a step of this session is in flight": 4,
            "status 500": 4,
        },
    }
    assert [shot.degraded for shot in shots].count(True) == 4


def test_requests_that_are_never_answered_are_lost_when_they_were_due() -> None:
    shots = asyncio.run(_answering(lambda _: b"never", 3, 0.05))
    assert [(shot.status, shot.why) for shot in shots] == [(0, "no answer in time")] * 3
    assert len({shot.due for shot in shots}) == 3
    assert all(shot.latency > 0.0 for shot in shots)


def test_a_server_that_is_not_there_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shots = asyncio.run(drive("127.0.0.1", port, (Phase(100.0, 0.03),), lambda _: b"{}"))
    assert soak.told(shots)["why"] == {"lost: no connection": 3}


def test_phases_are_marked_where_they_begin_and_where_the_last_one_ends() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made: list[int] = []
    marks: list[int] = []

    def make(number: int) -> bytes:
        made.append(number)
        return b"{}"

    phases = (Phase(200.0, 0.02), Phase(100.0, 0.02), Phase(50.0, 0.02))
    asyncio.run(drive("127.0.0.1", port, phases, make, mark=lambda: marks.append(len(made))))
    assert marks == [0, 4, 6, 7]


def test_a_degraded_answer_without_checks_is_still_one() -> None:
    for content in (b"", b"{}", b"[]", b'{"checks":[{}]}', b'{"checks":[{"name":"x","status":"ran"}]}'):
        assert failed_checks(content) == "no reason given"
    assert failed_checks(_DEGRADED) == _WHY


@pytest.mark.parametrize(("fresh", "connections"), [(60.0, 1), (0.0, 5)])
def test_what_was_idle_for_long_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch, fresh: float, connections: int
) -> None:
    monkeypatch.setattr(openloop, "_FRESH", fresh)
    accepted: list[int] = []

    async def run() -> list[Shot]:
        loop = asyncio.get_running_loop()
        pool: openloop._Pool | None = None

        class Server(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = cast("asyncio.Transport", transport)
                accepted.append(1)

            def data_received(self, data: bytes) -> None:
                self.transport.write(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n{}")

        server = await loop.create_server(Server, "127.0.0.1", 0)
        try:
            pool = openloop._Pool("127.0.0.1", server.sockets[0].getsockname()[1], 8)
            for _ in range(5):
                pool.fire(openloop.http_request(b"x", b"{}"), 0.0)
                await pool.drained(60.0)
            return pool.shots
        finally:
            if pool is not None:
                pool.close()
            server.close()

    assert [shot.status for shot in asyncio.run(run())] == [200] * 5
    assert len(accepted) == connections
