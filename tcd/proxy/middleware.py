"""ASGI middleware before an OpenAI-compatible server: marks untrusted text in requests, has answers diagnosed.

In shadow mode requests and answers keep every byte. Every other path, method and protocol passes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from tcd.background import Tasks
from tcd.errors import TcdError
from tcd.proxy import bodies
from tcd.proxy.enforce import Enforce
from tcd.proxy.headers import BOUNDARIES, rewritten_headers, value
from tcd.proxy.metrics import ProxyMetrics
from tcd.proxy.monitor import Monitor
from tcd.proxy.problems import answer
from tcd.proxy.requests import Disconnected, Incoming, Receive, Scope, Send, check_length, request_id
from tcd.proxy.rewriting import Arrived, Done, Rewriting
from tcd.proxy.watch import Watched, Watching
from tcd.spotlight.policy import BodyFormat

#: Routes that are rewritten, and what their bodies are.
ROUTES: Final[Mapping[str, BodyFormat]] = MappingProxyType(
    {"/v1/chat/completions": "openai_chat", "/v1/completions": "openai_prompt"}
)
_SERVER_ERROR: Final = 500
_LOG: Final = logging.getLogger(__name__)
Application = Callable[[Scope, Receive, Send], Any]


class Defect(TcdError):
    """A defect of the proxy; the log has the rest."""

    def __init__(self) -> None:
        """Say no more than that."""
        super().__init__("the proxy failed on this request; its log has the request id")


@dataclass(frozen=True, slots=True)
class Options:
    """What holds for every request.

    Attributes:
        tenant: of requests that name none.
        tenant_header: field whose value is the tenant; set it only where clients cannot.
        max_body: bytes of a body to a rewritten route at most.
        body_seconds: within which each part of a body has to come.
        routes: path to body format.
    """

    tenant: str = "tenant0"
    tenant_header: str | None = None
    max_body: int = 64 << 20
    body_seconds: float = 60.0
    routes: Mapping[str, BodyFormat] = field(default_factory=lambda: ROUTES)


class ProxyMiddleware:
    """Wraps an ASGI application; `await close()` in the end judges what is still open."""

    def __init__(
        self,
        app: Application,
        *,
        rewriting: Rewriting,
        metrics: ProxyMetrics,
        watching: Watching | None = None,
        options: Options | None = None,
    ) -> None:
        """Stand before `app`.

        Args:
            app: an ASGI application.
            rewriting: what is done to requests.
            metrics: where it is counted.
            watching: how answers are diagnosed; None diagnoses nothing.
            options: the rest.
        """
        self._app = app
        self._rewriting = rewriting
        self._metrics = metrics
        self._watching = watching
        self._options = options or Options()
        self._header = None if self._options.tenant_header is None else self._options.tenant_header.lower().encode()
        self._background = Tasks("judging an answer")

    async def close(self, *, seconds: float = 5.0) -> None:
        """Wait for what is still being judged."""
        await self._background.drain(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        route = scope["path"].rstrip("/") if scope["type"] == "http" and scope["method"] == "POST" else ""
        body_format = self._options.routes.get(route)
        if body_format is None:
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            outcome = await self._handle(scope, receive, sending, body_format)
        except TcdError as error:
            outcome = "failed" if error.http_status >= _SERVER_ERROR else "refused"
            if started:
                raise
            await answer(send, error, request_id(scope))
        except Disconnected:
            outcome = "disconnected"
        except Exception:
            outcome = "failed"
            if started:
                raise
            _LOG.exception("request %s failed", request_id(scope))
            await answer(send, Defect(), request_id(scope))
        self._metrics.request(route, outcome)

    async def _handle(self, scope: Scope, receive: Receive, send: Send, body_format: BodyFormat) -> str:
        check_length(scope, self._options.max_body)
        incoming = Incoming(receive, limit=self._options.max_body, seconds=self._options.body_seconds)
        await incoming.read(self._rewriting.policies.longest)
        wanted = bodies.read(incoming.body) if incoming.whole else bodies.Wanted()
        subject = self._subject(scope, wanted)
        done = await self._rewriting.run(
            Arrived(incoming.body, incoming.whole, scope["headers"], body_format, subject, request_id(scope))
        )
        if done.refusal is not None:
            raise done.refusal
        changed = done.outcome.body_rewritten and not done.shadow
        if changed:
            incoming.replace(done.outcome.body)
        if not done.shadow:
            scope = {**scope, "headers": self._active_headers(scope, len(done.outcome.body) if changed else None)}
        await self._forward(scope, incoming, send, done, subject, wanted)
        return "rewritten" if changed else "forwarded"

    def _subject(self, scope: Scope, wanted: bodies.Wanted) -> dict[str, str]:
        options = self._options
        given = None if self._header is None else value(scope["headers"], self._header)
        return {
            "tenant": options.tenant if given is None else bodies.name(given.decode("latin-1"), options.tenant),
            "user": bodies.name(wanted.user, "user0"),
            "model_id": bodies.name(wanted.model, "model0"),
        }

    def _active_headers(self, scope: Scope, length: int | None) -> list[tuple[bytes, bytes]]:
        headers = [(name, v) for name, v in scope["headers"] if name not in BOUNDARIES]
        return headers if length is None else rewritten_headers(headers, length)

    async def _forward(
        self,
        scope: Scope,
        incoming: Incoming,
        send: Send,
        done: Done,
        subject: Mapping[str, str],
        wanted: bodies.Wanted,
    ) -> None:
        watching = self._watching
        if watching is None:
            await self._app(scope, incoming.receive, _saying(send, [] if done.shadow else [done.header()]))
            return
        session = f"px-{os.urandom(12).hex()}"
        # the receipts of the generation bind what was done to its request
        members = {**subject, "context": {**bodies.context(wanted), "rewrite": done.outcome.digest}}
        watched = Watched(watching, session, members, metrics=self._metrics, expected=bodies.choices(wanted))
        quiet = done.shadow and not watching.enforce
        said = [] if quiet else [done.header(), (b"x-tcd-session", session.encode())]
        sending = _saying(send, said)
        with self._metrics.open.track_inprogress():
            if watching.enforce:
                # what is held back and cut has to be readable
                headers = [(name, v) for name, v in scope["headers"] if name != b"accept-encoding"]
                scope = {**scope, "headers": [*headers, (b"accept-encoding", b"identity")]}
                enforce = Enforce(
                    watched,
                    sending,
                    on_failure=done.resolved.on_failure,
                    stop=incoming.stop,
                    request_id=request_id(scope),
                )
                await self._app(scope, incoming.receive, enforce)
                return
            monitor = Monitor(watched, sending, self._background)
            try:
                await self._app(scope, incoming.receive, monitor)
            finally:
                monitor.finish()


def _saying(send: Send, headers: list[tuple[bytes, bytes]]) -> Send:
    """`send` with headers added to the answer; `send` itself when there are none."""
    if not headers:
        return send

    async def saying(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *headers]}
        await send(message)

    return saying
