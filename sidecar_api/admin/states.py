"""Live sessions of a detector key, out of this shim and into it: as /state/get and /state/load, signed and logged.

What is loaded is checked as a whole before anything changes: version, digest, key and assets. It never lowers what was
spent and never clears an alarm, so one person is enough; subjects' names are in it, so it is nobody's of one tenant.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from sidecar_api.admin.bodies import ASKED, STRICT, Label, Name, asked, parsed
from sidecar_api.admin.describe import says
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.tokens import Caller
from sidecar_api.snapshot import MAX_SESSIONS, Key, Snapshot, check
from sidecar_api.state import StateService
from tcd.errors import ValidationFailed

READING: Final = Requires("state:read", everywhere=True)
LOADING: Final = Requires("state:load", mutates=True, everywhere=True)


class StateQuery(BaseModel):
    """Which key, and a page of its sessions."""

    model_config = ASKED

    model_id: Name
    gpu_id: Label = ""
    task: Label = ""
    lang: Label = ""
    first: Annotated[int, Field(ge=0, le=2**31)] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_SESSIONS)] = 100


class StateBody(BaseModel):
    """What `GET /state` gave."""

    model_config = STRICT

    detector: dict[str, Any]


def add_states(made: APIRouter, plane: Plane, area: StateService) -> None:
    """Add the routes."""

    @made.get("/state", **says("Live sessions of a detector key", asks=StateQuery, gives=StateBody))
    async def state(request: Request, _: Annotated[Caller, Depends(READING)]) -> Response:
        q = asked(request, StateQuery)
        key = Key(model_id=q.model_id, gpu_id=q.gpu_id, task=q.task, lang=q.lang)
        state = await area.get_json(key, first=q.first, limit=q.limit)
        return Response(b'{"detector":' + state + b"}", media_type="application/json")

    @made.post("/state:load", **says("Load sessions that another shim gave", takes=StateBody))
    async def load(request: Request, caller: Annotated[Caller, Depends(LOADING)]) -> Response:
        found = (await parsed(request, StateBody)).detector
        try:
            snapshot = msgspec.convert(found, Snapshot, strict=True)
        except (msgspec.ValidationError, RecursionError):
            msg = "no snapshot of GET /state"
            raise ValidationFailed(msg, pointer="/detector") from None

        # before anything is recorded: what is no digest of the rest is none that a record can have
        check(snapshot)

        async def work(_: str) -> Any:
            return {"sessions": await area.load(snapshot.key, snapshot)}

        return await plane.mutate(request, caller, LOADING, Mutation("state.put", snapshot.digest, None, work))
