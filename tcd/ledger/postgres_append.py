"""One append: the statements of its transaction, all under the lock of the head row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from tcd.errors import Conflict
from tcd.ledger.rules import check_erasure, erased_by, next_states
from tcd.ledger.shared import Fenced, Member
from tcd.ledger.values import Batch, EventPage, StoredReceipt, Stub
from tcd.receipts.chain import ChainState
from tcd.receipts.issue import Receipt
from tcd.risk_av.events import event_from_json, event_to_json

PREFIX: Final = "sha256:"
#: Chains of nobody in particular have this member.
NOBODY: Final = 0
RECEIPT: Final = "idx, head, sig, kid, typ, tenant, chain, seq, prev, ts_us, body"
STATE: Final = "id, seq, prev, closed, ts_us"
_PAGE: Final = 10_000
_WRITE: Final = """
WITH receipts AS (
    INSERT INTO tcd_receipt
    SELECT $1::bigint + n - 1, head, sig, kid, typ, tenant, chain, seq, prev, ts_us
    FROM unnest($2::bytea[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::bytea[], $8::bigint[], $9::bytea[],
        $10::bigint[]) WITH ORDINALITY AS r(head, sig, kid, typ, tenant, chain, seq, prev, ts_us, n)),
bodies AS (
    INSERT INTO tcd_body SELECT $1::bigint + n - 1, body FROM unnest($11::bytea[]) WITH ORDINALITY AS b(body, n)),
chains AS (
    INSERT INTO tcd_chain
    SELECT id, seq, prev, closed, ts_us, member
    FROM unnest($12::bytea[], $13::bigint[], $14::bytea[], $15::boolean[], $16::bigint[], $28::bigint[])
        AS c(id, seq, prev, closed, ts_us, member)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, prev = excluded.prev, closed = excluded.closed,
        ts_us = excluded.ts_us, member = excluded.member),
events AS (
    INSERT INTO tcd_event SELECT $17::bigint + n - 1, event FROM unnest($18::text[]) WITH ORDINALITY AS e(event, n)),
answers AS (
    INSERT INTO tcd_answer
    SELECT tenant, key, payload, answer, head, expires_us
    FROM unnest($19::bytea[], $20::bytea[], $21::text[], $23::bytea[], $24::text[], $25::bigint[])
        AS a(tenant, key, payload, answer, head, expires_us)),
head AS (UPDATE tcd_head SET size = $26, events = $27)
UPDATE tcd_member SET batch = batch + 1, seen = clock_timestamp(), size = $26, events = $27 WHERE epoch = $22
"""

_ERASE_ANSWERS: Final = (
    "DELETE FROM tcd_answer WHERE head IN (SELECT encode(head, 'hex') FROM tcd_receipt WHERE idx = ANY($1::bigint[]))"
)
_ERASED_BY: Final = "INSERT INTO tcd_erasure SELECT * FROM unnest($1::bigint[], $2::bigint[]) ON CONFLICT DO NOTHING"


@dataclass(frozen=True, slots=True)
class Held:
    """The head row, locked: sizes of the log, and this member's last batch."""

    size: int
    events: int
    batch: int


@dataclass(frozen=True, slots=True)
class Ends:
    """Where the log ends after a member's batch, and the number of the batch."""

    batch: int
    size: int
    events: int


async def hold(connection: Any, epoch: int) -> Held:
    """Lock the log, as a member that may write.

    Raises:
        Fenced: it may not.
    """
    size, events = await connection.fetchrow("SELECT size, events FROM tcd_head FOR UPDATE")
    # a statement of its own: it must see what was committed while the lock was waited for
    batch = await connection.fetchval("SELECT batch FROM tcd_member WHERE epoch = $1 AND live", epoch)
    if batch is None:
        msg = "this shim was declared lost: it has to join again"
        raise Fenced(msg, retry_after=1.0)
    return Held(size, events, batch)


async def ends(connection: Any, epoch: int) -> Ends:
    """What is known of a member's last batch."""
    return Ends(*await connection.fetchrow("SELECT batch, size, events FROM tcd_member WHERE epoch = $1", epoch))


@dataclass(slots=True)
class LockedRoot:
    """`Root` over the connection that holds the lock."""

    connection: Any
    events: int
    unowned: set[str] = field(default_factory=set)

    async def page(self, first: int) -> EventPage:
        """See `Root.page`."""
        return await event_page(self.connection, first)

    async def chain(self, chain: str) -> ChainState | None:
        """See `Root.chain`."""
        return await find_chain(self.connection, chain)

    async def members(self) -> Sequence[Member]:
        """See `Root.members`."""
        return await live_members(self.connection)

    async def orphans(self, limit: int = 512) -> Sequence[ChainState]:
        """See `Root.orphans`."""
        query = (
            f"SELECT {STATE} FROM tcd_chain c WHERE NOT closed AND member <> {NOBODY} "  # noqa: S608 - constants
            "AND NOT EXISTS (SELECT 1 FROM tcd_member m WHERE m.epoch = c.member AND m.live) LIMIT $1"
        )
        return tuple(map(state_of, await self.connection.fetch(query, limit)))

    async def first_records(self, chains: Sequence[str]) -> Mapping[str, StoredReceipt]:
        """See `Root.first_records`."""
        return await first_records(self.connection, chains)

    async def retire(self, epoch: int) -> bool:
        """See `Root.retire`."""
        query = "UPDATE tcd_member SET live = false WHERE epoch = $1 AND live RETURNING epoch"
        return await self.connection.fetchval(query, epoch) is not None


async def write(root: LockedRoot, held: Held, epoch: int, batch: Batch, now_us: int) -> Ends:
    """Append a batch to the locked log.

    Raises:
        Conflict: see `Ledger.append`.
    """
    connection = root.connection
    check_erasure(batch.erase, size=held.size)
    known: dict[str, ChainState] = {}
    if batch.receipts:
        ids = sorted({chain_key(r.chain) for r in batch.receipts})
        rows = await connection.fetch(f"SELECT {STATE} FROM tcd_chain WHERE id = ANY($1::bytea[])", ids)  # noqa: S608
        known = {state.id: state for state in map(state_of, rows)}
    chains = next_states(batch.receipts, known.get)
    if batch.erase:
        await connection.execute(_ERASE_ANSWERS, batch.erase)
        await connection.execute("DELETE FROM tcd_body WHERE idx = ANY($1::bigint[])", batch.erase)
        named = erased_by(batch, held.size)
        await connection.execute(_ERASED_BY, list(named), list(named.values()))
    if batch.answers:
        await connection.execute("DELETE FROM tcd_answer WHERE expires_us <= $1", now_us)
    size, events = held.size + len(batch.receipts), held.events + len(batch.events)
    members = [NOBODY if state.id in root.unowned else epoch for state in chains.values()]
    try:
        await connection.execute(_WRITE, *_values(held, epoch, batch, tuple(chains.values())), size, events, members)
    except asyncpg.UniqueViolationError as error:
        taken = error.constraint_name == "tcd_answer_pkey"
        msg = "the idempotency key is taken" if taken else "a receipt is there already"
        raise Conflict(msg) from None
    return Ends(held.batch + 1, size, events)


def _values(held: Held, epoch: int, batch: Batch, chains: Sequence[ChainState]) -> list[Any]:
    receipts, answers = batch.receipts, batch.answers
    return [
        held.size,
        [r.head for r in receipts],
        [r.sig for r in receipts],
        [r.kid for r in receipts],
        [r.typ for r in receipts],
        [r.tenant for r in receipts],
        [chain_key(r.chain) for r in receipts],
        [r.seq for r in receipts],
        [bytes.fromhex(r.prev) for r in receipts],
        [r.ts_us for r in receipts],
        [r.body for r in receipts],
        [chain_key(s.id) for s in chains],
        [s.seq for s in chains],
        [bytes.fromhex(s.prev) for s in chains],
        [s.closed for s in chains],
        [s.ts_us for s in chains],
        held.events,
        [json.dumps(event_to_json(event), separators=(",", ":")) for event in batch.events],
        [a.tenant.encode() for a in answers],
        [a.key.encode() for a in answers],
        [a.payload for a in answers],
        epoch,
        [a.answer for a in answers],
        [a.head for a in answers],
        [a.expires_us for a in answers],
    ]


async def event_page(connection: Any, first: int, limit: int = _PAGE) -> EventPage:
    """Events from position `first` on."""
    rows = await connection.fetch("SELECT event FROM tcd_event WHERE idx >= $1 ORDER BY idx LIMIT $2", first, limit)
    return EventPage(first, tuple(event_from_json(json.loads(row[0])) for row in rows))


async def live_members(connection: Any) -> Sequence[Member]:
    """Members that may write."""
    rows = await connection.fetch("SELECT epoch, replica, seen::text FROM tcd_member WHERE live ORDER BY epoch")
    return tuple(Member(*row) for row in rows)


async def find_chain(connection: Any, chain: str) -> ChainState | None:
    """State of a chain."""
    query = f"SELECT {STATE} FROM tcd_chain WHERE id = $1"  # noqa: S608 - constants
    row = await connection.fetchrow(query, chain_key(chain))
    return None if row is None else state_of(row)


def chain_key(chain: str) -> bytes:
    """A chain's id as it is stored."""
    return bytes.fromhex(chain.removeprefix(PREFIX))


def state_of(row: Any) -> ChainState:
    """A row of `STATE`."""
    key, seq, prev, closed, ts_us = row
    return ChainState(PREFIX + key.hex(), seq, prev.hex(), closed, ts_us)


async def first_records(connection: Any, chains: Sequence[str]) -> Mapping[str, StoredReceipt]:
    """The first record of each chain whose body is kept."""
    query = (
        f"SELECT {RECEIPT} FROM tcd_receipt LEFT JOIN tcd_body USING (idx) "  # noqa: S608 - constants
        "WHERE seq = 0 AND chain = ANY($1::bytea[])"
    )
    rows = await connection.fetch(query, [chain_key(chain) for chain in chains])
    return {PREFIX + row["chain"].hex(): stored_of(row) for row in rows}


def stored_of(row: Any) -> StoredReceipt:
    """A row of `RECEIPT`."""
    idx, head, sig, kid, typ, tenant, chain, seq, prev, ts_us, body = row
    if body is None:
        stub = Stub(sig, kid, typ, tenant, PREFIX + chain.hex(), seq, prev.hex(), ts_us)
        return StoredReceipt(idx, head.hex(), None, stub)
    receipt = Receipt(head, body, sig, kid, typ, tenant, PREFIX + chain.hex(), seq, prev.hex(), ts_us)
    return StoredReceipt(idx, head.hex(), receipt)
