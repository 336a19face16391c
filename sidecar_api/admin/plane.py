"""What every request of the admin plane goes through: token, limits, scope, tenant, signature, idempotency, log."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sidecar_api.admin.acts import Acts
from sidecar_api.admin.approvals import WAITS, Approvals, Proposal, Refusal, gone
from sidecar_api.admin.bodies import parsed
from sidecar_api.admin.bootstrap import Bootstrap
from sidecar_api.admin.doing import Doing, Work
from sidecar_api.admin.incoming import idempotency_key, message_of, single
from sidecar_api.admin.jobs import MEMORY, Jobs
from sidecar_api.admin.people import FilePeople, People, SharedPeople
from sidecar_api.admin.principals import EVERY_TENANT, AdminScope
from sidecar_api.admin.signatures import BadSignature, Signatures
from sidecar_api.admin.store import AdminStore, Ticket
from sidecar_api.admin.tls import certificate_of
from sidecar_api.admin.tokens import BadToken, Caller, Tokens
from tcd.errors import ConfigError, Conflict, Forbidden, QuotaExceeded, TcdError
from tcd.ledger.shared import InDoubt
from tcd.rate_limit import Limit, TokenBuckets
from tcd.telemetry import LogWriter

_FILE: Final = "principals.json"
_ACCEPTED: Final = 202
#: Carries out a proposal, given its `args` and the names of the actors.
Performer = Callable[[Any, str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One act.

    Attributes:
        action: its name in the log.
        digest: of what it acts on.
        shown: what it would do, for whoever approves it.
        work: does it, where one person is enough.
        args: where it takes two: what the performer of the action (`Plane.perform`) gets. JSON, because the second
            person may come to another replica, or after a restart.
        told: in the answer to whoever proposes it, where `shown` is not to be kept with that for a day.
    """

    action: str
    digest: str
    shown: Any
    work: Work | None = None
    args: Any = None
    told: Any = None


@dataclass(frozen=True, slots=True)
class Requires:
    """What a route asks of its callers; every route has one. The dependency that checks it.

    Attributes:
        scope: of the token; None = any principal.
        mutates: the request has to be signed and to have an idempotency key.
        pair: a second principal has to approve it.
        everywhere: only for principals that are bound to no tenant.
    """

    scope: AdminScope | None
    mutates: bool = False
    pair: bool = False
    everywhere: bool = False

    async def __call__(self, request: Request) -> Caller:
        """Who calls."""
        plane: Plane = request.app.state.plane
        return await plane.admit(request, self)


@dataclass(slots=True)
class Limits:
    """Rates, much stricter than the shim's: tokens a bucket holds, and a second gives back."""

    address: Limit = field(default_factory=lambda: Limit(30.0, 3.0))
    principal: Limit = field(default_factory=lambda: Limit(60.0, 5.0))
    signed: Limit = field(default_factory=lambda: Limit(10.0, 0.5))


class Plane:
    """The state of the admin plane.

    Attributes:
        people: the principals in force.
        store: what is remembered, and shared with other replicas.
        acts: where mutations are recorded.
        approvals: what waits for a second principal.
        bootstrap: the credential of the first start.
        jobs: what runs in processes of its own.
        doing: does acts, once and recorded.
    """

    def __init__(
        self,
        folder: Path,
        *,
        acts: Acts,
        store: AdminStore,
        random: Callable[[int], bytes],
        now: Callable[[], float] = time.time,
        limits: Limits | None = None,
        logs: LogWriter | None = None,
        certified: bool = False,
        job_memory: int = MEMORY,
    ) -> None:
        """Keep what has to be kept in `folder`, which exists and is private.

        Where clients are `certified` every token has to be bound to a certificate. A job may have `job_memory` bytes.

        Raises:
            ConfigError: the principals cannot be read.
        """
        self.people: People = SharedPeople(store) if store.shared else FilePeople(folder / _FILE)
        self.store = store
        self.acts = acts
        self.random = random
        self.now = now
        self.logs = logs
        self.certified = certified
        self.approvals = Approvals(store, now=now)
        self.bootstrap = Bootstrap(folder, now=now)
        self.jobs = Jobs(folder / "jobs", random=random, now=now, memory=job_memory)
        self.signatures = Signatures(store, now=now)
        self.doing = Doing(store, acts, now=now, log=self.log)
        self._performers: dict[str, Performer] = {}
        self._revealers: dict[str, Callable[[Any], Any]] = {}
        self._limits = limits or Limits()
        self._buckets = {
            "address": TokenBuckets(self._limits.address, max_keys=10_000),
            "principal": TokenBuckets(self._limits.principal, max_keys=1000),
            "signed": TokenBuckets(self._limits.signed, max_keys=1000),
        }

    async def first_start(self) -> str | None:
        """The bootstrap credential to print, when there are no principals and none was printed yet."""
        return None if await self.people.current() is not None else self.bootstrap.create(self.random)

    def perform(self, action: str, performer: Performer) -> None:
        """Say how proposals of an action are carried out, at whichever replica they are approved."""
        self._performers[action] = performer

    def reveal(self, action: str, revealer: Callable[[Any], Any]) -> None:
        """Say what of the `args` of an action's proposals whoever may approve one reads, and no list shows."""
        self._revealers[action] = revealer

    async def look(self, identifier: str, caller: Caller) -> dict[str, Any]:
        """A proposal as whoever may approve it sees it.

        Raises:
            NotFound: there is none that the caller may see.
        """
        found = await self.approvals.look(identifier, caller)
        revealer = self._revealers.get(found.action)
        return {**found.to_json(), "revealed": None if revealer is None else revealer(found.args)}

    def charge(self, bucket: str, key: str) -> None:
        """Take one token.

        Raises:
            QuotaExceeded: there is none.
        """
        grant = self._buckets[bucket].take(key, 1.0, now=time.monotonic())
        if not grant.allowed:
            msg = "too many requests"
            raise QuotaExceeded(msg, retry_after=max(1.0, grant.retry_after))

    async def admit(self, request: Request, requires: Requires) -> Caller:
        """Who calls, when the route is open to them.

        Raises:
            BadToken, BadSignature: who it is is not shown.
            Forbidden: the scope or the tenant does not allow it.
            QuotaExceeded, InvalidRequest, Unavailable: as they say.
        """
        try:
            tokens = Tokens(await self.people.current(), now=self.now, bound=self.certified)
            caller = tokens.verify(single(request, "authorization"), certificate=certificate_of(request))
            self.charge("principal", caller.name)
            if requires.scope is not None and requires.scope not in caller.scopes:
                msg = f"the scope {requires.scope} is needed"
                raise Forbidden(msg)
            if requires.everywhere and caller.tenant != EVERY_TENANT:
                msg = "this is not for principals of one tenant"
                raise Forbidden(msg)
            if requires.mutates:
                self.charge("signed", caller.name)
                await self.signatures.verify(await message_of(request), caller.principal)
                idempotency_key(request)
        except (BadToken, BadSignature) as error:
            self.log("warning", "admin refused", request, why=error.why)
            raise
        return caller

    def log(self, level: str, event: str, request: Request, **fields: Any) -> None:
        """A line of the audit log: no token, no body."""
        if self.logs is not None:
            context = request.scope["tcd"]
            self.logs.write(
                level, event, request_id=context.request_id, method=request.method, path=request.url.path, **fields
            )

    async def mutate(self, request: Request, caller: Caller, requires: Requires, mutation: Mutation) -> Response:
        """Do it, once; or let it wait for a second principal.

        The record is durable before anything happens. The answer has its receipt.
        """
        if requires.pair is not (mutation.work is None) or (requires.pair and mutation.action not in self._performers):
            msg = f"{mutation.action}: one person's act has its work, two persons' has a performer (Plane.perform)"
            raise ConfigError(msg)

        async def work(ticket: Ticket) -> tuple[int, Any]:
            if mutation.work is None:
                return _ACCEPTED, await self._propose(caller, requires, mutation)
            return 200, await self.doing.act(
                mutation.action, caller.name, mutation.digest, mutation.work, ticket=ticket
            )

        return await self._decided(request, caller, work)

    async def approve(self, request: Request, caller: Caller, identifier: str) -> Response:
        """Carry out a proposal of somebody else.

        Raises:
            NotFound, Forbidden, Conflict: as `Approvals.get` says, or this version does not know the action.
        """

        async def work(ticket: Ticket) -> tuple[int, Any]:
            principals = await self.people.current()
            if principals is None:
                raise gone()
            found = await self.approvals.get(identifier, caller, principals)
            performer = self._performers.get(found.action)
            if performer is None:
                msg = f"this version cannot carry out {found.action}"
                raise Conflict(msg)

            async def perform(actors: str) -> Any:
                return await performer(found.args, actors)

            actors = f"{found.by} + {caller.name}"
            return 200, await self.doing.act(
                found.action, actors, found.digest, perform, ticket=ticket, proposal=found.id
            )

        return await self._decided(request, caller, work)

    async def refuse(self, request: Request, caller: Caller, identifier: str) -> Response:
        """End a proposal that waits, so that nobody can approve it: whoever made it withdraws it, others refuse it.

        Recorded as `….withdrawn` or `….refused` of its action, with the reason in the request's body. What cannot be
        recorded does not happen: the proposal waits on. Where nobody knows whether it is recorded it is over.

        Raises:
            NotFound: there is none that the caller may see, or it is approved, refused or withdrawn already.
            ValidationFailed: no reason, and only then: who may not see the proposal does not learn that it is there.
        """

        async def work(ticket: Ticket) -> tuple[int, Any]:
            found = await self.approvals.look(identifier, caller)
            reason = (await parsed(request, Refusal)).reason
            own = found.made_by(caller)
            action = f"{found.action}.{'withdrawn' if own else 'refused'}"

            async def ended(_: str) -> Any:
                return {"proposal": found.id, "reason": reason}

            # first who proposed it, as in the record of an approval
            actors = found.by if caller.name == found.by else f"{found.by} + {caller.name}"
            if not await self.store.describe(
                ticket, action=action, actors=actors, digest=found.digest, proposal=found.id
            ):
                raise gone()
            try:
                done = await self.doing.act(action, actors, found.digest, ended, reason=reason)
            except InDoubt:
                # the log may have it: what it says was refused must not be approved after all
                raise
            except TcdError:
                await self._wait_on(request, found)
                raise
            return 200, done

        return await self._decided(request, caller, work)

    async def _wait_on(self, request: Request, proposal: Proposal) -> None:
        """Put back what this very request took for an act that was not recorded; what another one took may be done."""
        try:
            await self.approvals.put(proposal)
        except TcdError as error:
            # its room was taken, or the store is away: it can be proposed again
            self.log("error", "admin proposal lost", request, action=proposal.action, why=error.detail)

    async def _decided(
        self, request: Request, caller: Caller, work: Callable[[Ticket], Awaitable[tuple[int, Any]]]
    ) -> Response:
        """Do it once, with a line in the audit log; the answer names the action."""
        status, answer = await self.doing.once(request, caller.name, work)
        self.log("warning", "admin act", request, action=answer["action"], actor=caller.name, status=status)
        return JSONResponse(answer, status)

    async def _propose(self, caller: Caller, requires: Requires, mutation: Mutation) -> dict[str, Any]:
        assert requires.scope is not None  # noqa: S101 - a pair without a scope is refused when the app is made
        proposal = Proposal(
            id=self.random(16).hex(),
            action=mutation.action,
            scope=requires.scope,
            by=caller.name,
            kid=caller.principal.kid,
            tenant=caller.tenant,
            everywhere=requires.everywhere,
            digest=mutation.digest,
            shown=mutation.shown,
            until=self.now() + WAITS,
            args=mutation.args,
        )
        await self.approvals.put(proposal)
        return {**proposal.to_json(), **({} if mutation.told is None else {"shown": mutation.told})}
