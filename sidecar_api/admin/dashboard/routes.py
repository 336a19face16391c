"""Addresses of the pages, what each requires, and signing in and out.

A page that fails answers with a page; who has no session gets the form that takes a code.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sidecar_api.admin.dashboard.browsers import CODE_LIVES, SESSION_LIVES, NotSignedIn
from sidecar_api.admin.dashboard.gates import (
    Open,
    Viewing,
    authority,
    browsers_of,
    cookie_name,
    cookie_of,
    form_of,
    own_form,
    shown,
    viewer_of,
)
from sidecar_api.admin.dashboard.pages import Pages
from sidecar_api.admin.dashboard.rendering import BASE, HEADERS, Renderer
from sidecar_api.admin.plane import Plane
from tcd.errors import NotFound, TcdError

_CODE: Final = 32
_Answer = Callable[[Request], Awaitable[Response]]
_RECEIPTS: Final = Viewing("receipts:read")
FORM: Final = Open("it takes a code, and shows nothing")
STYLE: Final = Open("the style sheet and the icon are in every copy of the software")
OUT: Final = Viewing(None, posts=True)


class _Page(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """See FastAPI."""
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            pages: Pages = request.app.state.pages
            try:
                found: Response = await answer(request)
            except NotSignedIn as error:
                return pages.frame.sign_in(request, status=error.http_status)
            except TcdError as error:
                return pages.frame.problem(request, error)
            return found

        return handler


def router(plane: Plane, pages: Pages, renderer: Renderer) -> APIRouter:
    """All of them."""
    made = APIRouter(prefix=BASE, route_class=_Page)
    listed: tuple[tuple[str, Viewing, _Answer], ...] = (
        ("/", Viewing(None), pages.overview.overview),
        ("/budgets", Viewing("alpha:read"), pages.budgets.budgets),
        ("/triggers", _RECEIPTS, pages.decisions.triggers),
        ("/scores", _RECEIPTS, pages.decisions.scores),
        ("/receipts", _RECEIPTS, pages.receipts.receipts),
        ("/receipts/{head}", _RECEIPTS, pages.receipts.receipt),
        ("/receipts/{head}/receipt.json", _RECEIPTS, pages.receipts.body),
        ("/receipts/{head}/bundle.json", _RECEIPTS, pages.receipts.bundle),
        ("/keyset.json", Viewing(None), pages.receipts.keys),
        ("/sessions", _RECEIPTS, pages.sessions.named),
        ("/sessions/{subject}", _RECEIPTS, pages.sessions.session),
        ("/jobs", Viewing(None), pages.plane.jobs),
        ("/jobs/{identifier}", Viewing(None), pages.plane.job),
        ("/jobs/{identifier}/files/{name}", Viewing(None), pages.plane.job_file),
        ("/approvals", Viewing(None), pages.plane.approvals),
        ("/health", Viewing("receipts:audit", everywhere=True), pages.plane.health),
    )
    for path, gate, answer in listed:
        made.add_api_route(path, _endpoint(answer), methods=["GET"], dependencies=[Depends(gate)])
    _files(made, renderer)
    _signing(made, plane, pages)
    # whatever else: a page that says so, after signing in
    made.add_api_route(
        "/{rest:path}", _endpoint(pages.frame.missing), methods=["GET"], dependencies=[Depends(Viewing(None))]
    )
    return made


def _endpoint(answer: _Answer) -> _Answer:
    async def endpoint(request: Request) -> Response:
        return await answer(request)

    return endpoint


def _files(made: APIRouter, renderer: Renderer) -> None:
    @made.get("/static/{name}", dependencies=[Depends(STYLE)])
    async def static(name: str) -> Response:
        found = renderer.static(name)
        if found is None:
            msg = "no such file"
            raise NotFound(msg)
        return found


def _signing(made: APIRouter, plane: Plane, pages: Pages) -> None:
    @made.get("/login", dependencies=[Depends(FORM)])
    async def form(request: Request) -> Response:
        code = request.query_params.get("code", "")
        return pages.frame.sign_in(request, code=code if len(code) == _CODE and code.isalnum() else "")

    @made.post("/login", dependencies=[Depends(FORM)])
    async def enter(request: Request) -> Response:
        own_form(request)
        code = (await form_of(request)).get("code", "").strip()
        browsers = browsers_of(request)
        try:
            people = await plane.people.current()
            cookie, viewer = browsers.exchange(code, authority(request), people, shown(request))
        except NotSignedIn as error:
            plane.log("warning", "dashboard refused", request)
            why = f"This code is not good: each is good once, for {CODE_LIVES:.0f} seconds. Make a new one."
            return pages.frame.sign_in(request, status=error.http_status, why=why)
        browsers.end(cookie_of(request))
        plane.log("warning", "dashboard entered", request, actor=viewer.principal.name)
        answer = RedirectResponse(f"{BASE}/", 303, HEADERS)
        answer.set_cookie(
            cookie_name(request),
            cookie,
            max_age=int(SESSION_LIVES),
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return answer

    @made.post("/logout", dependencies=[Depends(OUT)])
    async def leave(request: Request) -> Response:
        browsers_of(request).end(cookie_of(request))
        plane.log("warning", "dashboard left", request, actor=viewer_of(request).principal.name)
        answer = RedirectResponse(f"{BASE}/login", 303, HEADERS)
        secure = request.url.scheme == "https"
        answer.delete_cookie(cookie_name(request), path="/", secure=secure, httponly=True, samesite="strict")
        return answer
