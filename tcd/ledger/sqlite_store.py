"""The SQLite ledger inside its one thread: one connection that writes, reads and checkpoints the WAL.

Debian 12's SQLite may corrupt a WAL when a second connection checkpoints at the wrong moment; with one connection and
a lock file there is no second one. `synchronous=FULL`: a commit that returned survives a power cut.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tcd.errors import ConfigError, Conflict, Unavailable
from tcd.files import sync_directory
from tcd.ledger.rules import KEPT_STATES, check_checkpoint, check_erasure, check_state, next_states
from tcd.ledger.sqlite_batch import MAX_ROWS, insert, lay_out, rows_of
from tcd.ledger.sqlite_reader import Reader, Tally, chain_key, state_digest
from tcd.ledger.sqlite_schema import prepare
from tcd.ledger.values import Appended, Batch, Checkpoint, LedgerStats, SavedState

#: The WAL is copied back when it has 16 MiB: that takes two more syncs, and at SQLite's 4 MiB a busy shim did it every
#: fifth commit.
_WAL_PAGES: Final = "wal_autocheckpoint=4000"
#: With `secure_delete` what is deleted is overwritten by zeros in the file.
_PRAGMAS: Final = (
    *("trusted_schema=OFF", "mmap_size=0", "secure_delete=ON"),
    *("journal_mode=WAL", "synchronous=FULL"),
)
_EMPTY_WAL: Final = "PRAGMA wal_checkpoint(TRUNCATE)"
#: No answer expires later.
_NEVER: Final = (1 << 63) - 1


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
        for pragma in (*_PRAGMAS, _WAL_PAGES):
            connection.execute(f"PRAGMA {pragma}")
        prepare(connection)
        lay_out(connection)
        # a crash between an erasure and `scrub` leaves the erased bodies in the WAL
        connection.execute(_EMPTY_WAL)
    except BaseException:
        connection.close()
        raise
    sync_directory(path.parent)
    return connection


class Store(Reader):
    """A ledger file. Every method runs in the thread that made it."""

    def __init__(self, path: Path) -> None:
        """Open or make the ledger at `path`; its directory exists.

        Raises:
            ConfigError: another process uses it, or it is none or a newer one.
        """
        self._lock = _Lock(path.with_suffix(".lock"))
        try:
            super().__init__(_connect(path))
            self._oldest_us = self._expiring(after_us=-1)
        except sqlite3.Error as error:
            self._lock.release()
            msg = f"the ledger {path} cannot be opened: {error}; remedy: restore it, or choose another data directory"
            raise ConfigError(msg) from None
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
        self._lock.release()

    def tidy(self) -> None:
        """Copy the WAL back into the file."""
        # a disk that fails says so at the next commit, to somebody who waits for it
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    # -- writing -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _written(self, *, begin: bool = False) -> Iterator[sqlite3.Connection]:
        """All or nothing, and durable when the block was left without an error.

        Args:
            begin: the block is of more statements than one, which would be a transaction by itself.
        """
        try:
            if begin:
                self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection
            if begin:
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
        check_erasure(batch.erase, size=self._size)
        chains = next_states(batch.receipts, self.chain)
        expired = self._oldest_us <= now_us
        oldest = self._expiring(after_us=now_us) if expired else self._oldest_us
        rows = rows_of(batch, size=self._size, events=self._events, expired_us=now_us if expired else None)
        try:
            with self._written(begin=len(rows) > MAX_ROWS) as connection:
                insert(connection, rows)
        except sqlite3.IntegrityError as error:
            taken = "answer." in str(error)
            msg = "the idempotency key is taken" if taken else "a receipt is there already"
            raise Conflict(msg) from None
        for chain, state in chains.items():
            self.remember(chain_key(chain), state)
        if batch.erase:
            # of what the file has not counted, some may be gone now
            self._tallied = None
        first = self._size
        self._size += len(batch.receipts)
        self._events += len(batch.events)
        # what an erasure took may have been the oldest: then this looks once too often
        self._oldest_us = min((oldest, *(a.expires_us for a in batch.answers)))
        return Appended(self._size, self._events, tuple(range(first, self._size)))

    def _expiring(self, *, after_us: int) -> int:
        """When the first stored answer expires of those that do so later."""
        query = "SELECT ifnull(min(expires_us), ?) FROM answer WHERE expires_us > ?"
        return int(self._rows(query, _NEVER, after_us)[0][0])

    def scrub(self) -> None:
        """See `Ledger.scrub`: what was deleted is zeros in the file; the WAL has older pages until it is emptied."""
        rows = self._rows(_EMPTY_WAL)
        if rows[0][0]:
            msg = "the ledger's WAL cannot be emptied now"
            raise Unavailable(msg, retry_after=1.0)

    def count_back(self, most: int) -> bool:
        """Count the bodies of up to `most` more receipts; whether there were any that were not counted.

        These are what an older file had, and everything where the row of the count was lost. Where the disk is full or
        read-only the count is kept in memory, until it is whole and can be written.
        """
        before = self._tally()
        if not before.first and self._tallied is None:
            return False
        first = max(0, before.first - most)
        ((there,),) = self._rows("SELECT count(*) FROM body WHERE idx >= ? AND idx < ?", first, before.first)
        found = Tally(first, before.gone + before.first - first - there)
        # what could not be written is tried again once for each who asks, not for each stretch
        if self._tallied is None or not first:
            self._tallied = None if self._kept(found) else found
        else:
            self._tallied = found
        return before.first > 0

    def _kept(self, tally: Tally) -> bool:
        try:
            with self._written() as connection:
                connection.execute("INSERT OR REPLACE INTO tally VALUES (1, ?, ?)", tally)
        except Unavailable:
            return False
        return True

    def counted(self, most: int) -> LedgerStats | None:
        """See `Ledger.stats`; None after counting `most` bodies of those that were not counted."""
        return None if self.count_back(most) else self.stats()

    def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See `Ledger.put_checkpoint`."""
        newest = self._connection.execute("SELECT max(size) FROM checkpoint").fetchone()[0]
        check_checkpoint(checkpoint, newest=newest or 0, size=self._size)
        with self._written() as connection:
            connection.execute(
                "INSERT INTO checkpoint VALUES (?, ?, ?)", (checkpoint.size, checkpoint.root, checkpoint.note)
            )

    def put_state(self, state: SavedState) -> None:
        """See `Ledger.put_state`."""
        kept = self.states()
        check_state(state, newest=max(kept, default=0), events=self._events)
        with self._written(begin=True) as connection:
            # one above the log's end is of a log that was cut
            oldest = kept[KEPT_STATES - 2] if len(kept) >= KEPT_STATES else 0
            connection.execute("DELETE FROM state WHERE events < ? OR events > ?", (oldest, self._events))
            connection.execute("INSERT INTO state VALUES (?, ?, ?)", (state.events, state_digest(state), state.data))
