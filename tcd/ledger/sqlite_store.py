"""The SQLite ledger inside its one thread: one connection that writes, reads and checkpoints the WAL.

Debian 12's SQLite may corrupt a WAL when a second connection checkpoints at the wrong moment; with one connection and
a lock file there is no second one. `synchronous=FULL`: a commit that returned survives a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tcd.errors import ConfigError, Conflict, Unavailable
from tcd.ledger.port import (
    Appended,
    Batch,
    Checkpoint,
    EventPage,
    Idempotent,
    LedgerStats,
    StoredReceipt,
    check_checkpoint,
    next_states,
)
from tcd.ledger.sqlite_schema import prepare
from tcd.receipts.chain import ChainState
from tcd.receipts.issue import Receipt
from tcd.risk_av.events import event_from_json, event_to_json

#: Chains whose state is remembered without asking the file.
_CACHED_CHAINS: Final = 65_536
_PREFIX: Final = "sha256:"
_RECEIPT: Final = "idx, head, sig, kid, typ, tenant, chain, seq, prev, ts_us"


def _chain_key(chain: str) -> bytes:
    return bytes.fromhex(chain.removeprefix(_PREFIX))


def _text(chain: bytes) -> str:
    return _PREFIX + chain.hex()


class _Lock:
    """An advisory lock on a file beside the ledger: a second process fails at once instead of corrupting it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            msg = f"another process uses the ledger in {path.parent}; remedy: stop it, or choose another data directory"
            raise ConfigError(msg) from None

    def release(self) -> None:
        os.close(self._fd)


def _connect(path: Path) -> sqlite3.Connection:
    # SQLite gives the -wal and -shm files the mode of the database
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=True)
    try:
        for pragma in ("trusted_schema=OFF", "mmap_size=0", "journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        prepare(connection)
    except BaseException:
        connection.close()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return connection


class Store:
    """A ledger file. Every method runs in the thread that made it."""

    def __init__(self, path: Path) -> None:
        """Open or make the ledger at `path`; its directory exists.

        Raises:
            ConfigError: another process uses it, or it is none or a newer one.
        """
        self._lock = _Lock(path.with_suffix(".lock"))
        try:
            self._connection = _connect(path)
            self._load()
        except sqlite3.Error as error:
            self._lock.release()
            msg = f"the ledger {path} cannot be opened: {error}; remedy: restore it, or choose another data directory"
            raise ConfigError(msg) from None
        except BaseException:
            self._lock.release()
            raise

    def _load(self) -> None:
        self._chains: OrderedDict[bytes, ChainState] = OrderedDict()
        self._size = self._count("receipt", "idx")
        self._events = self._count("event", "idx")

    def _count(self, table: str, column: str) -> int:
        newest = self._connection.execute(f"SELECT max({column}) FROM {table}").fetchone()[0]  # noqa: S608 - constants
        return 0 if newest is None else int(newest) + 1

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
        self._lock.release()

    # -- writing -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and durable when the block was left without an error."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError):
                raise
            if isinstance(error, sqlite3.Error):
                msg = f"the ledger cannot be written: {getattr(error, 'sqlite_errorname', error)}"
                raise Unavailable(msg, retry_after=1.0) from error
            raise

    def append(self, batch: Batch, now_us: int, expected_size: int | None) -> Appended:
        """See `Ledger.append`."""
        if expected_size is not None and expected_size != self._size:
            msg = f"the ledger has {self._size} receipts, not {expected_size}"
            raise Conflict(msg)
        chains = next_states(batch.receipts, self.chain)
        try:
            with self._transaction() as connection:
                self._write(connection, batch, chains, now_us)
        except sqlite3.IntegrityError as error:
            taken = "answer." in str(error)
            msg = "the idempotency key is taken" if taken else "a receipt is there already"
            raise Conflict(msg) from None
        for key, state in chains.items():
            self._remember(_chain_key(key), state)
        first = self._size
        self._size += len(batch.receipts)
        self._events += len(batch.events)
        return Appended(self._size, self._events, tuple(range(first, self._size)))

    def _write(self, connection: sqlite3.Connection, batch: Batch, chains: dict[str, ChainState], now_us: int) -> None:
        connection.execute("DELETE FROM answer WHERE expires_us <= ?", (now_us,))
        connection.executemany(
            "INSERT INTO receipt VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (i, r.head, r.sig, r.kid, r.typ, r.tenant, _chain_key(r.chain), r.seq, bytes.fromhex(r.prev), r.ts_us)
                for i, r in enumerate(batch.receipts, self._size)
            ],
        )
        connection.executemany(
            "INSERT INTO body VALUES (?, ?)", [(i, r.body) for i, r in enumerate(batch.receipts, self._size)]
        )
        connection.executemany(
            "INSERT OR REPLACE INTO chain VALUES (?, ?, ?, ?, ?)",
            [(_chain_key(s.id), s.seq, bytes.fromhex(s.prev), int(s.closed), s.ts_us) for s in chains.values()],
        )
        connection.executemany(
            "INSERT INTO event VALUES (?, ?)",
            [
                (i, json.dumps(event_to_json(event), separators=(",", ":")))
                for i, event in enumerate(batch.events, self._events)
            ],
        )
        connection.executemany(
            "INSERT INTO answer VALUES (?, ?, ?, ?, ?, ?)",
            [(a.tenant, a.key, a.payload, a.answer, a.head, a.expires_us) for a in batch.answers],
        )

    def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See `Ledger.put_checkpoint`."""
        newest = self._connection.execute("SELECT max(size) FROM checkpoint").fetchone()[0]
        check_checkpoint(checkpoint, newest=newest or 0, size=self._size)
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO checkpoint VALUES (?, ?, ?)", (checkpoint.size, checkpoint.root, checkpoint.note)
            )

    # -- reading -----------------------------------------------------------------------------------------------

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            msg = f"the ledger cannot be read: {getattr(error, 'sqlite_errorname', error)}"
            raise Unavailable(msg, retry_after=1.0) from error

    def _remember(self, key: bytes, state: ChainState) -> None:
        self._chains[key] = state
        self._chains.move_to_end(key)
        if len(self._chains) > _CACHED_CHAINS:
            self._chains.popitem(last=False)

    def chain(self, chain: str) -> ChainState | None:
        """See `Ledger.chain`."""
        key = _chain_key(chain)
        known = self._chains.get(key)
        if known is None:
            rows = self._rows("SELECT id, seq, prev, closed, ts_us FROM chain WHERE id = ?", key)
            if not rows:
                return None
            known = _state(rows[0])
            self._remember(key, known)
        return known

    def open_chains(self, after: str, limit: int) -> Sequence[ChainState]:
        """See `Ledger.open_chains`."""
        query = "SELECT id, seq, prev, closed, ts_us FROM chain WHERE NOT closed AND id > ? ORDER BY id LIMIT ?"
        return tuple(map(_state, self._rows(query, _chain_key(after), limit)))

    def get(self, head: str) -> StoredReceipt | None:
        """See `Ledger.get`."""
        query = f"SELECT {_RECEIPT}, body FROM receipt LEFT JOIN body USING (idx) WHERE head = ?"  # noqa: S608
        rows = self._rows(query, bytes.fromhex(head))
        return _stored(rows[0]) if rows else None

    def chain_records(self, chain: str, first: int, limit: int) -> Sequence[StoredReceipt]:
        """See `Ledger.chain_records`."""
        query = (
            f"SELECT {_RECEIPT}, body FROM receipt LEFT JOIN body USING (idx) "  # noqa: S608 - constants
            "WHERE chain = ? AND seq >= ? ORDER BY seq LIMIT ?"
        )
        return tuple(map(_stored, self._rows(query, _chain_key(chain), first, limit)))

    def heads(self, first: int, limit: int) -> Sequence[bytes]:
        """See `Ledger.heads`."""
        rows = self._rows("SELECT head FROM receipt WHERE idx >= ? ORDER BY idx LIMIT ?", first, limit)
        return tuple(row[0] for row in rows)

    def checkpoint(self, covering: int | None) -> Checkpoint | None:
        """See `Ledger.checkpoint`."""
        where = "ORDER BY size DESC" if covering is None else "WHERE size > ? ORDER BY size"
        values = () if covering is None else (covering,)
        rows = self._rows(f"SELECT size, root, note FROM checkpoint {where} LIMIT 1", *values)  # noqa: S608 - constants
        return Checkpoint(*rows[0]) if rows else None

    def answer(self, tenant: str, key: str, now_us: int) -> Idempotent | None:
        """See `Ledger.answer`."""
        query = "SELECT tenant, key, payload, answer, head, expires_us FROM answer WHERE tenant = ? AND key = ?"
        rows = self._rows(query, tenant, key)
        found = Idempotent(*rows[0]) if rows else None
        return found if found is not None and found.expires_us > now_us else None

    def events(self, first: int, limit: int) -> EventPage:
        """See `Ledger.events`."""
        rows = self._rows("SELECT event FROM event WHERE idx >= ? ORDER BY idx LIMIT ?", first, limit)
        return EventPage(first, tuple(event_from_json(json.loads(row[0])) for row in rows))

    def stats(self) -> LedgerStats:
        """See `Ledger.stats`; counts the whole tables, for operators rather than for a hot path."""
        counts = {
            table: self._rows(f"SELECT count(*) FROM {table}")[0][0]  # noqa: S608 - constants
            for table in ("body", "chain", "answer")
        }
        return LedgerStats(
            receipts=self._size,
            bodies=counts["body"],
            bodies_evicted=self._size - counts["body"],
            events=self._events,
            chains=counts["chain"],
            answers=counts["answer"],
        )


def _state(row: tuple[Any, ...]) -> ChainState:
    key, seq, prev, closed, ts_us = row
    return ChainState(_text(key), seq, prev.hex(), bool(closed), ts_us)


def _stored(row: tuple[Any, ...]) -> StoredReceipt:
    idx, head, sig, kid, typ, tenant, chain, seq, prev, ts_us, body = row
    if body is None:
        return StoredReceipt(idx, head.hex(), None)
    receipt = Receipt(head, body, sig, kid, typ, tenant, _text(chain), seq, prev.hex(), ts_us)
    return StoredReceipt(idx, head.hex(), receipt)
