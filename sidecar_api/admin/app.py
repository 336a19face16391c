"""`create_admin`: the admin plane's ASGI app.

Hosts that it does not know and long bodies are refused; an app with a route that requires nothing is not made.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import BaseRoute

from sidecar_api.admin.dashboard import routes as dashboard
from sidecar_api.admin.dashboard.browsers import Browsers
from sidecar_api.admin.dashboard.gates import Open, Viewing
from sidecar_api.admin.dashboard.pages import Pages
from sidecar_api.admin.dashboard.rendering import BASE as PAGES
from sidecar_api.admin.dashboard.rendering import Renderer
from sidecar_api.admin.plane import Plane, Requires
from sidecar_api.admin.routes import Enrolment, Outside, router
from sidecar_api.http.body import Disconnected, check_length, read_body
from sidecar_api.http.context import RequestContext, Scope
from sidecar_api.http.handlers import handle_errors
from sidecar_api.http.problems import InternalError, problem
from tcd import __version__
from tcd.errors import ConfigError, InvalidRequest, TcdError

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
MOST: Final = 1 << 20
_BODY_SECONDS: Final = 10.0
_SAFE: Final = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
]
#: What a route may require.
Gate = Requires | Enrolment | Viewing | Open
_LOG: Final = logging.getLogger(__name__)


def served(routes: Iterable[BaseRoute]) -> dict[tuple[str, str], tuple[APIRoute, Gate]]:
    """Routes and what each one requires, by method and path.

    Raises:
        ConfigError: one requires nothing, or two things, or two people without a scope.
    """
    found: dict[tuple[str, str], tuple[APIRoute, Gate]] = {}
    for route in routes:
        if not isinstance(route, APIRoute):
            msg = f"{route!r} is no route of the admin plane"
            raise ConfigError(msg)
        calls = [d.call for d in route.dependant.dependencies if isinstance(d.call, Gate)]
        if len(calls) != 1 or (isinstance(calls[0], Requires) and calls[0].pair and calls[0].scope is None):
            msg = f"{route.path} does not say what it requires"
            raise ConfigError(msg)
        for method in route.methods or ():
            found[method, route.path] = route, calls[0]
    return found


def requirements(app: FastAPI) -> dict[tuple[str, str], Gate]:
    """What each route of an app requires, by method and path.

    Raises:
        ConfigError: as in `served`.
    """
    return {key: gate for key, (_, gate) in served(app.routes).items()}


class AdminApp(FastAPI):
    """FastAPI in an envelope: host, rate of the address, size of the body, headers, problems."""

    def __init__(self, plane: Plane, outside: Outside, *, hosts: Collection[str]) -> None:
        """Serve `plane` under the authorities `hosts`."""
        super().__init__(
            title="tcd admin",
            version=__version__,
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        self.state.plane = plane
        self._plane = plane
        self.hosts = {host.lower() for host in hosts}
        # not as an included router: what is enumerated has to be what is served
        self.router.routes.extend(router(plane, outside).routes)
        self.state.browsers = Browsers(random=plane.random, now=plane.now)
        self.pages: Pages | None = None
        if outside.dashboard is not None:
            renderer = Renderer()
            self.pages = self.state.pages = Pages(plane, outside.dashboard, renderer)
            self.router.routes.extend(dashboard.router(plane, self.pages, renderer).routes)
        handle_errors(self)
        requirements(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1003})
            return
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        context = scope["tcd"] = RequestContext.of(scope, config_hash=b"-")
        context.extra.extend(_SAFE)
        started = False

        async def wrapped(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = context.completed(message)
            await send(message)

        try:
            body = await self._checked(scope, context, receive)
            await super().__call__(scope, _replayed(body, receive), wrapped)
        except Disconnected:
            return
        except TcdError as error:
            await self._refuse(scope, receive, wrapped, error)
        except Exception:  # noqa: BLE001 - the boundary: a defect is logged with its request id and answered
            _LOG.exception("request %s failed", context.request_id)
            if not started:
                await _refuse(send, InternalError(), context)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: TcdError) -> None:
        """Answer what did not get as far as a route: people get a page."""
        if self.pages is not None and scope["path"].startswith(f"{PAGES}/"):
            await self.pages.frame.problem(Request(scope), error)(scope, receive, send)
        else:
            await _refuse(send, error, scope["tcd"])

    async def _checked(self, scope: Scope, context: RequestContext, receive: Receive) -> bytes:
        self._plane.charge("address", context.client)
        context.check()
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or hosts[0].decode("latin-1").lower() not in self.hosts:
            # a page of another site whose name points here (DNS rebinding)
            msg = "this server has another name"
            raise InvalidRequest(msg)
        lengths = [value for name, value in scope["headers"] if name == b"content-length"]
        check_length(lengths[0] if lengths else None, MOST)
        return await read_body(receive, MOST, timeout=_BODY_SECONDS)


def _replayed(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(send: Send, error: TcdError, context: RequestContext) -> None:
    status, headers, body = problem(error, context)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def create_admin(plane: Plane, outside: Outside, *, hosts: Collection[str]) -> AdminApp:
    """The admin plane's app.

    Args:
        plane: its state.
        outside: of the shim.
        hosts: authorities (`127.0.0.1:8081`) that requests may be for.

    Raises:
        ConfigError: a route does not say what it requires.
    """
    return AdminApp(plane, outside, hosts=hosts)
