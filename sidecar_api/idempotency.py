"""One decision per (tenant, idempotency key): same payload, same answer; another payload is a conflict.

Answers live in the ledger, where they are committed together with the decision; here are the requests in
flight, so that concurrent duplicates wait for the first. On a ledger that several shims share the claim is made there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass, field

import msgspec

from sidecar_api.caller_schemas import ReserveRequest, SettleRequest
from sidecar_api.schemas import DiagnoseRequest
from tcd.errors import Conflict, TcdError
from tcd.ledger import Idempotent, Ledger
from tcd.ledger.shared import SharedLedger

#: Seconds between looks at a decision that another shim is making.
_POLL = 0.02
_encoder = msgspec.json.Encoder(order="deterministic")


def payload_digest(request: DiagnoseRequest | ReserveRequest | SettleRequest) -> str:
    """Digest of what is decided on: not of the ids, nor of the deadline, which a retry may change."""
    bare = msgspec.structs.replace(request, request_id=None, idempotency_key=None, deadline_ms=None)
    return hashlib.sha256(_encoder.encode(bare)).hexdigest()


@dataclass(slots=True)
class _Flight:
    payload: str
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    claimed: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to decide for a key; ends with `Idempotency.release`."""

    tenant: str
    key: str
    payload: str


class Idempotency:
    """Requests in flight by key, over the ledger's answers."""

    def __init__(self, ledger: Ledger, *, ttl: float) -> None:
        """Keep answers for `ttl` seconds."""
        self._ledger = ledger
        self._ttl_us = round(ttl * 1e6)
        self._shared = ledger if isinstance(ledger, SharedLedger) else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._flights: dict[tuple[str, str], _Flight] = {}

    async def begin(self, tenant: str, key: str, payload: str, *, now_us: int) -> Claim | Idempotent:
        """Claim a key, or get what was answered. Waits while the first of the same payload is in flight.

        Raises:
            Conflict: the key was or is used for another payload.
        """
        name = (tenant, key)
        while True:
            flight = self._flights.get(name)
            if flight is None:
                # claimed before the ledger is asked: of two duplicates one asks, one waits
                flight = self._flights[name] = _Flight(payload)
                try:
                    found = await self._look_up(tenant, key, flight, now_us)
                except BaseException:
                    self._end(name, flight)
                    raise
                if found is None:
                    return Claim(tenant, key, payload)
                self._end(name, flight)
                self._same(found.payload, payload)
                return found
            self._same(flight.payload, payload)
            await flight.ended.wait()

    async def _look_up(self, tenant: str, key: str, flight: _Flight, now_us: int) -> Idempotent | None:
        """What was answered; None = nothing yet, and nobody else decides now. Waits for another shim that does."""
        shared = self._shared
        while shared is not None and not await shared.claim(tenant, key):
            found = await shared.answer(tenant, key, now_us=now_us)
            if found is not None:
                return found
            await asyncio.sleep(_POLL)
        flight.claimed = shared is not None
        return await self._ledger.answer(tenant, key, now_us=now_us)

    def record(self, claim: Claim, answer: bytes, head: str, *, now_us: int) -> Idempotent:
        """What has to be committed with the decision."""
        return Idempotent(claim.tenant, claim.key, claim.payload, answer, head, now_us + self._ttl_us)

    def release(self, claim: Claim) -> None:
        """The decision is durable, or there will be none; duplicates look again."""
        name = (claim.tenant, claim.key)
        flight = self._flights.get(name)
        if flight is not None:
            self._end(name, flight)

    def _end(self, name: tuple[str, str], flight: _Flight) -> None:
        if self._flights.get(name) is flight:
            del self._flights[name]
        flight.ended.set()
        if flight.claimed and self._shared is not None:
            task = asyncio.get_running_loop().create_task(self._unclaim(self._shared, *name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _unclaim(shared: SharedLedger, tenant: str, key: str) -> None:
        # a connection that is lost took its claims with it
        with contextlib.suppress(TcdError):
            await shared.unclaim(tenant, key)

    @staticmethod
    def _same(known: str, payload: str) -> None:
        if known != payload:
            msg = "the idempotency key was used for another request"
            raise Conflict(msg)
