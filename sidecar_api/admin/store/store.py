"""The store's rules, over any database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar_api.admin.principals import EVERY_TENANT
from sidecar_api.admin.store.driver import Driver, Transaction
from tcd.errors import Conflict, QuotaExceeded, Unavailable

#: Seconds without a sign of life after which an act counts as interrupted.
LEASE: Final = 60.0
#: Seconds that answers are kept for retries.
ANSWERS_LIVE: Final = 86_400.0
#: Nonces and answers at once.
NONCES: Final = 100_000
ANSWERS: Final = 10_000
#: Proposals at once: of one principal, of all of one tenant, and of all who are bound to none. Nobody's take another
#: tenant's room; there are at most as many tenants as principals (64).
OWN_PROPOSALS: Final = 10
TENANT_PROPOSALS: Final = 20
PROPOSALS: Final = 100


class Interrupted(Conflict):
    """An act was begun and its end is not known; it is not done again by itself."""

    code = "interrupted"

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__(
            "this request was begun and the process ended before its answer: see what is in force, then send it with "
            "another idempotency key"
        )


@dataclass(frozen=True, slots=True)
class Ticket:
    """A mutation that is being worked on: whose, and under which idempotency key."""

    principal: str
    key: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """An act whose process ended before its end; `action` is empty when nothing was recorded yet."""

    ticket: Ticket
    action: str
    actors: str
    object: str


class AdminStore:
    """Nonces that were used, answers to retries, proposals that wait, and the principals where they are shared."""

    def __init__(self, driver: Driver, *, owner: str, nonces: int = NONCES) -> None:
        """Keep it in `driver`; `owner` names this process, `nonces` are remembered at most."""
        self._driver = driver
        self._owner = owner
        self._nonces = nonces

    @property
    def shared(self) -> bool:
        """Whether other processes use it too."""
        return self._driver.shared

    @property
    def durable(self) -> bool:
        """Whether it is there after a restart."""
        return self._driver.durable

    async def close(self) -> None:
        """Let go of the database."""
        await self._driver.close()

    # -- nonces

    async def use_nonce(self, kid: str, nonce: str, *, until: float, now: float) -> bool:
        """Use a nonce; whether this is the first time.

        Raises:
            Unavailable: there is no room to remember it, or the database is away: then nothing gets in.
        """
        async with self._driver.transaction() as tx:
            await tx.run("DELETE FROM tcd_admin_nonce WHERE until < $1", now)
            ((known,),) = await tx.run("SELECT count(*) FROM tcd_admin_nonce")
            if known >= self._nonces:
                msg = "too many signed requests at once"
                raise Unavailable(msg, retry_after=60.0)
            new = await tx.run(
                "INSERT INTO tcd_admin_nonce (kid, nonce, until) VALUES ($1, $2, $3) "
                "ON CONFLICT DO NOTHING RETURNING 1",
                *(kid, nonce, until),
            )
        return bool(new)

    # -- answers

    async def begin(self, ticket: Ticket, request: str, *, now: float) -> tuple[int, Any] | None:
        """The answer that a mutation got before; None = it is this process's to do, until `finish` or `abandon`.

        Args:
            ticket: the mutation.
            request: digest of it.
            now: seconds since 1970.

        Raises:
            Conflict: the key was used for another request, or its request is still being worked on.
            Interrupted: it was begun, and its end is not known.
        """
        async with self._driver.transaction() as tx:
            await self._forget(tx, now)
            new = await tx.run(
                "INSERT INTO tcd_admin_act (principal, key, request, state, owner, until) "
                "VALUES ($1, $2, $3, 'running', $4, $5) ON CONFLICT DO NOTHING RETURNING 1",
                *(ticket.principal, ticket.key, request, self._owner, now + LEASE),
            )
            if new:
                return None
            rows = await tx.run(
                "SELECT request, state, status, answer FROM tcd_admin_act WHERE principal = $1 AND key = $2",
                *(ticket.principal, ticket.key),
            )
        # one that was given up in between is tried again by whoever sent it
        before, state, status, answer = rows[0] if rows else (request, "running", None, None)
        if before != request:
            msg = "the idempotency key was used for another request"
            raise Conflict(msg)
        if state == "running":
            msg = "a request with this idempotency key is being worked on"
            raise Conflict(msg, retry_after=1.0)
        if state == "interrupted":
            raise Interrupted
        return int(status), json.loads(answer)

    async def _forget(self, tx: Transaction, now: float) -> None:
        await tx.run("DELETE FROM tcd_admin_act WHERE state <> 'running' AND until < $1", now)
        ((known,),) = await tx.run("SELECT count(*) FROM tcd_admin_act")
        if known >= ANSWERS:
            # the oldest of whoever has most: nobody can push out another's, whose retry would then be done again
            await tx.run(
                "DELETE FROM tcd_admin_act WHERE (principal, key) IN (SELECT principal, key FROM tcd_admin_act "
                "WHERE state <> 'running' AND principal = (SELECT principal FROM tcd_admin_act "
                "WHERE state <> 'running' GROUP BY principal ORDER BY count(*) DESC, principal LIMIT 1) "
                "ORDER BY until LIMIT $1)",
                known - ANSWERS + 1,
            )

    async def describe(self, ticket: Ticket, *, action: str, actors: str, digest: str, proposal: str = "") -> bool:
        """Say what a mutation is, before it is recorded, and take the proposal that it carries out.

        Returns:
            Whether the proposal waited; somebody else may have taken it.
        """
        async with self._driver.transaction() as tx:
            if proposal and not await tx.run("DELETE FROM tcd_admin_proposal WHERE id = $1 RETURNING 1", proposal):
                return False
            await tx.run(
                "UPDATE tcd_admin_act SET action = $3, actors = $4, object = $5 "
                "WHERE principal = $1 AND key = $2 AND state = 'running'",
                *(ticket.principal, ticket.key, action, actors, digest),
            )
        return True

    async def renew(self, ticket: Ticket, *, now: float) -> None:
        """Give a sign of life of a mutation."""
        await self._set(ticket, "until = $4", now + LEASE)

    async def finish(self, ticket: Ticket, status: int, answer: Any, *, now: float) -> None:
        """Keep the answer of a mutation."""
        values = (now + ANSWERS_LIVE, status, json.dumps(answer))
        await self._set(ticket, "state = 'done', until = $4, status = $5, answer = $6", *values)

    async def abandon(self, ticket: Ticket) -> None:
        """Forget a mutation that failed: it may be tried again."""
        async with self._driver.transaction() as tx:
            await tx.run(
                "DELETE FROM tcd_admin_act WHERE principal = $1 AND key = $2 AND owner = $3 AND state = 'running'",
                *(ticket.principal, ticket.key, self._owner),
            )

    async def _set(self, ticket: Ticket, what: str, *values: Any) -> None:
        async with self._driver.transaction() as tx:
            await tx.run(
                f"UPDATE tcd_admin_act SET {what} "  # noqa: S608 - constants of this class
                "WHERE principal = $1 AND key = $2 AND owner = $3 AND state = 'running'",
                *(ticket.principal, ticket.key, self._owner, *values),
            )

    async def orphans(self, *, now: float, every: bool) -> list[Orphan]:
        """Mutations without a sign of life, taken over to be recorded; `every` = those of all other processes too.

        What was not recorded yet is forgotten.
        """
        async with self._driver.transaction() as tx:
            await tx.run(
                "DELETE FROM tcd_admin_act WHERE state = 'running' AND action = '' "
                "AND (until < $3 OR ($2 AND owner <> $1))",
                *(self._owner, every, now),
            )
            rows = await tx.run(
                "UPDATE tcd_admin_act SET owner = $1, until = $4 "
                "WHERE state = 'running' AND (until < $3 OR ($2 AND owner <> $1)) "
                "RETURNING principal, key, action, actors, object",
                *(self._owner, every, now, now + LEASE),
            )
        return [Orphan(Ticket(principal, key), *rest) for principal, key, *rest in rows]

    async def interrupted(self, ticket: Ticket, *, now: float) -> None:
        """That a mutation was interrupted is recorded."""
        await self._set(ticket, "state = 'interrupted', until = $4", now + ANSWERS_LIVE)

    # -- proposals

    async def propose(
        self, identifier: str, proposal: Mapping[str, Any], args: Any, *, until: float, now: float
    ) -> None:
        """Let a proposal wait, of the principal in `by`; `args` may be long, and are read only with this one.

        One that waits already waits on.

        Raises:
            QuotaExceeded: too many of this principal do, or of its `tenant`.
            Unavailable: too many of those do who are bound to no tenant.
        """
        by, tenant = proposal.get("by"), proposal.get("tenant", EVERY_TENANT)
        # alone: what two replicas count at once would let both in
        async with self._driver.transaction(alone=True) as tx:
            await tx.run("DELETE FROM tcd_admin_proposal WHERE until <= $1", now)
            waiting = [json.loads(text) for (text,) in await tx.run("SELECT proposal FROM tcd_admin_proposal")]
            if sum(other.get("by") == by for other in waiting) >= OWN_PROPOSALS:
                msg = f"{OWN_PROPOSALS} of your proposals wait already"
                raise QuotaExceeded(msg, retry_after=60.0)
            known = sum(other.get("tenant", EVERY_TENANT) == tenant for other in waiting)
            if tenant != EVERY_TENANT and known >= TENANT_PROPOSALS:
                msg = f"{TENANT_PROPOSALS} proposals of your tenant wait already"
                raise QuotaExceeded(msg, retry_after=60.0)
            if tenant == EVERY_TENANT and known >= PROPOSALS:
                msg = f"{PROPOSALS} proposals wait already"
                raise Unavailable(msg, retry_after=60.0)
            await tx.run(
                "INSERT INTO tcd_admin_proposal (id, until, proposal, args) VALUES ($1, $2, $3, $4) "
                "ON CONFLICT DO NOTHING",
                *(identifier, until, json.dumps(proposal), json.dumps(args)),
            )

    async def forget(self, *, now: float) -> None:
        """Free what proposals that have waited too long take."""
        async with self._driver.transaction() as tx:
            await tx.run("DELETE FROM tcd_admin_proposal WHERE until <= $1", now)

    async def proposals(self, *, now: float) -> list[Any]:
        """What waits, the oldest first, without args; what has waited too long is forgotten."""
        async with self._driver.transaction() as tx:
            await tx.run("DELETE FROM tcd_admin_proposal WHERE until <= $1", now)
            rows = await tx.run("SELECT proposal FROM tcd_admin_proposal ORDER BY until, id")
        return [json.loads(text) for (text,) in rows]

    async def proposal(self, identifier: str, *, now: float) -> tuple[Any, Any] | None:
        """One that waits, and its args."""
        sql = "SELECT proposal, args FROM tcd_admin_proposal WHERE id = $1 AND until > $2"
        async with self._driver.transaction() as tx:
            rows = await tx.run(sql, identifier, now)
        return (json.loads(rows[0][0]), json.loads(rows[0][1])) if rows else None

    # -- principals

    async def principals(self) -> str | None:
        """The document in force; None before the first."""
        async with self._driver.transaction() as tx:
            rows = await tx.run("SELECT document FROM tcd_admin_principals WHERE id = 1")
        return str(rows[0][0]) if rows else None

    async def replace_principals(self, before: str | None, digest: str, document: str) -> bool:
        """Put a document in force where that of digest `before` is (None: none); whether it was."""
        async with self._driver.transaction() as tx:
            if before is None:
                sql = (
                    "INSERT INTO tcd_admin_principals (id, digest, document) VALUES (1, $1, $2) ON CONFLICT DO NOTHING"
                )
                return bool(await tx.run(f"{sql} RETURNING 1", digest, document))
            sql = "UPDATE tcd_admin_principals SET digest = $1, document = $2 WHERE id = 1 AND digest = $3 RETURNING 1"
            return bool(await tx.run(sql, digest, document, before))
