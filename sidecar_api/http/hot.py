"""The hot routes as raw ASGI: /diagnose and /verify, one decode, one encode, no framework in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final

import msgspec

from sidecar_api import entry
from sidecar_api.decode import MAX_DIAGNOSE, MAX_VERIFY, check_content_type, decode_diagnose, decode_verify
from sidecar_api.http.body import Disconnected, check_length, read_body
from sidecar_api.http.context import Header, RequestContext, Scope, quota_headers, timing_header
from sidecar_api.http.problems import InternalError, MethodNotAllowed, problem
from sidecar_api.http.runtime import Runtime
from sidecar_api.outcome import Answer
from tcd.errors import TcdError, ValidationFailed

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
JSON: Final = b"application/json"
_LOG: Final = logging.getLogger(__name__)
_encode: Final = msgspec.json.Encoder().encode


async def respond(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    """Send a whole answer."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, error: TcdError, context: RequestContext, runtime: Runtime, surface: str) -> None:
    """Send an error as a problem and count it."""
    status, headers, body = problem(error, context)
    await respond(send, status, headers, body)
    entry.count_refused(runtime, error, surface)


class HotRoute:
    """Common to the hot routes: limits, errors, the body."""

    limit: int
    surface = "http"

    def __init__(self, runtime: Runtime) -> None:
        """Serve from `runtime`."""
        self.runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        runtime = self.runtime
        context = RequestContext.of(scope, config_hash=runtime.config_hash)
        try:
            self._admit(scope)
            runtime.in_flight += 1
            try:
                body = await self._body(context, receive)
                await self.answer(context, body, send)
            finally:
                runtime.in_flight -= 1
        except TcdError as error:
            await refuse(send, error, context, runtime, self.surface)
        except Disconnected:
            runtime.exporter.request(surface=self.surface, outcome="disconnected")
        except Exception:  # noqa: BLE001 - the boundary: a defect is logged with its request id and answered
            _LOG.exception("request %s failed", context.request_id)
            await refuse(send, InternalError(), context, runtime, self.surface)

    def _admit(self, scope: Scope) -> None:
        if scope["method"] != "POST":
            allowed = "POST"
            raise MethodNotAllowed(allowed)
        entry.check_room(self.runtime)

    def check(self, context: RequestContext) -> None:
        """Charge the client's address, and refuse by the headers alone.

        Raises:
            EdgeQuotaExceeded: its bucket is empty.
            InvalidRequest, TooLarge: a header is malformed, or announces what is not read here.
        """
        entry.charge_edge(self.runtime, context.client)
        headers = context.headers
        context.check()
        check_length(headers.get(b"content-length"), self.limit)
        check_content_type(headers.get(b"content-type"), headers.get(b"content-encoding"))

    async def _body(self, context: RequestContext, receive: Receive) -> bytes:
        self.check(context)
        self.runtime.reading += 1
        try:
            return await read_body(receive, self.limit, timeout=self.runtime.settings.body_timeout_s)
        finally:
            self.runtime.reading -= 1

    async def answer(self, context: RequestContext, body: bytes, send: Send) -> None:
        """Answer a body."""
        raise NotImplementedError


class Diagnose(HotRoute):
    """POST /diagnose."""

    limit = MAX_DIAGNOSE

    async def decided(self, context: RequestContext, body: bytes) -> Answer:
        """The decision about a body; its headers are in the context then.

        Raises:
            TcdError: it cannot be read, or see `Service.diagnose`.
        """
        runtime, settings = self.runtime, self.runtime.settings
        # uvloop's clock has milliseconds: enough for deadlines, not for timings
        began, now = perf_counter(), asyncio.get_running_loop().time()
        request, sanitized = decode_diagnose(body, sanitize=settings.sanitize == "zero")
        arrival = entry.Arrival(context, self.surface, began=began, now=now)
        answer = await entry.decide(runtime, arrival, request, sanitized)
        if answer.quota is not None:
            context.extra.extend(quota_headers(answer.quota))
        context.extra.append(timing_header(answer.stages))
        return answer

    async def answer(self, context: RequestContext, body: bytes, send: Send) -> None:
        """See `HotRoute.answer`."""
        answer = await self.decided(context, body)
        await respond(send, 200, context.answer_headers(JSON, len(answer.body)), answer.body)
        entry.count_answered(self.runtime, answer, self.surface, context)


class Verify(HotRoute):
    """POST /verify."""

    limit = MAX_VERIFY
    surface = "verify"

    async def answer(self, context: RequestContext, body: bytes, send: Send) -> None:
        """See `HotRoute.answer`."""
        runtime = self.runtime
        if runtime.verifier is None:
            msg = "receipts are switched off: there is no pinned key"
            raise ValidationFailed(msg)
        verified = await runtime.verifier.verify(decode_verify(body), len(body))
        out = _encode(verified.to_json())
        await respond(send, 200, context.answer_headers(JSON, len(out)), out)
        runtime.exporter.request(surface=self.surface, outcome="ok")
        runtime.exporter.verified(code=verified.report.code)
