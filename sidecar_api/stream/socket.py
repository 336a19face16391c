"""WebSocket `/v1/stream`: the subject is fixed at open, then one message per step, answered in order.

A message is a request of /diagnose without the subject; its answer is the decision, or a problem (which has
`status` and `code`), and a problem does not end the stream.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from sidecar_api import entry
from sidecar_api.decode import MAX_DIAGNOSE, decode_step, opening_of
from sidecar_api.http.context import RequestContext, Scope, session_header
from sidecar_api.http.problems import InternalError, problem_of
from sidecar_api.http.runtime import Runtime
from sidecar_api.schemas import Opening
from tcd.errors import InvalidRequest, NotFound, TcdError, TooLarge, Unavailable, ValidationFailed

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
_PATHS: Final = ("/v1/stream",)
_GOING_AWAY: Final = 1012
_encode: Final = msgspec.json.Encoder().encode
_LOG: Final = logging.getLogger(__name__)


class Stream:
    """The WebSocket surface."""

    surface = "ws"

    def __init__(self, runtime: Runtime) -> None:
        """Serve from `runtime`."""
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        runtime = self._runtime
        context = RequestContext.of(scope, config_hash=runtime.config_hash)
        message = await receive()
        if message["type"] != "websocket.connect":
            return
        try:
            opening = self._open(scope, context)
        except TcdError as error:
            await _deny(send, scope, error, context)
            entry.count_refused(runtime, error, self.surface)
            return
        headers = [h for h in context.answer_headers(b"", 0) if not h[0].startswith(b"content-")]
        await send({"type": "websocket.accept", "headers": [*headers, session_header(opening.session)]})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            if runtime.service.draining:
                await send({"type": "websocket.close", "code": _GOING_AWAY, "reason": "the server is stopping"})
                return
            await self._message(context, opening, message, send)

    def _open(self, scope: Scope, context: RequestContext) -> Opening:
        runtime = self._runtime
        if scope["path"] not in _PATHS:
            msg = "no such path"
            raise NotFound(msg)
        context.check()
        context.deadline_ms()
        entry.charge_edge(runtime, context.client)
        if runtime.service.draining:
            msg = "the server is stopping"
            raise Unavailable(msg, retry_after=1.0)
        return _opening(scope.get("query_string", b""))

    async def _message(self, context: RequestContext, opening: Opening, message: Any, send: Send) -> None:
        runtime, own = self._runtime, entry.one_of_many(context)
        began, now = perf_counter(), asyncio.get_running_loop().time()
        try:
            with entry.room(runtime):
                entry.charge_edge(runtime, context.client)
                request, sanitized = decode_step(_body(message), opening, sanitize=runtime.settings.sanitize == "zero")
                arrival = entry.Arrival(own, self.surface, began=began, now=now)
                answer = await entry.decide(runtime, arrival, request, sanitized)
        except TcdError as error:
            await self._refuse(error, own, send)
        except Exception:  # noqa: BLE001 - the boundary: a defect is logged with its request id and answered
            _LOG.exception("request %s failed", own.request_id)
            await self._refuse(InternalError(), own, send)
        else:
            await send({"type": "websocket.send", "text": answer.body.decode()})
            entry.count_answered(runtime, answer, self.surface, own)

    async def _refuse(self, error: TcdError, context: RequestContext, send: Send) -> None:
        text = _encode(problem_of(error, context.request_id)).decode()
        await send({"type": "websocket.send", "text": text})
        entry.count_refused(self._runtime, error, self.surface)


def _opening(query: bytes) -> Opening:
    """The subject, from the query string.

    Raises:
        InvalidRequest: it cannot be read.
        ValidationFailed: a name is unknown, twice there or out of its limits.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(query),
            errors="strict",
            max_num_fields=16,
        )
    except ValueError:
        msg = "the query string cannot be read"
        raise InvalidRequest(msg) from None
    values = dict(pairs)
    if len(values) != len(pairs):
        msg = "a name is there twice in the query string"
        raise ValidationFailed(msg, pointer="")
    return opening_of(values)


def _body(message: Any) -> bytes:
    text = message.get("text")
    if text is None:
        msg = "messages are text"
        raise InvalidRequest(msg)
    body = bytes(text.encode("utf-8", "surrogatepass"))
    if len(body) > MAX_DIAGNOSE:
        msg = f"the message is over {MAX_DIAGNOSE} bytes"
        raise TooLarge(msg)
    return body


async def _deny(send: Send, scope: Scope, error: TcdError, context: RequestContext) -> None:
    """Refuse the handshake: with a problem where the server can carry one, else by closing."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    body = _encode(problem_of(error, context.request_id))
    headers = context.answer_headers(b"application/problem+json", len(body))
    await send({"type": "websocket.http.response.start", "status": error.http_status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
