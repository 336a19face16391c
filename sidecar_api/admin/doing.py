"""How an act of the admin plane is done: once, after it is recorded, and with a record of an end that nobody saw."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request

from sidecar_api.admin.acts import Acts
from sidecar_api.admin.approvals import gone
from sidecar_api.admin.incoming import idempotency_key
from sidecar_api.admin.store import AdminStore, Ticket
from sidecar_api.admin.store.store import LEASE
from tcd.errors import TcdError

#: Does an act, given the names of the actors; its result is in the answer.
Work = Callable[[str], Awaitable[Any]]


class Doing:
    """Does acts."""

    def __init__(self, store: AdminStore, acts: Acts, *, now: Callable[[], float], log: Callable[..., None]) -> None:
        """Nothing is done yet.

        Args:
            store: where tickets are kept.
            acts: where acts are recorded.
            now: seconds since 1970.
            log: see `Plane.log`.
        """
        self._store = store
        self._acts = acts
        self._now = now
        self._log = log

    async def recover(self, *, starting: bool = False) -> int:
        """Record acts whose process ended before their end as `….interrupted`; how many there were.

        They are not done again: what was recorded may have been done or not. A store of this process alone has no other
        that could still be working when it starts.
        """
        await self._store.forget(now=self._now())
        found = await self._store.orphans(now=self._now(), every=starting and not self._store.shared)
        for orphan in found:
            await self._acts.record(f"{orphan.action}.interrupted", orphan.actors, orphan.object)
            await self._store.interrupted(orphan.ticket, now=self._now())
        return len(found)

    async def once(
        self, request: Request, actor: str, work: Callable[[Ticket], Awaitable[tuple[int, Any]]]
    ) -> tuple[int, Any]:
        """The answer of `work` under the actor's name and the request's idempotency key.

        It runs once, and again only when it was refused.

        After any other end (cancelled, or an error that nobody expected) what it did is not known: the ticket stays,
        and without signs of life it is found as interrupted (`recover`).

        Raises:
            Conflict, Interrupted: as `AdminStore.begin` says.
        """
        body = hashlib.sha256(await request.body()).hexdigest()
        target = f"{request.method} {request.url.path}?{request.url.query} {body}"
        ticket = Ticket(actor, idempotency_key(request))
        known = await self._store.begin(ticket, hashlib.sha256(target.encode()).hexdigest(), now=self._now())
        if known is not None:
            return known
        living = asyncio.ensure_future(self._live(ticket))
        try:
            status, answer = await work(ticket)
        except TcdError:
            with contextlib.suppress(TcdError):
                await self._store.abandon(ticket)
            raise
        finally:
            living.cancel()
        try:
            await self._store.finish(ticket, status, answer, now=self._now())
        except TcdError as error:
            # it is done, and recorded: a retry will hear that its end is not known
            self._log("error", "admin answer not kept", request, why=error.detail)
        return status, answer

    async def _live(self, ticket: Ticket) -> None:
        """Signs of life of a mutation, until it is cancelled."""
        while True:
            await asyncio.sleep(LEASE / 4)
            # the database may be away for a while; the lease outlives three of these
            with contextlib.suppress(TcdError):
                await self._store.renew(ticket, now=self._now())

    async def act(
        self,
        action: str,
        actors: str,
        digest: str,
        work: Work,
        *,
        ticket: Ticket | None = None,
        proposal: str = "",
        reason: str = "",
    ) -> dict[str, Any]:
        """Record an act, then do it; a refusal is recorded too, and so is an end that says nothing of what was done.

        Args:
            action: its name in the log.
            actors: who.
            digest: of what it acts on.
            work: does it.
            ticket: under which `once` runs it; without one an interruption is not noticed.
            proposal: that it carries out; it is spent now, whatever follows.
            reason: in the record, where somebody gave one.

        Raises:
            NotFound: somebody else has taken the proposal.
        """
        if ticket is not None and not await self._store.describe(
            ticket, action=action, actors=actors, digest=digest, proposal=proposal
        ):
            raise gone()
        receipt = await self._acts.record(action, actors, digest, reason=reason)
        try:
            done = await work(actors)
        except TcdError:
            await self._acts.record(f"{action}.failed", actors, digest)
            raise
        except BaseException:
            if ticket is None:
                await self._acts.record(f"{action}.interrupted", actors, digest)
            raise
        return {"action": action, "actors": actors.split(" + "), "object": digest, "receipt": receipt, "result": done}
