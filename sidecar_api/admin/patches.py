"""Patches of settings: proposed by one principal, approved by another, applied for a time to a share, rolled back.

`sidecar_api.patching` decides; that an author cannot approve is its rule too. Patches only tighten, so that to end one
loosens and takes two people.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, JsonValue
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from sidecar_api.admin.bodies import STRICT, Reason, parsed
from sidecar_api.admin.describe import says
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.tokens import Caller
from sidecar_api.http.runtime import Runtime
from sidecar_api.patching import PATCHABLE, Patches
from tcd.errors import Conflict, NotFound
from tcd.trust import Patch
from tcd.trust.patches import MAX_TTL

READING: Final = Requires("config:read", everywhere=True)
PROPOSING: Final = Requires("patch:propose", mutates=True, everywhere=True)
APPROVING: Final = Requires("patch:approve", mutates=True, everywhere=True)
ENDING: Final = Requires("patch:approve", mutates=True, pair=True, everywhere=True)
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]


class PatchBody(BaseModel):
    """A proposed patch: a setting, its value, for how long (seconds) and for which share of subjects."""

    model_config = STRICT

    id: _Name
    setting: Annotated[str, Field(min_length=1, max_length=64)]
    value: JsonValue
    ttl: Annotated[float, Field(gt=0, le=MAX_TTL, strict=False)]
    share: Annotated[float, Field(gt=0, le=1, strict=False)] = 1.0


class Why(BaseModel):
    """Why, for the log."""

    model_config = STRICT

    reason: Reason = "operator"


class PatchList(TypedDict):
    """Patches in the order of registration, and what may be patched."""

    patchable: list[str]
    patches: list[dict[str, Any]]


class PatchArea:
    """The patches of a running shim."""

    def __init__(self, runtime: Runtime) -> None:
        """Change those of `runtime`."""
        self._runtime = runtime

    @property
    def patches(self) -> Patches:
        """The patches.

        Raises:
            NotFound: this shim has none.
        """
        found = self._runtime.service.patches
        if found is None:
            msg = "this shim takes no patches"
            raise NotFound(msg)
        return found

    def list(self) -> dict[str, Any]:
        """Each patch and where it stands."""
        self.patches.tick()
        return {"patchable": list(PATCHABLE), "patches": [shown(patch) for patch in self.patches]}

    def look(self, identifier: str) -> Patch:
        """A patch that is in force.

        Raises:
            NotFound, Conflict: there is none, or it is not in force.
        """
        found = self.patches
        found.tick()
        patch = found.get(identifier)
        if patch.state != "active":
            msg = f"patch {identifier} is {patch.state.replace('_', ' ')}"
            raise Conflict(msg)
        return patch

    def instead(self, patch: Patch) -> Any:
        """What the setting is without the patch; infinite is null."""
        return _finite(getattr(self._runtime.settings, patch.setting))

    async def roll_back(self, args: Any, actors: str) -> dict[str, Any]:
        """End the very patch that two people agreed to end.

        Raises:
            NotFound, Conflict, Unavailable: it is over, or one of its name was applied anew; or it cannot be kept.
        """
        patch = self.look(args["id"])
        return shown(self.patches.roll_back(patch.id, actor=actors, reason=args["reason"], since=args["since"]))


def shown(patch: Patch) -> dict[str, Any]:
    """A patch as JSON has it; no end yet is null."""
    return {name: _finite(value) for name, value in asdict(patch).items()}


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _object(*parts: Any) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def add_patches(made: APIRouter, plane: Plane, area: PatchArea) -> None:
    """Add the routes."""
    _authors(made, plane, area)
    _approvers(made, plane, area)


def _authors(made: APIRouter, plane: Plane, area: PatchArea) -> None:
    @made.get("/patches", **says("Patches and where they stand", gives=PatchList, refuses=(404,)))
    async def patches(_: Annotated[Caller, Depends(READING)]) -> Response:
        return JSONResponse(area.list())

    @made.post("/patches", **says("Propose a patch", takes=PatchBody, refuses=(404,)))
    async def register(request: Request, caller: Annotated[Caller, Depends(PROPOSING)]) -> Response:
        body = await parsed(request, PatchBody)
        found = area.patches

        async def work(_: str) -> Any:
            return shown(
                found.register(
                    body.id, setting=body.setting, value=body.value, actor=caller.name, ttl=body.ttl, share=body.share
                )
            )

        digest = _object(body.model_dump())
        return await plane.mutate(request, caller, PROPOSING, Mutation("patch.register", digest, None, work))

    @made.post("/patches/{identifier}:withdraw", **says("Take back a patch that is not in force"))
    async def withdraw(request: Request, identifier: str, caller: Annotated[Caller, Depends(PROPOSING)]) -> Response:
        async def work(_: str) -> Any:
            return shown(area.patches.withdraw(identifier, actor=caller.name))

        mutation = Mutation("patch.withdraw", _object(identifier), None, work)
        return await plane.mutate(request, caller, PROPOSING, mutation)


def _approvers(made: APIRouter, plane: Plane, area: PatchArea) -> None:
    @made.post("/patches/{identifier}:approve", **says("Approve somebody else's patch"))
    async def approve_patch(
        request: Request, identifier: str, caller: Annotated[Caller, Depends(APPROVING)]
    ) -> Response:
        async def work(_: str) -> Any:
            return shown(area.patches.approve(identifier, actor=caller.name))

        mutation = Mutation("patch.approve", _object(identifier), None, work)
        return await plane.mutate(request, caller, APPROVING, mutation)

    @made.post("/patches/{identifier}:apply", **says("Put an approved patch in force"))
    async def apply_patch(request: Request, identifier: str, caller: Annotated[Caller, Depends(APPROVING)]) -> Response:
        async def work(_: str) -> Any:
            return shown(area.patches.apply(identifier, actor=caller.name))

        mutation = Mutation("patch.apply", _object(identifier), None, work)
        return await plane.mutate(request, caller, APPROVING, mutation)

    @made.post("/patches/{identifier}:rollback", **says("Propose to end a patch that is in force", takes=Why))
    async def roll_back(request: Request, identifier: str, caller: Annotated[Caller, Depends(ENDING)]) -> Response:
        why = (await parsed(request, Why)).reason
        patch = area.look(identifier)
        told = {**shown(patch), "reason": why, "setting_without": area.instead(patch)}
        args = {"id": patch.id, "since": patch.since, "reason": why}
        mutation = Mutation("patch.rollback", _object(identifier), told, args=args)
        return await plane.mutate(request, caller, ENDING, mutation)

    async def rolled_back(args: Any, actors: str) -> Any:
        return await area.roll_back(args, actors)

    plane.perform("patch.rollback", rolled_back)
