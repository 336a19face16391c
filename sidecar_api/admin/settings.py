"""Reload of settings through the plane, break-glass for what loosens, and which policy applies to whom.

The files stay the source: an operator changes them, and here they are read again. What loosens takes two people, whose
approval is the break-glass grant, for exactly the settings (or the bundle) that both saw.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from sidecar_api.admin.bodies import ASKED, STRICT, Label, Reason, asked, parsed
from sidecar_api.admin.describe import says
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.tokens import Caller
from sidecar_api.http.runtime import Runtime
from sidecar_api.reload import Reloader
from tcd.config import Settings
from tcd.errors import ConfigError, Conflict, NotFound
from tcd.reload import Grant, changes, shown
from tcd.trust import PolicySet
from tcd.trust.policies import SUBJECT

READING: Final = Requires("config:read", everywhere=True)
BINDING: Final = Requires("policy:read", everywhere=True)
RELOADING: Final = Requires("config:write", mutates=True, everywhere=True)
BREAKING: Final = Requires("config:write", mutates=True, pair=True, everywhere=True)
_GRANT_S: Final = 60


class BindQuery(BaseModel):
    """A subject and a detector key."""

    model_config = ASKED

    tenant: Label = "tenant0"
    user: Label = "user0"
    session: Label = "sess0"
    model_id: Label = "model0"
    gpu_id: Label = "gpu0"
    task: Label = "chat"
    lang: Label = "en"


class Glass(BaseModel):
    """Why protection has to be loosened; `digest` names what `GET /config/pending` showed."""

    model_config = STRICT

    digest: Annotated[str, Field(pattern=r"^(sha256:)?[0-9a-f]{8,64}$")]
    reason: Reason


class Pending(TypedDict):
    """What a reload would change."""

    config_hash: str
    policies: str
    changes: list[str]
    loosens: list[str]
    policies_change: bool


class Bound(TypedDict):
    """The policy of a subject; empty = the settings'."""

    subject: dict[str, str]
    policy: str
    digest: str
    mode: str


Reread = Callable[[], tuple[Settings, PolicySet | None]]


class SettingsArea:
    """The settings of a running shim."""

    def __init__(self, runtime: Runtime) -> None:
        """Reload `runtime`."""
        self._runtime = runtime

    def _read(self) -> tuple[Settings, PolicySet | None]:
        reread = self._runtime.reread
        if reread is None:
            msg = "this shim was not started from files: there is nothing to read again"
            raise NotFound(msg)
        try:
            return reread()
        except ConfigError as error:
            raise Conflict(error.detail) from None

    def pending(self) -> dict[str, Any]:
        """What a reload would change.

        Raises:
            NotFound: there are no files.
            Conflict: they cannot be used, or need a restart.
        """
        new, bundle = self._read()
        try:
            found = changes(self._runtime.settings, new)
            loose = Reloader(self._runtime).loosened_by(bundle, new)
        except ConfigError as error:
            raise Conflict(error.detail) from None
        before = self._runtime.policies
        now, then = "" if before is None else before.digest, "" if bundle is None else bundle.digest
        return {
            "config_hash": new.config_hash,
            "policies": then,
            "changes": [shown(change) for change in found],
            "loosens": [*(change.name for change in found if change.loosens), *loose],
            "policies_change": bundle is not None and now != then,
        }

    def reload(self, grant: Grant | None = None, *, of: str = "") -> dict[str, Any]:
        """Read the files again and use them.

        Args:
            grant: for what loosens.
            of: digest of the settings that they have to have; empty: any.

        Raises:
            Forbidden: they loosen, and there is no grant.
            Conflict: they are other ones by now, or cannot be used.
        """
        new, bundle = self._read()
        if of not in {"", new.config_hash}:
            msg = "the files were changed meanwhile: look at /config/pending again"
            raise Conflict(msg)
        try:
            made = Reloader(self._runtime).apply(new, grant, source="admin plane", policies=bundle)
            Reloader(self._runtime).keys(source="admin plane")
        except ConfigError as error:
            raise Conflict(error.detail) from None
        return {"config_hash": new.config_hash, "changes": [shown(change) for change in made]}

    def now(self) -> list[str]:
        """Digests of the settings and of the policies in force."""
        policies = self._runtime.policies
        return [self._runtime.settings.config_hash, "" if policies is None else policies.digest]

    def break_glass(self, args: Any, actors: str) -> dict[str, Any]:
        """Use the files although they loosen, when they are still what two people saw."""
        pending = self.pending()
        # what loosens was shown beside what was in force then
        if args["digest"] not in {pending["config_hash"], pending["policies"]} or args.get("now") != self.now():
            msg = "the files, or what is in force, were changed meanwhile: look at /config/pending again"
            raise Conflict(msg)
        reason = f"{args['reason']} ({actors})"
        return self.reload(Grant(args["digest"], int(time.time()) + _GRANT_S, reason))

    def bind(self, subject: dict[str, str]) -> dict[str, Any]:
        """The policy of a subject."""
        policies = self._runtime.policies
        policy = None if policies is None else policies.of({name: subject[name] for name in SUBJECT})
        mode = self._runtime.settings.mode if policy is None or policy.mode is None else policy.mode
        return {
            "subject": subject,
            "policy": "" if policy is None else policy.ref,
            "digest": "" if policy is None else policy.digest,
            "mode": mode,
        }


def add_settings(made: APIRouter, plane: Plane, area: SettingsArea) -> None:
    """Add the routes."""

    @made.get("/config/pending", **says("What a reload would change", gives=Pending, refuses=(404, 409)))
    async def pending(_: Annotated[Caller, Depends(READING)]) -> Response:
        return JSONResponse(area.pending())

    @made.post("/config:reload", **says("Read the files again", refuses=(404,)))
    async def reload(request: Request, caller: Annotated[Caller, Depends(RELOADING)]) -> Response:
        digest = area.pending()["config_hash"]

        async def work(_: str) -> Any:
            # what is recorded is what is done
            return area.reload(of=digest)

        return await plane.mutate(request, caller, RELOADING, Mutation("config.put", _digest(digest), None, work))

    @made.post("/config:break-glass", **says("Propose a reload that loosens", takes=Glass, refuses=(404,)))
    async def break_glass(request: Request, caller: Annotated[Caller, Depends(BREAKING)]) -> Response:
        args = (await parsed(request, Glass)).model_dump()
        pending = area.pending()
        if args["digest"] not in {pending["config_hash"], pending["policies"]} or not pending["loosens"]:
            msg = "not the digest of what /config/pending shows, or nothing of it loosens"
            raise Conflict(msg)
        args["now"] = area.now()
        shown = {**pending, "reason": args["reason"]}
        mutation = Mutation("config.glass", _digest(args["digest"]), shown, args=args)
        return await plane.mutate(request, caller, BREAKING, mutation)

    @made.get("/policies:bind", **says("Which policy applies to a subject", asks=BindQuery, gives=Bound))
    async def bind(request: Request, _: Annotated[Caller, Depends(BINDING)]) -> Response:
        return JSONResponse(area.bind(asked(request, BindQuery).model_dump()))

    async def perform(args: Any, actors: str) -> Any:
        return area.break_glass(args, actors)

    plane.perform("config.glass", perform)


def _digest(text: str) -> str:
    return text if text.startswith("sha256:") else "sha256:" + text.rjust(64, "0")
