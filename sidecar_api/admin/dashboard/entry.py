"""`POST /admin/v1/logins`: a principal lets a browser in, with a signed request that is a record in the log."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from sidecar_api.admin.dashboard.browsers import CODE_LIVES, READING
from sidecar_api.admin.dashboard.gates import authority, browsers_of
from sidecar_api.admin.describe import says
from sidecar_api.admin.plane import Plane, Requires
from sidecar_api.admin.tokens import Caller
from tcd.errors import NotFound

ENTERING: Final = Requires(None, mutates=True)


class Login(TypedDict):
    """A code for a browser."""

    url: str
    code: str
    expires_in: int
    scopes: list[str]


class Entered(TypedDict):
    """The act and its result."""

    action: str
    actors: list[str]
    object: str
    receipt: str
    result: Login


def add_entry(made: APIRouter, plane: Plane) -> None:
    """Add the route."""

    @made.post("/logins", **says("A one-time code that lets a browser read the dashboard", gives=Entered))
    async def login(request: Request, caller: Annotated[Caller, Depends(ENTERING)]) -> Response:
        if getattr(request.app.state, "pages", None) is None:
            msg = "this server has no dashboard"
            raise NotFound(msg)

        async def work(_: str) -> Any:
            host = authority(request)
            code = browsers_of(request).code(caller, host)
            url = f"{request.url.scheme}://{host}/ui/login?code={code}"
            return Login(url=url, code=code, expires_in=int(CODE_LIVES), scopes=sorted(caller.scopes & READING))

        digest = "sha256:" + hashlib.sha256(f"{caller.name}\0{caller.jti}".encode()).hexdigest()
        # not under the idempotency key: the answer is a secret and is kept nowhere; a retry gets another code
        answer = await plane.doing.act("dashboard.login", caller.name, digest, work)
        plane.log("warning", "admin act", request, action="dashboard.login", actor=caller.name, status=200)
        return JSONResponse(answer)
