"""The connection that answers POST /diagnose without ASGI says what uvicorn's says, whatever it is sent."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from sidecar_api.http.lean import Exchange, LeanProtocol
from sidecar_api.http.surface import ShimApp
from tests.unit.shim.conftest import held, soon

BODY = b'{"trace_vector":[-1.0],"session":"%d"}'


class Wire(asyncio.Transport):
    """The other end of a connection, in memory."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 50000), "sockname": ("127.0.0.1", 80)})
        self.sent = b""
        self.closing = False
        self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closing
        self.sent += bytes(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def connect(app: ShimApp, *, lean: bool) -> tuple[HttpToolsProtocol, Wire]:
    config, state, wire = Config(app, lifespan="off", log_config=None, access_log=False), ServerState(), Wire()
    protocol = (
        LeanProtocol(app.runtime, config=config, server_state=state, app_state={})
        if lean
        else HttpToolsProtocol(config=config, server_state=state, app_state={})
    )
    protocol.connection_made(wire)
    return protocol, wire


async def until(wire: Wire, answers: int) -> None:
    await soon(lambda: len(parsed(wire.sent)) >= answers or wire.closing)


def parsed(data: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Whole answers: status, headers, body."""
    data, out = data.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""), []
    while b"\r\n\r\n" in data:
        head, _, rest = data.partition(b"\r\n\r\n")
        status, *lines = head.split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
        assert len(headers) == len(lines), lines
        size = int(headers[b"content-length"])
        if len(rest) < size:
            break
        out.append((int(status.split()[1]), headers, rest[:size]))
        data = rest[size:]
    return out


def post(body: bytes = BODY % 0, *headers: bytes, path: bytes = b"/diagnose", length: int | None = None) -> bytes:
    lines = [b"POST %b HTTP/1.1" % path, b"Host: x", b"Content-Type: application/json"]
    if not any(header.lower().startswith((b"transfer-encoding", b"content-length")) for header in headers):
        lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join((*lines, *headers)) + b"\r\n\r\n" + body


CHUNKED = b"5\r\n" + BODY[:5] + b"\r\n" + b"%x\r\n" % (len(BODY) - 5) + BODY[5:] % 0 + b"0\r\n\r\n"
CASES = {
    "plain": [post()],
    "v1": [post(path=b"/v1/diagnose")],
    "ids": [post(BODY % 0, b"X-Request-Id: r-1", b"traceparent: 00-%b-%b-01" % (b"a" * 32, b"b" * 16))],
    "idempotent, twice": [post(BODY % 0, b"Idempotency-Key: k"), post(BODY % 0, b"Idempotency-Key: k")],
    "three in one segment": [post() + post(BODY % 1) + post(BODY % 2)],
    "a piece at a time": [bytes([byte]) for byte in post()],
    "chunked": [post(b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", b"Transfer-Encoding: chunked")],
    "keep-alive said": [post(BODY % 0, b"Connection: keep-alive"), post(BODY % 1)],
    "last one": [post(BODY % 0, b"Connection: close")],
    "HTTP/1.0": [post().replace(b"HTTP/1.1", b"HTTP/1.0")],
    "expects": [post(BODY % 0, b"Expect: 100-continue")],
    "behind a proxy": [post(BODY % 0, b"X-Forwarded-For: 10.0.0.1")],
    "query": [post(path=b"/diagnose?x=1")],
    "GET": [b"GET /diagnose HTTP/1.1\r\nHost: x\r\n\r\n"],
    "PUT, then POST": [post().replace(b"POST", b"PUT", 1), post()],
    "elsewhere, then here": [b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", post()],
    "here, then elsewhere": [post(), b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"],
    "no such path": [post(path=b"/diagnosis")],
    "not JSON": [post(b"{"), post()],
    "unknown member": [post(b'{"x":1}')],
    "no body": [post(b"")],
    "another type": [post(BODY % 0, b"Content-Encoding: gzip")],
    "bad request id": [post(BODY % 0, b"X-Request-Id: \xff"), post()],
    "bad key": [post(BODY % 0, b"Idempotency-Key: a b")],
    "bad deadline": [post(BODY % 0, b"X-Deadline-Ms: soon")],
    "too large to announce": [post(b"", length=1 << 24)],
    "too large when it comes": [
        post(b"%x\r\n" % ((1 << 20) + 1) + b" " * ((1 << 20) + 1) + b"\r\n0\r\n\r\n", b"Transfer-Encoding: chunked")
    ],
    "no HTTP": [b"hello\r\n\r\n"],
    "two lengths": [post(BODY % 0, b"Content-Length: 3", b"Content-Length: 4")],
    "length and chunks": [post(b"0\r\n\r\n", b"Content-Length: 3", b"Transfer-Encoding: chunked")],
    "a name to be quoted": [post('{"session":"ä % b"}'.encode())],
    "a name with a line's end": [post(b'{"session":"a\\r\\nX-Evil: 1"}')],
}
#: Headers and members that no two answers share.
MADE = {b"x-request-id", b"traceparent", b"server-timing", b"date", b"ratelimit", b"content-length"}


async def said(app: ShimApp, pieces: list[bytes], *, lean: bool) -> tuple[list[Any], bool]:
    protocol, wire = connect(app, lean=lean)
    answers = sum(piece.count(b" HTTP/1.") for piece in pieces) or 1
    for piece in pieces:
        before = len(parsed(wire.sent))
        if wire.closing:
            break
        protocol.data_received(piece)
        if b" HTTP/1." in piece:
            await until(wire, before + piece.count(b" HTTP/1."))
    await until(wire, answers)
    found = []
    for status, headers, body in parsed(wire.sent):
        kept = {name: value for name, value in headers.items() if name not in MADE}
        value = json.loads(body) if headers[b"content-type"] != b"text/plain; charset=utf-8" else body
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if k not in {"request_id", "uptime_s"}}
        found.append((status, kept, headers.keys() & MADE, value))
    return found, wire.closing


def counted(app: ShimApp) -> list[str]:
    page, _ = app.runtime.exporter.expose("", sessions=0, dropped=0)
    return re.findall(r"(?m)^tcd_requests_total.*", page.decode())


@pytest.mark.parametrize("name", CASES)
async def test_it_says_what_uvicorn_says(make_client: Any, kit: Any, name: str) -> None:
    pieces = CASES[name]
    apps = [make_client(kit.ScriptedScorer(0.9), receipts_enable=False).app for _ in range(2)]
    usual = await said(apps[0], pieces, lean=False)
    lean = await said(apps[1], pieces, lean=True)
    assert lean == usual
    assert apps[1].runtime.in_flight == apps[1].runtime.reading == 0
    assert counted(apps[0]) == counted(apps[1])


async def test_what_it_answers_itself(make_client: Any, kit: Any) -> None:
    """The cases above would hold if everything went uvicorn's way: this does not."""
    app = make_client(kit.ScriptedScorer(0.9)).app
    own = {"plain": True, "chunked": True, "keep-alive said": True, "last one": False, "GET": False}
    for name, expected in own.items():
        protocol, wire = connect(app, lean=True)
        protocol.data_received(CASES[name][0])
        assert isinstance(protocol.cycle, Exchange) is expected, name
        await until(wire, 1)


async def test_a_request_too_many_is_refused_before_its_body(make_client: Any, kit: Any) -> None:
    app = make_client(kit.ScriptedScorer(0.9), max_inflight=1).app
    app.runtime.in_flight = 1
    protocol, wire = connect(app, lean=True)
    protocol.data_received(post(BODY % 0, length=1000))
    [(status, headers, body)] = parsed(wire.sent)
    assert (status, json.loads(body)["code"]) == (503, "unavailable")
    assert headers[b"retry-after"] == b"1"
    app.runtime.in_flight = 0
    # the rest of the refused body is read over, and the next request of the connection is answered
    protocol.data_received(b" " * (1000 - len(BODY % 0)) + post())
    await until(wire, 2)
    assert parsed(wire.sent)[1][0] == 200
    assert app.runtime.in_flight == app.runtime.reading == 0


async def test_hundreds_at_once_are_answered_one_after_the_other(make_client: Any, kit: Any) -> None:
    scorer, going = held(kit)
    app = make_client(scorer).app
    protocol, wire = connect(app, lean=True)
    bad = post(b"{}", b"Idempotency-Key: a b")
    protocol.data_received(post() + 400 * bad + post(BODY % 1))
    await soon(lambda: wire.paused)
    going.set()
    await soon(lambda: wire.sent.count(b"HTTP/1.1 ") >= 402)
    assert [status for status, _, _ in parsed(wire.sent)] == [200, *(400 * [400]), 200]
    assert not wire.paused
    assert app.runtime.in_flight == app.runtime.reading == 0


async def test_what_waits_behind_a_client_that_went_away_is_forgotten(make_client: Any, kit: Any) -> None:
    scorer, going = held(kit)
    app = make_client(scorer).app
    protocol, wire = connect(app, lean=True)
    protocol.data_received(post() + post(BODY % 1))
    await soon(lambda: bool(scorer.rows))
    wire.closing = True
    protocol.connection_lost(ConnectionResetError())
    going.set()
    await soon(lambda: not app.runtime.in_flight)
    assert (len(scorer.rows), wire.sent, app.runtime.reading) == (1, b"", 0)


async def test_a_slow_body_is_given_up(make_client: Any, kit: Any) -> None:
    app = make_client(kit.ScriptedScorer(0.9), body_timeout_s=0.05).app
    protocol, wire = connect(app, lean=True)
    whole = post()
    protocol.data_received(whole[:-10])
    protocol.data_received(whole[-10:-5])
    assert app.runtime.in_flight == 1
    await until(wire, 1)
    [(status, _, body)] = parsed(wire.sent)
    assert (status, json.loads(body)["code"]) == (400, "invalid_request")
    assert "did not come" in json.loads(body)["detail"]
    assert app.runtime.in_flight == app.runtime.reading == 0


@pytest.mark.parametrize("at", ["body", "scoring"])
async def test_a_client_that_goes_away_leaves_nothing(make_client: Any, kit: Any, at: str) -> None:
    scorer, going = held(kit)
    app = make_client(scorer).app
    protocol, wire = connect(app, lean=True)
    protocol.data_received(post() if at == "scoring" else post()[:-1])
    await soon(lambda: at == "body" or bool(scorer.rows))
    assert app.runtime.in_flight == 1
    protocol.connection_lost(None)
    going.set()
    await soon(lambda: not app.runtime.in_flight)
    assert wire.sent == b""
    assert len(scorer.rows) == (at == "scoring")


async def test_a_defect_is_answered_and_the_connection_goes_on(
    make_client: Any, kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_client(kit.ScriptedScorer(0.9)).app

    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    protocol, wire = connect(app, lean=True)
    with monkeypatch.context() as patch:
        patch.setattr(app.runtime.service, "diagnose", broken)
        protocol.data_received(post())
        await until(wire, 1)
    protocol.data_received(post())
    await until(wire, 2)
    assert [status for status, _, _ in parsed(wire.sent)] == [500, 200]
    assert app.runtime.in_flight == app.runtime.reading == 0


async def test_a_quiet_connection_is_closed_and_a_busy_one_is_not(make_client: Any, kit: Any) -> None:
    app = make_client(kit.ScriptedScorer(0.9)).app
    protocol, wire = connect(app, lean=True)
    protocol.timeout_keep_alive = 0.05  # type: ignore[assignment]
    for number in range(8):
        protocol.data_received(post())
        await until(wire, number + 1)
        assert not wire.closing
    await soon(lambda: wire.closing)


async def test_a_server_that_stops_lets_a_request_end(make_client: Any, kit: Any) -> None:
    scorer, going = held(kit)
    app = make_client(scorer).app
    quiet, idle = connect(app, lean=True)
    quiet.shutdown()
    assert idle.closing
    protocol, wire = connect(app, lean=True)
    protocol.data_received(post())
    protocol.shutdown()
    assert not wire.closing
    going.set()
    await until(wire, 1)
    [(status, headers, _)] = parsed(wire.sent)
    assert (status, headers[b"connection"], wire.closing) == (200, b"close", True)


async def test_a_slow_body_behind_another_request_is_given_up_too(make_client: Any, kit: Any) -> None:
    app = make_client(kit.ScriptedScorer(0.9), body_timeout_s=0.05).app
    protocol, wire = connect(app, lean=True)
    protocol.data_received(post() + post()[:-10])
    await until(wire, 2)
    assert [status for status, _, _ in parsed(wire.sent)] == [200, 400]
    assert app.runtime.in_flight == app.runtime.reading == 0


async def test_an_upgrade_behind_a_request_in_work_decides_nothing_twice(make_client: Any, kit: Any) -> None:
    scorer, going = held(kit)
    app = make_client(scorer).app
    protocol, wire = connect(app, lean=True)
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
    protocol.data_received(post() + b"GET /v1/stream HTTP/1.1\r\nHost: x\r\n" + upgrade)
    assert wire.closing
    await soon(lambda: bool(scorer.rows))
    protocol.connection_lost(None)
    going.set()
    await soon(lambda: not app.runtime.in_flight)
    assert app.runtime.reading == 0
    assert len(scorer.rows) == 1
    assert wire.sent == b""


def is_paused(wire: Wire) -> bool:
    return wire.paused


async def test_who_does_not_read_is_not_read(make_client: Any, kit: Any) -> None:
    app = make_client(kit.ScriptedScorer(0.9)).app
    protocol, wire = connect(app, lean=True)
    protocol.pause_writing()
    assert is_paused(wire)
    protocol.data_received(post())
    await soon(lambda: bool(app.runtime.in_flight))
    # nothing that is answered meanwhile opens it again
    protocol.on_response_complete()
    assert is_paused(wire)
    protocol.resume_writing()
    assert not is_paused(wire)
    await until(wire, 1)


async def test_a_body_that_waits_its_turn_is_bounded(make_client: Any, kit: Any) -> None:
    scorer, going = held(kit)
    app = make_client(scorer).app
    protocol, wire = connect(app, lean=True)
    head = b"POST /diagnose HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    protocol.data_received(post() + head)
    waiting: Any = protocol.cycle
    for _ in range(300):
        protocol.data_received(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
    assert len(waiting.body) <= 2**20 + 0x4000
    going.set()
    await until(wire, 2)
    assert [status for status, _, _ in parsed(wire.sent)] == [200, 413]
    assert app.runtime.in_flight == app.runtime.reading == 0


async def test_an_answered_request_keeps_no_body(make_client: Any, kit: Any) -> None:
    app = make_client(kit.ScriptedScorer(0.9)).app
    protocol, wire = connect(app, lean=True)
    whole = post()
    protocol.data_received(whole[:-10])
    exchange: Any = protocol.cycle
    protocol.data_received(whole[-10:])
    await until(wire, 1)
    assert exchange.body == b""
