"""The ASGI app: hot paths go straight to their handlers, the rest through FastAPI."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from fastapi import FastAPI

from sidecar_api import entry
from sidecar_api.http.batch import Batch
from sidecar_api.http.callers import Reserve, Settle
from sidecar_api.http.cold import router
from sidecar_api.http.context import RequestContext, Scope
from sidecar_api.http.handlers import handle_errors
from sidecar_api.http.hot import Diagnose, Receive, Send, Verify, refuse
from sidecar_api.http.problems import InternalError
from sidecar_api.http.rewrite import Rewrite
from sidecar_api.http.runtime import Runtime
from sidecar_api.stream import Stream
from tcd import __version__
from tcd.errors import InvalidRequest, QuotaExceeded

_LOG: Final = logging.getLogger(__name__)
Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


class ShimApp(FastAPI):
    """FastAPI with a short cut for the hot paths and one envelope around all answers."""

    def __init__(self, runtime: Runtime, *, lifespan: Lifespan) -> None:
        """Make the app over `runtime`."""
        super().__init__(
            title="tcd",
            version=__version__,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            lifespan=lifespan,
        )
        self.runtime = runtime
        diagnose, verify = Diagnose(runtime), Verify(runtime)
        self._hot: dict[str, Callable[[Scope, Receive, Send], Awaitable[None]]] = {
            "/diagnose": diagnose,
            "/v1/diagnose": diagnose,
            "/verify": verify,
            "/v1/verify": verify,
            "/v1/rewrite": Rewrite(runtime),
            "/v1/reserve": Reserve(runtime, runtime.callers),
            "/v1/settle": Settle(runtime, runtime.callers),
            "/v1/diagnose:batch": Batch(runtime),
        }
        self._stream = Stream(runtime)
        self.include_router(router(runtime))
        handle_errors(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
            return
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        hot = self._hot.get(scope["path"])
        if hot is not None:
            await hot(scope, receive, send)
            return
        await self._cold(scope, receive, send)

    async def _cold(self, scope: Scope, receive: Receive, send: Send) -> None:
        runtime = self.runtime
        context = RequestContext.of(scope, config_hash=runtime.config_hash)
        scope["tcd"] = context
        started = False

        async def wrapped(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = context.completed(message)
                outcome = "ok" if message["status"] < 400 else str(message["status"])  # noqa: PLR2004
                runtime.exporter.request(surface="http_cold", outcome=outcome)
            await send(message)

        try:
            context.check()
            entry.charge_edge(runtime, context.client)
            await super().__call__(scope, receive, wrapped)
        except (InvalidRequest, QuotaExceeded) as error:
            await refuse(send, error, context, runtime, "http_cold")
        except Exception:  # noqa: BLE001 - the boundary: a defect is logged with its request id and answered
            _LOG.exception("request %s failed", context.request_id)
            if not started:
                await refuse(send, InternalError(), context, runtime, "http_cold")
