"""Where an audit reads a ledger: a SQLite file, in use or not; `postgres` has the other one.

Every read is short, so that a shim that uses the file meanwhile is not held up: its WAL can be copied back between
two pages.
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from tcd.errors import ConfigError
from tcd.ledger.sqlite_reader import Tally
from tcd.ledger.sqlite_schema import APPLICATION_ID, MIGRATIONS

#: Rows of one read.
PAGE: Final = 2048
_HASH: Final = 32
#: No number of bodies.
_LOST: Final = -1
#: Bodies of no receipt, where every position up to the last one has a receipt, and otherwise.
_ORPHANS: Final = (
    "SELECT idx FROM body WHERE idx < 0"
    " UNION ALL SELECT idx FROM body WHERE idx > (SELECT ifnull(max(idx), -1) FROM receipt) LIMIT 20"
)
_ORPHANS_ANYWHERE: Final = (
    "SELECT idx FROM body WHERE NOT EXISTS (SELECT 1 FROM receipt WHERE receipt.idx = body.idx) LIMIT 20"
)
_GUARDS: Final = ("receipt", "event", "checkpoint")


class Row(NamedTuple):
    """A receipt as the ledger has it; `body` None = it was erased."""

    idx: int
    head: bytes
    sig: bytes
    kid: str
    typ: str
    tenant: str
    chain: bytes
    seq: int
    prev: bytes
    ts_us: int
    body: bytes | None


#: Types of the members of a row but its body.
_TYPES: Final = [int, bytes, bytes, str, str, str, bytes, int, bytes, int]


def formed(row: Row) -> bool:
    """Whether values are of the types that the columns have."""
    return (
        [*map(type, row[:-1])] == _TYPES
        and len(row.head) == len(row.chain) == _HASH
        and (row.body is None or type(row.body) is bytes)
    )


class ChainRow(NamedTuple):
    """State of a chain as the ledger has it."""

    id: bytes
    seq: int
    prev: bytes
    closed: bool


class Sizes(NamedTuple):
    """How much there is at one moment: one more than the last positions, and the size of the newest checkpoint."""

    receipts: int
    events: int
    checkpoint: int


class Store(Protocol):
    """A ledger that can be read from its beginning.

    Attributes:
        name: for people.
        live: whether it may grow meanwhile.
    """

    name: str
    live: bool

    def sizes(self) -> Sizes:
        """How much there is."""
        ...

    def rows(self, first: int) -> Sequence[Row]:
        """A page of receipts from position `first` on."""
        ...

    def heads(self, first: int, end: int) -> Sequence[bytes]:
        """A page of heads of the positions from `first` up to `end`, which is not among them."""
        ...

    def erasures(self, first: int) -> Sequence[tuple[int, bytes]]:
        """A page of `erase` records from position `first` on: position and body."""
        ...

    def events(self, first: int) -> Sequence[tuple[int, str]]:
        """A page of events from position `first` on: position and JSON."""
        ...

    def checkpoints(self, after: int) -> Sequence[tuple[int, bytes, bytes]]:
        """A page of checkpoints of more than `after` leaves: size, root, note."""
        ...

    def chains(self, after: bytes) -> Sequence[ChainRow]:
        """A page of chain states from the first id above `after` on."""
        ...

    def tally(self) -> Tally | None:
        """The count that it keeps of bodies that are gone; None = it keeps none."""
        ...

    def problems(self) -> Iterator[tuple[str, str, str]]:
        """What is wrong with the store as a whole: code, where, detail."""
        ...


class SqliteStore:
    """A SQLite ledger, reading only."""

    def __init__(self, connection: sqlite3.Connection, *, name: str, live: bool) -> None:
        """Read through a connection.

        Raises:
            ConfigError: it is no ledger.
        """
        self.name, self.live, self._db = name, live, connection
        if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            msg = f"{name} is no ledger of tcd"
            raise ConfigError(msg)

    def _rows(self, query: str, *values: Any) -> list[Any]:
        return self._db.execute(query, values).fetchall()

    def sizes(self) -> Sizes:
        """See `Store.sizes`; all at one moment."""
        query = (
            "SELECT (SELECT coalesce(max(idx) + 1, 0) FROM receipt), (SELECT coalesce(max(idx) + 1, 0) FROM event),"
            " (SELECT coalesce(max(size), 0) FROM checkpoint)"
        )
        return Sizes(*self._rows(query)[0])

    def rows(self, first: int) -> Sequence[Row]:
        """See `Store.rows`."""
        query = (
            "SELECT idx, head, sig, kid, typ, tenant, chain, seq, prev, ts_us, body"
            " FROM receipt LEFT JOIN body USING (idx) WHERE idx >= ? ORDER BY idx LIMIT ?"
        )
        return [Row(*row) for row in self._rows(query, first, PAGE)]

    def heads(self, first: int, end: int) -> Sequence[bytes]:
        """See `Store.heads`."""
        query = "SELECT head FROM receipt WHERE idx >= ? AND idx < ? ORDER BY idx LIMIT ?"
        return [row[0] for row in self._rows(query, first, end, PAGE)]

    def erasures(self, first: int) -> Sequence[tuple[int, bytes]]:
        """See `Store.erasures`."""
        query = (
            "SELECT idx, body FROM receipt JOIN body USING (idx) WHERE idx >= ? AND typ = 'erase' ORDER BY idx LIMIT ?"
        )
        return self._rows(query, first, PAGE)

    def events(self, first: int) -> Sequence[tuple[int, str]]:
        """See `Store.events`."""
        return self._rows("SELECT idx, event FROM event WHERE idx >= ? ORDER BY idx LIMIT ?", first, PAGE)

    def checkpoints(self, after: int) -> Sequence[tuple[int, bytes, bytes]]:
        """See `Store.checkpoints`."""
        query = "SELECT size, root, note FROM checkpoint WHERE size > ? ORDER BY size LIMIT ?"
        return self._rows(query, after, PAGE)

    def chains(self, after: bytes) -> Sequence[ChainRow]:
        """See `Store.chains`."""
        query = "SELECT id, seq, prev, closed FROM chain WHERE id > ? ORDER BY id LIMIT ?"
        return [ChainRow(key, seq, prev, bool(closed)) for key, seq, prev, closed in self._rows(query, after, PAGE)]

    def tally(self) -> Tally | None:
        """See `Store.tally`; `_LOST` where its row is gone, which a shim makes anew when somebody asks."""
        if not self._rows("SELECT 1 FROM sqlite_schema WHERE name = 'tally'"):
            return None
        rows = self._rows("SELECT first, gone FROM tally")
        return Tally(*rows[0]) if rows else Tally(0, _LOST)

    def problems(self) -> Iterator[tuple[str, str, str]]:
        """See `Store.problems`: damage, triggers that are gone, tables that tcd does not make, bodies of no receipt."""
        # the whole file is read: not while a shim uses it
        if not self.live:
            for (text,) in self._rows("PRAGMA integrity_check(20)"):
                if text != "ok":
                    yield "storage", "file", str(text)
        yield from self._tables()
        whole = True
        for table in ("receipt", "event"):
            for (index,) in self._rows(f"SELECT idx FROM {table} WHERE idx < 0 ORDER BY idx LIMIT 20"):  # noqa: S608
                whole = False
                yield "row_malformed", f"{table} {index}", "there is no such position"
        for (size,) in self._rows("SELECT size FROM checkpoint WHERE size < 1 ORDER BY size LIMIT 20"):
            yield "row_malformed", f"checkpoint {size}", "there is no such size"
        for (index,) in self._rows(_ORPHANS if whole and self._gapless() else _ORPHANS_ANYWHERE):
            yield "orphan_body", f"body {index}", "no receipt has it"

    def _gapless(self) -> bool:
        """Whether every position up to the last has a receipt: told by an index, without a pass over the file."""
        return bool(self._rows("SELECT count(*) = ifnull(max(idx) + 1, 0) FROM receipt")[0][0])

    def _tables(self) -> Iterator[tuple[str, str, str]]:
        """Triggers and tables that are not as tcd makes them."""
        # a backup of before an upgrade is as the tcd of its version made it
        made = _schema(self._rows("PRAGMA user_version")[0][0])
        there = dict(self._rows("SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"))
        for table in _GUARDS:
            for verb in ("UPDATE", "DELETE"):
                if f"{table}_no_{verb}" not in there:
                    yield "guard_missing", f"trigger {table}_no_{verb}", "rows could be changed"
        for name in sorted(name for name in made if "_no_" not in name):
            if there.get(name) != made[name]:
                what = "it was made in another way" if name in there else "it is missing"
                yield "schema_changed", f"table, index or trigger {name}", what


def _schema(version: int) -> dict[str, str]:
    """What tcd makes, by name, as SQLite keeps it, in a file of a version; of one that is not known, in the newest."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        for script in MIGRATIONS[: version if version > 0 else None]:
            db.executescript(script)
        query = "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"
        return dict(db.execute(query).fetchall())


@contextlib.contextmanager
def unused(path: Path) -> Iterator[None]:
    """Hold the lock of the ledger, so that no server writes meanwhile. A copy without a lock file needs none.

    Raises:
        ConfigError: a server uses it.
    """
    lock = path.with_suffix(".lock")
    if not lock.exists():
        yield
        return
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            msg = f"a server uses the ledger in {path.parent}; remedy: stop it, or audit a backup"
            raise ConfigError(msg) from None
        yield


@contextlib.contextmanager
def sqlite_store(path: Path, *, live: bool = False) -> Iterator[SqliteStore]:
    """A SQLite ledger, reading only.

    Args:
        path: the file.
        live: whether a shim may use it meanwhile; else none may, and the file itself is checked too.

    Raises:
        ConfigError: it cannot be read, is no ledger, or a server uses it.
    """
    try:
        with (
            contextlib.nullcontext() if live else unused(path),
            contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as db,
        ):
            yield SqliteStore(db, name=str(path), live=live)
    except (sqlite3.Error, OSError) as error:
        msg = f"the ledger {path} cannot be read: {error}"
        raise ConfigError(msg) from None
