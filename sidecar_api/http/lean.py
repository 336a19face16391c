"""POST /diagnose without ASGI: uvicorn's connection and parser, one task per request, one write per answer.

ASGI costs a server more than it costs an app: uvicorn checks and copies each header of an answer, makes an event, a
scope and a message per request, and arms a timer after each. Whatever is no plain POST /diagnose (an upgrade, `Expect`,
`X-Forwarded-*`, HTTP/1.0, a connection that ends with the answer) goes uvicorn's way, through the same app.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from sidecar_api import entry
from sidecar_api.http.context import Header, RequestContext
from sidecar_api.http.hot import JSON, Diagnose
from sidecar_api.http.problems import InternalError, problem
from sidecar_api.http.runtime import Runtime
from tcd import deadlines
from tcd.errors import InvalidRequest, TcdError, TooLarge

_LOG: Final = logging.getLogger(__name__)
_URLS: Final = frozenset({b"/diagnose", b"/v1/diagnose"})
#: What only uvicorn knows how to answer, or who the client is then.
_UVICORNS: Final = frozenset({b"expect", b"upgrade", b"x-forwarded-for", b"x-forwarded-proto"})
#: Of an answer; its other headers follow.
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nx-request-id: %b\r\n"
    b"x-tcd-config-hash: %b\r\ntraceparent: %b\r\n"
)
_CLOSE: Final = (b"connection", b"close")


class _Nobody:
    """Takes the place of the event that uvicorn sets when a client goes away."""

    def set(self) -> None:
        """Nobody waits."""


class Exchange:
    """One POST /diagnose on its way; has what uvicorn's connection looks at in a cycle of its own.

    Attributes:
        context: of the request.
        body: what came of it; `whole` when that is all.
        begun: whether it has a place in work.
        disconnected: nobody reads the answer.
        response_complete: it was answered.
        keep_alive: whether the connection goes on after it.
        watched: whether its body has a deadline.
    """

    __slots__ = (
        *("begun", "body", "connection", "context", "disconnected", "keep_alive", "response_complete", "watched"),
        "whole",
    )
    message_event: Final = _Nobody()

    def __init__(self, connection: LeanProtocol, context: RequestContext) -> None:
        """The headers are here."""
        self.connection = connection
        self.context = context
        self.body: bytes | bytearray = b""
        self.whole = False
        self.begun = False
        self.disconnected = False
        self.response_complete = False
        self.keep_alive = True
        self.watched = False

    def expire(self) -> None:
        """See `tcd.deadlines.Expiring`: the body had its time."""
        if self.begun and not (self.whole or self.response_complete or self.disconnected):
            self.connection.too_slow(self)


class LeanProtocol(HttpToolsProtocol):
    """A connection of `tcd serve`."""

    #: An `Exchange`, or uvicorn's own cycle.
    cycle: Any

    def __init__(
        self, runtime: Runtime, *, config: Config, server_state: ServerState, app_state: dict[str, Any]
    ) -> None:
        """Answer /diagnose from `runtime`, everything else by the config's app."""
        super().__init__(config=config, server_state=server_state, app_state=app_state)
        self._runtime = runtime
        self._route = Diagnose(runtime)
        self._peer = "local"
        self._quiet_since = 0.0

    # -- the connection ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if self.client:
            self._peer = str(self.client[0])

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        super().connection_lost(exc)
        self.pipeline.clear()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        exchange = self.cycle
        if type(exchange) is Exchange and exchange.begun and not exchange.whole and not exchange.response_complete:
            self._end(exchange)
            self._runtime.exporter.request(surface=self._route.surface, outcome="disconnected")

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        exchange = self.cycle
        if type(exchange) is Exchange and exchange.begun and not exchange.whole and not exchange.response_complete:
            self._watch(exchange)

    def _watch(self, exchange: Exchange) -> None:
        """Its body has so much time; each piece begins no new one."""
        if exchange.watched:
            return
        exchange.watched = True
        due = self.loop.time() + self._runtime.settings.body_timeout_s
        deadlines.of(self.loop).watch(due, exchange)

    def handle_websocket_upgrade(self) -> None:
        """Behind a request that waits for its answer, which must not be written into a WebSocket, there is none."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
            return
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        """The client does not read: nor is read what it sends, which would be answered too."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if not self.pipeline:
            self.flow.resume_reading()

    def _unset_keepalive_if_required(self) -> None:
        # one timer per connection, which looks when it was quiet last, instead of one per request
        self._quiet_since = 0.0

    def timeout_keep_alive_handler(self) -> None:
        """The connection may have been quiet for long enough."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        left: float = self.timeout_keep_alive
        if self._quiet_since:
            left -= self.loop.time() - self._quiet_since
            if left <= 0:
                self.transport.close()
                return
        self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)

    def on_response_complete(self) -> None:
        """A request was answered."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if not self.flow.write_paused:
            self.flow.resume_reading()
        if self.pipeline:
            # not at once: a thousand that are refused one after the other would be as many calls within each other
            self.loop.call_soon(self._next)
            return
        self._quiet_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _next(self) -> None:
        if self.pipeline and not self.transport.is_closing():
            self._start_asgi_task(*self.pipeline.pop())

    # -- the parser's calls --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins; its scope is made only where one is needed."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_headers_complete(self) -> None:
        """Its headers are here."""
        headers, parser = self.headers, self.parser
        if (
            self.url not in _URLS
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or not _UVICORNS.isdisjoint([name for name, _ in headers])
        ):
            self._usual()
            return
        waits = self.cycle is not None and not self.cycle.response_complete
        exchange = Exchange(self, RequestContext.read(headers, self._peer, config_hash=self._runtime.config_hash))
        self.cycle = exchange
        if waits:
            # pipelined: one after the other
            self.flow.pause_reading()
            self.pipeline.appendleft((exchange, self.app))  # type: ignore[arg-type]
        else:
            self._begin(exchange)

    def _usual(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        exchange = self.cycle
        if type(exchange) is not Exchange:
            super().on_body(body)
            return
        # whole: an upgrade after it has no cycle of its own; over the limit, while it waits its turn: enough is known
        if exchange.response_complete or exchange.whole or len(exchange.body) > self._route.limit:
            return
        if not exchange.body:
            exchange.body = body
        else:
            if type(exchange.body) is bytes:
                # a body of a million pieces must not be copied as often
                exchange.body = bytearray(exchange.body)
            exchange.body += body
        if len(exchange.body) > self._route.limit and exchange.begun:
            self._too_large(exchange)

    def on_message_complete(self) -> None:
        """The request is whole."""
        exchange = self.cycle
        if type(exchange) is not Exchange:
            super().on_message_complete()
            return
        if exchange.whole:
            return
        exchange.whole = True
        if exchange.begun and not exchange.response_complete:
            self._launch(exchange)

    # -- an exchange ---------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle | Exchange, app: Any) -> None:
        if type(cycle) is Exchange:
            self._begin(cycle)
            if cycle.begun and not cycle.whole:
                self._watch(cycle)
            return
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]

    def _begin(self, exchange: Exchange) -> None:
        """Admit it; refused by its headers alone, its body is not waited for."""
        runtime, route = self._runtime, self._route
        try:
            entry.check_room(runtime)
            route.check(exchange.context)
        except TcdError as error:
            self._refuse(exchange, error)
            return
        exchange.begun = True
        runtime.in_flight += 1
        runtime.reading += 1
        # a pipelined one may be here already
        if len(exchange.body) > route.limit:
            self._too_large(exchange)
        elif exchange.whole:
            self._launch(exchange)

    def _launch(self, exchange: Exchange) -> None:
        self._runtime.reading -= 1
        task = self.loop.create_task(self._answer(exchange))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, exchange: Exchange) -> None:
        runtime, route, context = self._runtime, self._route, exchange.context
        try:
            # whoever watches over the exchange keeps it for a while, but not its body
            body, exchange.body = bytes(exchange.body), b""
            answer = await route.decided(context, body)
            if self.flow.write_paused and not exchange.disconnected:
                await self.flow.drain()
            self._write_answer(exchange, answer.body)
            entry.count_answered(runtime, answer, route.surface, context)
        except TcdError as error:
            self._refuse(exchange, error)
        except asyncio.CancelledError:
            self.transport.close()
            raise
        except Exception:  # noqa: BLE001 - the boundary: a defect is logged with its request id and answered
            _LOG.exception("request %s failed", context.request_id)
            self._refuse(exchange, InternalError())
        finally:
            runtime.in_flight -= 1

    def _end(self, exchange: Exchange) -> None:
        """It leaves its place without having been decided."""
        exchange.begun = False
        exchange.body = b""
        self._runtime.in_flight -= 1
        self._runtime.reading -= 1

    def too_slow(self, exchange: Exchange) -> None:
        """The body did not come in time."""
        self._end(exchange)
        msg = f"the body did not come within {self._runtime.settings.body_timeout_s:g} s"
        self._refuse(exchange, InvalidRequest(msg))

    def _too_large(self, exchange: Exchange) -> None:
        self._end(exchange)
        msg = f"the body is over {self._route.limit} bytes"
        self._refuse(exchange, TooLarge(msg))

    def _refuse(self, exchange: Exchange, error: TcdError) -> None:
        if not exchange.response_complete:
            status, headers, body = problem(error, exchange.context)
            self._write(exchange, status, headers, body)
        entry.count_refused(self._runtime, error, self._route.surface)

    def _write_answer(self, exchange: Exchange, body: bytes) -> None:
        """As `_write`, of what nearly every answer is."""
        context = exchange.context
        if exchange.disconnected or not exchange.keep_alive or self.transport.is_closing():
            self._write(exchange, 200, context.answer_headers(JSON, len(body)), body)
            return
        defaults = self.server_state.default_headers
        lines = [b"%b: %b\r\n" % header for header in (*defaults, *context.extra)]
        traced = f"00-{context.trace_id}-{context.span_id}-{context.flags}".encode()
        named = (len(body), context.request_id.encode(), context.config_hash, traced)
        self.transport.write(b"".join((_HEAD % named, *lines, b"\r\n", body)))
        exchange.response_complete = True
        self.on_response_complete()

    def _write(self, exchange: Exchange, status: int, headers: list[Header], body: bytes) -> None:
        """The whole answer; headers are made of what was checked before, so that none can hold the end of a line."""
        if exchange.disconnected or self.transport.is_closing():
            return
        if not exchange.keep_alive:
            headers = [*headers, _CLOSE]
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)]
        self.transport.write(b"".join((STATUS_LINE[status], *lines, b"\r\n", body)))
        exchange.response_complete = True
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()
