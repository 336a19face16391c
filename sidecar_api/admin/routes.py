"""The routes of the admin plane. Each one says what it requires; an app with one that does not is not made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sidecar_api.admin.answers import (
    Act,
    Budget,
    Checked,
    Config,
    LedgerFigures,
    Looked,
    Page,
    People,
    Policies,
    Receipt,
    Waiting,
    Whoami,
)
from sidecar_api.admin.approvals import Refusal
from sidecar_api.admin.areas import Areas, add_areas
from sidecar_api.admin.audits import Audits, add_audits
from sidecar_api.admin.bodies import asked, parsed
from sidecar_api.admin.budgets import BudgetQuery
from sidecar_api.admin.calibrations import Calibrations, add_calibrations
from sidecar_api.admin.dashboard.entry import add_entry
from sidecar_api.admin.dashboard.sources import Sources
from sidecar_api.admin.describe import says
from sidecar_api.admin.incoming import message_of
from sidecar_api.admin.job_routes import add_jobs
from sidecar_api.admin.plane import Mutation, Plane, Requires
from sidecar_api.admin.principals import KeySet, Principals, changed
from sidecar_api.admin.receipts import Query, ReceiptSearch
from sidecar_api.admin.replays import Replays, add_replays
from sidecar_api.admin.signatures import BadSignature
from sidecar_api.admin.tokens import Caller
from tcd.errors import Conflict, Forbidden, NotFound, Unauthorized

BASE: Final = "/admin/v1"
#: Annotations are resolved in this module, so what they name stands in it.
REPLACING: Final = Requires("principals:write", mutates=True, pair=True, everywhere=True)
APPROVING: Final = Requires(None, mutates=True)
PUTTING: Final = Requires("policy:write", mutates=True, pair=True, everywhere=True)
#: Rules that an answer names.
_SHOWN: Final = 5


class Showing(Protocol):
    """Budgets and the ledger, `sidecar_api.admin.budgets.Budgets`."""

    def show(self, asked: BudgetQuery, *, tenant: str) -> dict[str, Any]:
        """A budget as of now."""
        ...

    async def ledger(self) -> dict[str, Any]:
        """How much is kept."""
        ...


@dataclass(frozen=True, slots=True)
class Outside:
    """What the plane shows and changes of the shim; functions, so that it needs no more of it.

    Attributes:
        config: name to shown value and digest of the settings.
        policies: what is in force.
        check_policies: what a bundle (file name to text) would be, and what it `loosens`; a bad one is refused.
        put_policies: puts a bundle in force and keeps it; None where no file is configured.
        receipts: searches the receipts.
        budgets: budgets, and the ledger's figures.
        replays: what jobs that replay traffic need.
        calibrations: fits, trials and promotions.
        audits: the same for audits.
        areas: keys, patches, trust, alarms, and what else has a module of its own.
        dashboard: what the dashboard's pages read; None without a dashboard.
    """

    config: Callable[[], dict[str, Any]]
    policies: Callable[[], dict[str, Any]]
    check_policies: Callable[[dict[str, str]], dict[str, Any]]
    receipts: ReceiptSearch
    budgets: Showing
    areas: Areas
    put_policies: Callable[[dict[str, str]], dict[str, Any]] | None = None
    replays: Replays | None = None
    calibrations: Calibrations | None = None
    audits: Audits | None = None
    dashboard: Sources | None = None


class Bundle(BaseModel):
    """A bundle of policies."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    files: Annotated[
        dict[
            Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")],
            Annotated[str, Field(max_length=1 << 18)],
        ],
        Field(min_length=1, max_length=64),
    ]


def router(plane: Plane, outside: Outside) -> APIRouter:
    """All routes."""
    made = APIRouter(prefix=BASE)
    _people(made, plane)
    _proposals(made, plane)
    add_entry(made, plane)
    _shim(made, plane, outside)
    _receipts(made, outside.receipts)
    _budgets(made, outside.budgets)
    add_jobs(made, plane, plane.jobs)
    add_audits(made, plane, outside.audits)
    add_replays(made, plane, outside.replays, outside.check_policies)
    add_areas(made, plane, outside.areas)
    add_calibrations(made, plane, outside.calibrations)
    return made


def _people(made: APIRouter, plane: Plane) -> None:
    @made.get("/whoami", **says("Who the token is of", gives=Whoami))
    async def whoami(caller: Annotated[Caller, Depends(Requires(None))]) -> Response:
        return JSONResponse(
            {
                "principal": caller.name,
                "tenant": caller.tenant,
                "scopes": sorted(caller.scopes),
                "granted": sorted(caller.principal.scopes),
            }
        )

    @made.get("/principals", **says("The key set in force", gives=People))
    async def principals(_: Annotated[Caller, Depends(Requires("principals:read", everywhere=True))]) -> Response:
        known = await plane.people.current()
        assert known is not None  # noqa: S101 - somebody was admitted
        return JSONResponse({"digest": known.digest, **known.document.model_dump(mode="json")})

    @made.put("/principals", **says("Propose another key set", takes=KeySet))
    async def replace(request: Request, caller: Annotated[Caller, Depends(REPLACING)]) -> Response:
        before, after = await plane.people.current(), Principals(await parsed(request, KeySet))
        assert before is not None  # noqa: S101 - somebody was admitted
        document = after.document.model_dump(mode="json")
        shown = {"changes": list(changed(before, after)), "principals": document}
        args = {"before": before.digest, "after": document}
        return await plane.mutate(
            request, caller, REPLACING, Mutation("principals.put", after.digest, shown, args=args)
        )

    async def install(args: Any, _: str) -> Any:
        after = Principals(KeySet.model_validate(args["after"]))
        if not await plane.people.replace(args["before"], after):
            msg = "the principals were changed meanwhile"
            raise Conflict(msg)
        return {"digest": after.digest}

    plane.perform("principals.put", install)

    @made.post(
        "/enrol",
        dependencies=[Depends(Enrolment())],
        **says("Enrol the first principals", takes=KeySet, gives=Act),
    )
    async def enrol(request: Request) -> Response:
        first = Principals(await parsed(request, KeySet))
        await _possession(plane, request, first)

        async def work(_: str) -> Any:
            if not await plane.people.replace(None, first):
                raise _nobody()
            plane.bootstrap.used()
            return {"digest": first.digest, "principals": [p.name for p in first]}

        # of two that come at once the second finds somebody enrolled
        if await plane.people.current() is not None:
            raise _nobody()
        answer = await plane.doing.act("principals.enrol", "bootstrap", first.digest, work)
        plane.log("warning", "admin act", request, action="principals.enrol", actor="bootstrap", status=200)
        return JSONResponse(answer)


class Enrolment:
    """What enrolment requires instead of a scope: the bootstrap credential, and that nobody is enrolled."""

    async def __call__(self, request: Request) -> None:
        """Refuse everybody else."""
        plane: Plane = request.app.state.plane
        if await plane.people.current() is not None:
            raise _nobody()
        plane.bootstrap.check(request.headers.get("authorization"))


def _nobody() -> Unauthorized:
    return Unauthorized("a valid bootstrap credential is needed")


async def _possession(plane: Plane, request: Request, principals: Principals) -> None:
    """One of the new keys has signed the request.

    Raises:
        BadSignature: none has.
    """
    message = await message_of(request)
    failure = BadSignature("no key of the set")
    for principal in principals:
        if f'keyid="{principal.kid}"' in message.headers.get("signature-input", ""):
            await plane.signatures.verify(message, principal)
            return
    raise failure


def _proposals(made: APIRouter, plane: Plane) -> None:
    @made.get("/approvals", **says("Proposals that the caller could approve", gives=Waiting))
    async def waiting(caller: Annotated[Caller, Depends(Requires(None))]) -> Response:
        return JSONResponse({"approvals": [proposal.to_json() for proposal in await plane.approvals.seen_by(caller)]})

    @made.get("/approvals/{identifier}", **says("A proposal, with what no list shows of it", gives=Looked))
    async def look(identifier: str, caller: Annotated[Caller, Depends(Requires(None))]) -> Response:
        return JSONResponse(await plane.look(identifier, caller))

    # before the next one, whose identifier would take it
    @made.post("/approvals/{identifier}:refuse", **says("Refuse a proposal, or withdraw one's own", takes=Refusal))
    async def refuse(request: Request, identifier: str, caller: Annotated[Caller, Depends(APPROVING)]) -> Response:
        return await plane.refuse(request, caller, identifier)

    @made.post("/approvals/{identifier}", **says("Approve a proposal", gives=Act))
    async def approve(request: Request, identifier: str, caller: Annotated[Caller, Depends(APPROVING)]) -> Response:
        return await plane.approve(request, caller, identifier)


def _shim(made: APIRouter, plane: Plane, outside: Outside) -> None:
    @made.get("/config", **says("Every setting, secrets hidden", gives=Config))
    async def config(_: Annotated[Caller, Depends(Requires("config:read", everywhere=True))]) -> Response:
        return JSONResponse(outside.config())

    @made.get("/policies", **says("The policies in force", gives=Policies))
    async def policies(_: Annotated[Caller, Depends(Requires("policy:read", everywhere=True))]) -> Response:
        return JSONResponse(outside.policies())

    @made.post("/policies:validate", **says("What a bundle would be", takes=Bundle, gives=Checked))
    async def validate(
        request: Request, _: Annotated[Caller, Depends(Requires("policy:read", everywhere=True))]
    ) -> Response:
        return JSONResponse(outside.check_policies((await parsed(request, Bundle)).files))

    @made.put("/policies", **says("Propose a bundle of policies", takes=Bundle, refuses=(404,)))
    async def put(request: Request, caller: Annotated[Caller, Depends(PUTTING)]) -> Response:
        files = (await parsed(request, Bundle)).files
        if outside.put_policies is None:
            raise _no_place()
        if len(files) != 1:
            msg = f"the bundle in force is one file, this is {len(files)}"
            raise Conflict(msg)
        shown = outside.check_policies(files)
        if shown["loosens"]:
            msg = f"the bundle loosens protection: {'; '.join(shown['loosens'][:_SHOWN])}"
            raise Forbidden(msg)
        return await plane.mutate(request, caller, PUTTING, Mutation("policy.put", shown["digest"], shown, args=files))

    async def perform(files: Any, _: str) -> Any:
        write = outside.put_policies
        if write is None:
            raise _no_place()
        return write(files)

    plane.perform("policy.put", perform)


def _no_place() -> NotFound:
    return NotFound("no bundle file is configured (TCD_POLICIES): there is no place to keep it")


def _receipts(made: APIRouter, receipts: ReceiptSearch) -> None:
    @made.get("/receipts", **says("Search receipts", asks=Query, gives=Page))
    async def search(request: Request, caller: Annotated[Caller, Depends(Requires("receipts:read"))]) -> Response:
        return JSONResponse(await receipts.search(asked(request, Query), tenant=caller.tenant))

    @made.get("/receipts/{head}", **says("One receipt", gives=Receipt))
    async def get(head: str, caller: Annotated[Caller, Depends(Requires("receipts:read"))]) -> Response:
        return JSONResponse(await receipts.get(head, tenant=caller.tenant))


def _budgets(made: APIRouter, budgets: Showing) -> None:
    @made.get("/alpha", **says("A budget as of now", asks=BudgetQuery, gives=Budget, refuses=(404,)))
    async def alpha(request: Request, caller: Annotated[Caller, Depends(Requires("alpha:read"))]) -> Response:
        return JSONResponse(budgets.show(asked(request, BudgetQuery), tenant=caller.tenant))

    @made.get("/ledger", **says("How much the ledger keeps", gives=LedgerFigures))
    async def ledger(_: Annotated[Caller, Depends(Requires("receipts:audit", everywhere=True))]) -> Response:
        return JSONResponse(await budgets.ledger())
