"""What the PostgreSQL ledger reads, over a pool of connections beside the one that writes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from tcd.errors import Unavailable
from tcd.ledger.postgres_append import (
    RECEIPT,
    STATE,
    chain_key,
    event_page,
    find_chain,
    first_records,
    live_members,
    state_of,
    stored_of,
)
from tcd.ledger.postgres_connect import failures, pool
from tcd.ledger.shared import Member
from tcd.ledger.values import Checkpoint, EventPage, Extent, Idempotent, LedgerStats, SavedState, StoredReceipt
from tcd.receipts.chain import ChainState


class Reader:
    """Queries of a ledger's database."""

    def __init__(self) -> None:
        """Nothing can be read before there is a pool."""
        self._pool: Any = None
        self._closed = False

    @classmethod
    async def reading(cls, url: str) -> Reader:
        """A reader by itself: no member of the ledger, it writes nothing; `disconnect` ends it.

        Raises:
            tcd.errors.Unavailable: it cannot be reached.
        """
        reader = cls()
        with failures("read"):
            reader._pool = await pool(url)
        return reader

    def disconnect(self) -> None:
        """Let go of the connections."""
        self._closed = True
        if self._pool is not None:
            self._pool.terminate()

    def _check_open(self) -> None:
        if self._closed:
            msg = "the ledger is closed"
            raise Unavailable(msg)

    @contextlib.asynccontextmanager
    async def _read(self) -> AsyncIterator[Any]:
        self._check_open()
        with failures("read"):
            async with self._pool.acquire() as connection:
                yield connection

    async def members(self) -> Sequence[Member]:
        """See `SharedLedger.members`."""
        async with self._read() as connection:
            return await live_members(connection)

    async def get(self, head: str) -> StoredReceipt | None:
        """See `Ledger.get`."""
        query = f"SELECT {RECEIPT} FROM tcd_receipt LEFT JOIN tcd_body USING (idx) WHERE head = $1"  # noqa: S608
        async with self._read() as connection:
            row = await connection.fetchrow(query, bytes.fromhex(head))
        return None if row is None else stored_of(row)

    async def erasure(self, index: int) -> StoredReceipt | None:
        """See `Ledger.erasure`."""
        query = (
            f"SELECT {RECEIPT} FROM tcd_receipt LEFT JOIN tcd_body USING (idx) "  # noqa: S608 - constants
            "WHERE idx = (SELECT record FROM tcd_erasure WHERE idx = $1)"
        )
        async with self._read() as connection:
            row = await connection.fetchrow(query, index)
        return None if row is None else stored_of(row)

    async def answer(self, tenant: str, key: str, *, now_us: int) -> Idempotent | None:
        """See `Ledger.answer`."""
        query = "SELECT payload, answer, head, expires_us FROM tcd_answer WHERE tenant = $1 AND key = $2"
        async with self._read() as connection:
            row = await connection.fetchrow(query, tenant.encode(), key.encode())
        found = None if row is None else Idempotent(tenant, key, *row)
        return found if found is not None and found.expires_us > now_us else None

    async def chain(self, chain: str) -> ChainState | None:
        """See `Ledger.chain`."""
        async with self._read() as connection:
            return await find_chain(connection, chain)

    async def chain_records(self, chain: str, *, first: int = 0, limit: int = 1024) -> Sequence[StoredReceipt]:
        """See `Ledger.chain_records`."""
        query = (
            f"SELECT {RECEIPT} FROM tcd_receipt LEFT JOIN tcd_body USING (idx) "  # noqa: S608 - constants
            "WHERE chain = $1 AND seq >= $2 ORDER BY seq LIMIT $3"
        )
        async with self._read() as connection:
            return tuple(map(stored_of, await connection.fetch(query, chain_key(chain), first, limit)))

    async def heads(self, *, first: int = 0, limit: int = 65_536) -> Sequence[bytes]:
        """See `Ledger.heads`."""
        query = "SELECT head FROM tcd_receipt WHERE idx >= $1 ORDER BY idx LIMIT $2"
        async with self._read() as connection:
            return tuple(row[0] for row in await connection.fetch(query, first, limit))

    async def records(self, *, first: int = 0, limit: int = 1024) -> Sequence[StoredReceipt]:
        """See `Ledger.records`."""
        query = (
            f"SELECT {RECEIPT} FROM tcd_receipt LEFT JOIN tcd_body USING (idx) "  # noqa: S608 - constants
            "WHERE idx >= $1 ORDER BY idx LIMIT $2"
        )
        async with self._read() as connection:
            return tuple(map(stored_of, await connection.fetch(query, first, limit)))

    async def erase_records(self, *, first: int, limit: int) -> Sequence[StoredReceipt]:
        """`erase` records from position `first` on, at most `limit`."""
        query = (
            f"SELECT {RECEIPT} FROM tcd_receipt JOIN tcd_body USING (idx) "  # noqa: S608 - constants
            "WHERE idx >= $1 AND typ = 'erase' ORDER BY idx LIMIT $2"
        )
        async with self._read() as connection:
            return tuple(map(stored_of, await connection.fetch(query, first, limit)))

    async def gone(self, *, first: int, end: int) -> Sequence[int]:
        """Positions from `first` to `end` (excluded) whose bodies are not there."""
        query = (
            "SELECT idx FROM tcd_receipt WHERE idx >= $1 AND idx < $2"
            " AND NOT EXISTS (SELECT 1 FROM tcd_body WHERE tcd_body.idx = tcd_receipt.idx) ORDER BY idx"
        )
        async with self._read() as connection:
            return tuple(row["idx"] for row in await connection.fetch(query, first, end))

    async def open_chains(self, *, after: str = "", limit: int = 1024) -> Sequence[ChainState]:
        """See `Ledger.open_chains`."""
        query = f"SELECT {STATE} FROM tcd_chain WHERE NOT closed AND id > $1 ORDER BY id LIMIT $2"  # noqa: S608
        async with self._read() as connection:
            return tuple(map(state_of, await connection.fetch(query, chain_key(after), limit)))

    async def checkpoint(self, *, covering: int | None = None) -> Checkpoint | None:
        """See `Ledger.checkpoint`."""
        where = "ORDER BY size DESC" if covering is None else "WHERE size > $1 ORDER BY size"
        values = () if covering is None else (covering,)
        query = f"SELECT size, root, note FROM tcd_checkpoint {where} LIMIT 1"  # noqa: S608 - constants
        async with self._read() as connection:
            row = await connection.fetchrow(query, *values)
        return None if row is None else Checkpoint(*row)

    async def events(self, *, first: int = 0, limit: int = 10_000) -> EventPage:
        """See `Ledger.events`."""
        async with self._read() as connection:
            return await event_page(connection, first, limit)

    async def states(self) -> Sequence[int]:
        """See `Ledger.states`."""
        query = "SELECT s.events FROM tcd_state s, tcd_head h WHERE s.events <= h.events ORDER BY 1 DESC"
        async with self._read() as connection:
            return tuple(row[0] for row in await connection.fetch(query))

    async def state(self, events: int) -> SavedState:
        """See `Ledger.state`."""
        async with self._read() as connection:
            row = await connection.fetchrow("SELECT digest, data FROM tcd_state WHERE events = $1", events)
        found = None if row is None else SavedState(events, row[1])
        if found is None or state_digest(found) != row[0]:
            msg = f"the saved state after {events} events is damaged or gone"
            raise Unavailable(msg)
        return found

    async def first_records(self, chains: Sequence[str]) -> Mapping[str, StoredReceipt]:
        """See `Ledger.first_records`."""
        async with self._read() as connection:
            return await first_records(connection, chains)

    async def extent(self) -> Extent:
        """See `Ledger.extent`."""
        async with self._read() as connection:
            return Extent(await connection.fetchval("SELECT size FROM tcd_head"))

    async def stats(self) -> LedgerStats:
        """See `Ledger.stats`; counts whole tables, for operators rather than for a hot path."""
        query = (
            "SELECT size, events, (SELECT count(*) FROM tcd_body), (SELECT count(*) FROM tcd_chain), "
            "(SELECT count(*) FROM tcd_answer) FROM tcd_head"
        )
        async with self._read() as connection:
            size, events, bodies, chains, answers = await connection.fetchrow(query)
        return LedgerStats(
            receipts=size,
            bodies=bodies,
            bodies_erased=size - bodies,
            events=events,
            chains=chains,
            answers=answers,
        )


def state_digest(state: SavedState) -> bytes:
    """What a kept state is checked by when it is read."""
    return hashlib.sha256(b"%d:" % state.events + state.data).digest()
