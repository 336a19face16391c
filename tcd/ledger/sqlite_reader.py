"""What the SQLite ledger reads, in its one thread and with its one connection."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tcd.errors import Unavailable
from tcd.ledger.values import Checkpoint, EventPage, Extent, Idempotent, LedgerStats, SavedState, StoredReceipt, Stub
from tcd.receipts.chain import ChainState
from tcd.receipts.issue import Receipt
from tcd.risk_av.errors import ReplayError
from tcd.risk_av.events import event_from_json

#: Chains whose state is remembered without asking the file.
_CACHED_CHAINS: Final = 65_536
_PREFIX: Final = "sha256:"
_RECEIPT: Final = "idx, head, sig, kid, typ, tenant, chain, seq, prev, ts_us"


def chain_key(chain: str) -> bytes:
    """A chain's id as the file has it."""
    return bytes.fromhex(chain.removeprefix(_PREFIX))


def _text(chain: bytes) -> str:
    return _PREFIX + chain.hex()


class Tally(NamedTuple):
    """How many bodies are gone of the receipts from position `first` on; those before are not counted yet."""

    first: int
    gone: int


class Reader:
    """Queries of a ledger file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read through the connection that writes."""
        self._connection = connection
        self._chains: OrderedDict[bytes, ChainState] = OrderedDict()
        #: A count that is further than the file's, which could not be written.
        self._tallied: Tally | None = None
        self._size = self._count("receipt", "idx")
        self._events = self._count("event", "idx")

    def _count(self, table: str, column: str) -> int:
        newest = self._connection.execute(f"SELECT max({column}) FROM {table}").fetchone()[0]  # noqa: S608 - constants
        return 0 if newest is None else int(newest) + 1

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            msg = f"the ledger cannot be read: {getattr(error, 'sqlite_errorname', error)}"
            raise Unavailable(msg, retry_after=1.0) from error

    def remember(self, key: bytes, state: ChainState) -> None:
        """The state of a chain after a batch that is durable."""
        self._chains[key] = state
        self._chains.move_to_end(key)
        if len(self._chains) > _CACHED_CHAINS:
            self._chains.popitem(last=False)

    def chain(self, chain: str) -> ChainState | None:
        """See `Ledger.chain`."""
        key = chain_key(chain)
        known = self._chains.get(key)
        if known is None:
            rows = self._rows("SELECT id, seq, prev, closed, ts_us FROM chain WHERE id = ?", key)
            if not rows:
                return None
            known = _state(rows[0])
            self.remember(key, known)
        return known

    def open_chains(self, after: str, limit: int) -> Sequence[ChainState]:
        """See `Ledger.open_chains`."""
        query = "SELECT id, seq, prev, closed, ts_us FROM chain WHERE NOT closed AND id > ? ORDER BY id LIMIT ?"
        return tuple(map(_state, self._rows(query, chain_key(after), limit)))

    def get(self, head: str) -> StoredReceipt | None:
        """See `Ledger.get`."""
        query = f"SELECT {_RECEIPT}, body FROM receipt LEFT JOIN body USING (idx) WHERE head = ?"  # noqa: S608
        rows = self._rows(query, bytes.fromhex(head))
        return _stored(rows[0]) if rows else None

    def erasure(self, index: int) -> StoredReceipt | None:
        """See `Ledger.erasure`."""
        query = (
            f"SELECT {_RECEIPT}, body FROM receipt LEFT JOIN body USING (idx) "  # noqa: S608 - constants
            "WHERE idx = (SELECT record FROM erasure WHERE idx = ?)"
        )
        rows = self._rows(query, index)
        return _stored(rows[0]) if rows else None

    def chain_records(self, chain: str, first: int, limit: int) -> Sequence[StoredReceipt]:
        """See `Ledger.chain_records`."""
        query = (
            f"SELECT {_RECEIPT}, body FROM receipt LEFT JOIN body USING (idx) "  # noqa: S608 - constants
            "WHERE chain = ? AND seq >= ? ORDER BY seq LIMIT ?"
        )
        return tuple(map(_stored, self._rows(query, chain_key(chain), first, limit)))

    def heads(self, first: int, limit: int) -> Sequence[bytes]:
        """See `Ledger.heads`."""
        rows = self._rows("SELECT head FROM receipt WHERE idx >= ? ORDER BY idx LIMIT ?", first, limit)
        return tuple(row[0] for row in rows)

    def records(self, first: int, limit: int) -> Sequence[StoredReceipt]:
        """See `Ledger.records`."""
        query = (
            f"SELECT {_RECEIPT}, body FROM receipt LEFT JOIN body USING (idx) "  # noqa: S608 - constants
            "WHERE idx >= ? ORDER BY idx LIMIT ?"
        )
        return tuple(map(_stored, self._rows(query, first, limit)))

    def erase_records(self, first: int, limit: int) -> Sequence[StoredReceipt]:
        """`erase` records from position `first` on, at most `limit`."""
        query = (
            f"SELECT {_RECEIPT}, body FROM receipt JOIN body USING (idx) "  # noqa: S608 - constants
            "WHERE idx >= ? AND typ = 'erase' ORDER BY idx LIMIT ?"
        )
        return tuple(map(_stored, self._rows(query, first, limit)))

    def gone(self, first: int, end: int) -> Sequence[int]:
        """Positions from `first` to `end` (excluded) whose bodies are not there."""
        query = (
            "SELECT idx FROM receipt WHERE idx >= ? AND idx < ?"
            " AND NOT EXISTS (SELECT 1 FROM body WHERE body.idx = receipt.idx) ORDER BY idx"
        )
        return tuple(row[0] for row in self._rows(query, first, end))

    def checkpoint(self, covering: int | None = None) -> Checkpoint | None:
        """See `Ledger.checkpoint`."""
        where = "ORDER BY size DESC" if covering is None else "WHERE size > ? ORDER BY size"
        values = () if covering is None else (covering,)
        rows = self._rows(f"SELECT size, root, note FROM checkpoint {where} LIMIT 1", *values)  # noqa: S608 - constants
        return Checkpoint(*rows[0]) if rows else None

    def states(self) -> Sequence[int]:
        """See `Ledger.states`."""
        rows = self._rows("SELECT events FROM state WHERE events <= ? ORDER BY events DESC", self._events)
        return tuple(row[0] for row in rows)

    def state(self, events: int) -> SavedState:
        """See `Ledger.state`."""
        for digest, data in self._rows("SELECT digest, data FROM state WHERE events = ?", events):
            state = SavedState(events, data)
            if digest == state_digest(state):
                return state
        msg = f"the saved state after {events} events is damaged or gone"
        raise Unavailable(msg)

    def first_records(self, chains: Sequence[str]) -> Mapping[str, StoredReceipt]:
        """See `Ledger.first_records`."""
        marks = ",".join("?" * len(chains))
        query = (
            f"SELECT {_RECEIPT}, body FROM receipt LEFT JOIN body USING (idx) "  # noqa: S608 - constants and marks
            f"WHERE seq = 0 AND chain IN ({marks})"
        )
        rows = self._rows(query, *map(chain_key, chains))
        return {_text(row[6]): _stored(row) for row in rows}

    def answer(self, tenant: str, key: str, now_us: int) -> Idempotent | None:
        """See `Ledger.answer`."""
        query = "SELECT tenant, key, payload, answer, head, expires_us FROM answer WHERE tenant = ? AND key = ?"
        rows = self._rows(query, tenant, key)
        found = Idempotent(*rows[0]) if rows else None
        return found if found is not None and found.expires_us > now_us else None

    def events(self, first: int, limit: int) -> EventPage:
        """See `Ledger.events`."""
        rows = self._rows("SELECT event FROM event WHERE idx >= ? ORDER BY idx LIMIT ?", first, limit)
        try:
            return EventPage(first, tuple(event_from_json(json.loads(row[0])) for row in rows))
        except (ValueError, AttributeError) as error:
            msg = f"an event of the ledger from {first} on is damaged: {error}"
            raise ReplayError(msg) from None

    def extent(self) -> Extent:
        """See `Ledger.extent`."""
        return Extent(self._size)

    def _tally(self) -> Tally:
        """What is counted; nothing is where the row is gone or says what cannot be: it is only a cache of a count."""
        if self._tallied is not None:
            return self._tallied
        for said in map(Tally._make, self._rows("SELECT first, gone FROM tally")):
            if 0 <= said.first <= self._size and 0 <= said.gone <= self._size - said.first:
                return said
        return Tally(self._size, 0)

    def stats(self) -> LedgerStats:
        """See `Ledger.stats`, after `Store.count_back` has nothing more to count."""
        ((chains, answers),) = self._rows("SELECT (SELECT count(*) FROM chain), (SELECT count(*) FROM answer)")
        gone = self._tally().gone
        return LedgerStats(
            receipts=self._size,
            bodies=self._size - gone,
            bodies_erased=gone,
            events=self._events,
            chains=chains,
            answers=answers,
        )


def state_digest(state: SavedState) -> bytes:
    """What shows that a kept state is damaged."""
    return hashlib.sha256(b"tcd/ledger-state/v1\0" + state.events.to_bytes(8, "big") + state.data).digest()


def _state(row: tuple[Any, ...]) -> ChainState:
    key, seq, prev, closed, ts_us = row
    return ChainState(_text(key), seq, prev.hex(), bool(closed), ts_us)


def _stored(row: tuple[Any, ...]) -> StoredReceipt:
    idx, head, sig, kid, typ, tenant, chain, seq, prev, ts_us, body = row
    if body is None:
        stub = Stub(sig, kid, typ, tenant, _text(chain), seq, prev.hex(), ts_us)
        return StoredReceipt(idx, head.hex(), None, stub)
    receipt = Receipt(head, body, sig, kid, typ, tenant, _text(chain), seq, prev.hex(), ts_us)
    return StoredReceipt(idx, head.hex(), receipt)
