"""Alarms of streams, and their acknowledgement: an `ack` record, and a new e-process with a claim of its own.

Acknowledging clears what tightened decisions, so it takes two people. Nothing that was spent comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from sidecar_api.admin.bodies import STRICT, Name, parsed
from sidecar_api.admin.describe import says
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.principals import EVERY_TENANT
from sidecar_api.admin.tokens import Caller
from sidecar_api.http.runtime import Runtime
from tcd.errors import Conflict, NotFound, TcdError
from tcd.receipts import Receipt
from tcd.risk_av import StreamView, Terms, stream_digest

READING: Final = Requires("alpha:read")
ACKING: Final = Requires("alarm:ack", mutates=True, pair=True)
_MOST: Final = 1000


class Acknowledge(BaseModel):
    """Whose alarm: a tenant's, or a user's in the unit `request`."""

    model_config = STRICT

    tenant: Name
    user: Name | None = None


class AlarmList(TypedDict):
    """Streams whose alarm is on, at most 1000."""

    alarms: list[dict[str, Any]]


class AlarmArea:
    """The alarms of a running shim."""

    def __init__(self, runtime: Runtime) -> None:
        """Show and clear those of `runtime`."""
        self._runtime = runtime
        self._one = asyncio.Lock()

    def list(self, tenant: str) -> list[dict[str, Any]]:
        """Streams that are awake and alarmed; of one tenant, or of all."""
        budget, found = self._runtime.service.judge.budget, []
        for stream in budget.controller.streams:
            owner = budget.owner(stream)
            if tenant not in {EVERY_TENANT, owner}:
                continue
            view = budget.view(stream)
            if view.alarm or view.cusum_alarm:
                found.append({"tenant": owner, **_shown(view)})
                if len(found) == _MOST:
                    break
        return found

    def look(self, args: Any, tenant: str) -> tuple[str, StreamView]:
        """An alarmed stream.

        Raises:
            NotFound: there is none; the same for one of another tenant.
            Conflict: its alarm is off.
        """
        service = self._runtime.service
        per_user = self._runtime.settings.unit == "request"
        known = tenant in {EVERY_TENANT, args["tenant"]} and (args["user"] is not None) is per_user
        names = service.subjects
        stream = names.tenant(args["tenant"]) if args["user"] is None else names.user(args["tenant"], args["user"])
        if not known or not service.judge.budget.controller.knows(stream):
            msg = "no such budget"
            raise NotFound(msg)
        view = service.judge.budget.view(stream)
        if not (view.alarm or view.cusum_alarm):
            msg = "there is no alarm to acknowledge"
            raise Conflict(msg)
        return stream, view

    async def acknowledge(self, args: Any, actors: str) -> dict[str, Any]:
        """Clear a stream's alarms once the record that says who did is durable.

        Raises:
            NotFound, Conflict: see `look`; or it is a newer alarm than the one that was proposed.
            Unavailable: the ledger cannot be written; the alarm stays on.
        """
        async with self._one:
            return await self._acknowledge(args, actors)

    async def _acknowledge(self, args: Any, actors: str) -> dict[str, Any]:
        runtime = self._runtime
        stream, view = self.look(args, EVERY_TENANT)
        if view.claim != args["claim"]:
            msg = "the alarm that was to be cleared is off, and there is a newer one"
            raise Conflict(msg)
        judge, receipts = runtime.service.judge, runtime.service.judge.receipts
        assert receipts is not None  # noqa: S101 - the plane is not made without
        terms = Terms.of(judge.budget.controller.params_of(stream))

        def made(claim: int) -> tuple[Receipt, ...]:
            return receipts.ack(actor=actors, stream=stream, claim=claim, terms=terms)

        if runtime.replica is not None:
            records = await runtime.replica.acknowledge(stream, view.claim, made)
        else:
            records = made(view.claim + 1)
            await judge.put(records)
            # the record is durable: only now the alarm may go
            judge.budget.acknowledge(stream)
            # an event that is not durable yet goes with the next commit; a crash before it leaves the alarm on
            with contextlib.suppress(TcdError):
                await judge.put(())
        after = judge.budget.view(stream)
        return {"before": _shown(view), "after": _shown(after), "record": records[1].head_hex}


def _shown(view: StreamView) -> dict[str, Any]:
    peak = view.e_process_log10
    return {
        "stream": stream_digest(view.stream),
        "claim": view.claim,
        "alarm": view.alarm,
        "cusum_alarm": view.cusum_alarm,
        "e_process_log10": peak if math.isfinite(peak) else None,
        "epoch": view.epoch,
        "spent": view.spent,
    }


def add_alarms(made: APIRouter, plane: Plane, area: AlarmArea) -> None:
    """Add the routes."""

    @made.get("/alarms", **says("Streams whose alarm is on", gives=AlarmList))
    async def alarms(caller: Annotated[Caller, Depends(READING)]) -> Response:
        return JSONResponse({"alarms": area.list(caller.tenant)})

    @made.post("/alarms:ack", **says("Propose to clear an alarm", takes=Acknowledge, refuses=(404,)))
    async def acknowledge(request: Request, caller: Annotated[Caller, Depends(ACKING)]) -> Response:
        args = (await parsed(request, Acknowledge)).model_dump()
        stream, view = area.look(args, caller.tenant)
        digest = stream_digest(stream)
        args["claim"] = view.claim
        return await plane.mutate(request, caller, ACKING, Mutation("alarm.ack", digest, _shown(view), args=args))

    plane.perform("alarm.ack", area.acknowledge)
