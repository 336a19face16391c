"""What every request of the admin plane goes through: token, limits, scope, tenant, signature, idempotency, log."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sidecar_api.admin.acts import Acts
from sidecar_api.admin.approvals import WAITS, Approvals, Proposal
from sidecar_api.admin.bootstrap import Bootstrap
from sidecar_api.admin.jobs import Jobs
from sidecar_api.admin.nonces import Nonces
from sidecar_api.admin.once import Once
from sidecar_api.admin.principals import EVERY_TENANT, AdminScope, Principals
from sidecar_api.admin.signatures import BadSignature, Message, Signatures
from sidecar_api.admin.tokens import BadToken, Caller, Tokens
from tcd.errors import Forbidden, InvalidRequest, QuotaExceeded
from tcd.rate_limit import Limit, TokenBuckets
from tcd.telemetry import LogWriter

_FILE: Final = "principals.json"
_ACCEPTED: Final = 202
_KEY_LONGEST: Final = 128
Work = Callable[[str], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One act.

    Attributes:
        action: its name in the log.
        digest: of what it acts on.
        shown: what it would do, for whoever approves it.
        work: does it, given the names of the actors, and returns the answer.
    """

    action: str
    digest: str
    shown: Any
    work: Work


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
        principals: in force; None before the first ones are enrolled: then nobody gets in.
        acts: where mutations are recorded.
        approvals: what waits for a second principal.
        bootstrap: the credential of the first start.
        jobs: what runs in processes of its own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        acts: Acts,
        random: Callable[[int], bytes],
        now: Callable[[], float] = time.time,
        limits: Limits | None = None,
        logs: LogWriter | None = None,
    ) -> None:
        """Keep what has to be kept in `folder`, which exists and is private.

        Raises:
            ConfigError: the principals cannot be read.
        """
        self._path = folder / _FILE
        self.principals = Principals.load(self._path) if self._path.exists() else None
        self.acts = acts
        self.random = random
        self.now = now
        self.logs = logs
        self.approvals = Approvals(now=now)
        self.bootstrap = Bootstrap(folder, now=now)
        self.jobs = Jobs(folder / "jobs", random=random, now=now)
        self.signatures = Signatures(Nonces(), now=now)
        self._once = Once()
        self._limits = limits or Limits()
        self._buckets = {
            "address": TokenBuckets(self._limits.address, max_keys=10_000),
            "principal": TokenBuckets(self._limits.principal, max_keys=1000),
            "signed": TokenBuckets(self._limits.signed, max_keys=1000),
        }

    def first_start(self) -> str | None:
        """The bootstrap credential to print, when there are no principals and none was printed yet."""
        return None if self.principals is not None else self.bootstrap.create(self.random)

    def install(self, principals: Principals) -> None:
        """Put principals in force, durably."""
        principals.save(self._path)
        self.principals = principals

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
            caller = Tokens(self.principals, now=self.now).verify(_single(request, "authorization"))
            self.charge("principal", caller.name)
            if requires.scope is not None and requires.scope not in caller.scopes:
                msg = f"the scope {requires.scope} is needed"
                raise Forbidden(msg)
            if requires.everywhere and caller.tenant != EVERY_TENANT:
                msg = "this is not for principals of one tenant"
                raise Forbidden(msg)
            if requires.mutates:
                self.charge("signed", caller.name)
                self.signatures.verify(await message_of(request), caller.principal)
                _idempotency_key(request)
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

        async def work() -> tuple[int, Any]:
            if requires.pair:
                return _ACCEPTED, self._propose(caller, requires, mutation)
            return 200, await self.act(mutation.action, caller.name, mutation.digest, mutation.work)

        status, answer = await self.once(request, caller, work)
        self.log("warning", "admin act", request, action=mutation.action, actor=caller.name, status=status)
        return JSONResponse(answer, status)

    async def once(
        self, request: Request, caller: Caller, work: Callable[[], Awaitable[tuple[int, Any]]]
    ) -> tuple[int, Any]:
        """The answer of `work` under the request's idempotency key."""
        body = hashlib.sha256(await request.body()).hexdigest()
        target = f"{request.method} {request.url.path}?{request.url.query} {body}"
        return await self._once.run(caller.name, _idempotency_key(request), target, work)

    async def act(self, action: str, actors: str, digest: str, work: Work) -> dict[str, Any]:
        """Record an act, then do it; a failure is recorded too."""
        receipt = await self.acts.record(action, actors, digest)
        try:
            done = await work(actors)
        except BaseException:
            await self.acts.record(f"{action}.failed", actors, digest)
            raise
        return {"action": action, "actors": actors.split(" + "), "object": digest, "receipt": receipt, "result": done}

    def _propose(self, caller: Caller, requires: Requires, mutation: Mutation) -> dict[str, Any]:
        assert requires.scope is not None  # noqa: S101 - a pair without a scope is refused when the app is made
        proposal = Proposal(
            id=self.random(16).hex(),
            action=mutation.action,
            scope=requires.scope,
            by=caller.name,
            kid=caller.principal.kid,
            tenant=caller.tenant,
            digest=mutation.digest,
            shown=mutation.shown,
            until=self.now() + WAITS,
            work=mutation.work,
        )
        self.approvals.put(proposal)
        return proposal.to_json()


async def message_of(request: Request) -> Message:
    """The request as signatures cover it; fields that came twice are joined, as RFC 9421 says."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    query = request.scope["query_string"].decode("latin-1")
    path = (request.scope.get("raw_path") or request.scope["path"].encode()).decode("latin-1")
    url = f"{request.scope['scheme']}://{headers.get('host', '')}{path}" + (f"?{query}" if query else "")
    return Message(request.method, url, headers, await request.body())


def _single(request: Request, name: str) -> str | None:
    """A field that may come once."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        msg = f"{name} came twice"
        raise InvalidRequest(msg)
    return values[0] if values else None


def _idempotency_key(request: Request) -> str:
    key = _single(request, "idempotency-key") or ""
    if not (0 < len(key) <= _KEY_LONGEST and key.isascii() and key.isprintable()):
        msg = "Idempotency-Key, 1 to 128 visible ASCII characters, is needed"
        raise InvalidRequest(msg)
    return key
