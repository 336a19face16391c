"""A search index over a ledger's receipts: derived, in a SQLite file of its own, caught up before each search.

Whatever it says can be checked: it names heads. Losing it costs the time to make it again. Pages are cut by key
(time, position), so that one page costs the same wherever it is and new receipts shift nothing.

Of a receipt whose body was erased it knows what the ledger still says. An `erase` record makes it forget the rest, and
its files are overwritten by `scrub`.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from tcd.errors import Unavailable
from tcd.ledger.port import Ledger
from tcd.ledger.values import StoredReceipt
from tcd.receipts.erasure import runs_of
from tcd.receipts.fast import read_json

_T = TypeVar("_T")
VERSION: Final = 3
#: Receipts that are read and committed at once.
_BATCH: Final = 2000
#: A file that is so far behind is filled first and sorted afterwards, which takes a fraction of the time.
_BULK: Final = 50_000
#: Instructions of SQLite's machine between two looks at how many are left.
_INSTRUCTIONS: Final = 10_000
_COLUMNS: Final = "idx, ts_us, head, typ, tenant, subject, model, action, enforced, cause, verdict, erased"
#: Equality filters; each has an index that ends in (ts_us, idx).
FILTERS: Final = ("subject", "model", "action", "tenant", "enforced", "cause", "typ", "verdict")
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS receipt (
  idx INTEGER PRIMARY KEY, ts_us INTEGER NOT NULL, head BLOB NOT NULL, typ TEXT NOT NULL, tenant TEXT NOT NULL,
  subject TEXT, model TEXT, action TEXT, enforced TEXT, cause TEXT, verdict INTEGER, erased INTEGER NOT NULL
) STRICT;
"""
_EMPTY_WAL: Final = "PRAGMA wal_checkpoint(TRUNCATE)"
_DROP: Final = "DROP TABLE IF EXISTS receipt; DROP TABLE IF EXISTS erasure;"
#: Openings of epochs and of chains that are nobody's session name none.
_NAMES_A_SUBJECT: Final = "(typ IN ('decision', 'rewrite') OR (typ = 'open' AND model <> '-'))"
#: `erased` is 0 where the body was there when it was indexed, 1 where it was not, 2 where a record names it.
_NAMED: Final = "erased = 2"
_INDEXES: Final = {f"by_{name}": f"({name}, ts_us, idx)" for name in FILTERS} | {
    "by_time": "(ts_us, idx)",
    "by_record": f"(idx) WHERE {_NAMED}",
}
_INSERT: Final = f"INSERT OR REPLACE INTO receipt ({_COLUMNS}) VALUES ({', '.join('?' * 12)})"  # noqa: S608 - constants
_FORGET: Final = (
    "UPDATE receipt SET subject = NULL, model = NULL, action = NULL, enforced = NULL, cause = NULL, verdict = NULL, "
    "erased = 2 WHERE idx >= ? AND idx < ?"
)


@dataclass(frozen=True, slots=True)
class Found:
    """A receipt as the index knows it; `verdict` and what is about decisions is None for other records.

    `erased` says that the body is gone by request.
    """

    index: int
    ts_us: int
    head: str
    typ: str
    tenant: str
    subject: str | None
    model: str | None
    action: str | None
    enforced: str | None
    cause: str | None
    verdict: bool | None
    erased: bool = False


@dataclass(frozen=True, slots=True)
class Erasable:
    """Whose or which bodies go; at least one of `subjects` and `before_us` is given.

    Attributes:
        subjects: digests.
        before_us: receipts of before this time, microseconds since 1970.
        tenant: only this one's.
    """

    subjects: tuple[str, ...] | None = None
    before_us: int | None = None
    tenant: str | None = None


class ReceiptIndex:
    """The index of one ledger. All of SQLite runs in one thread of its own; where it fails, that is `Unavailable`."""

    def __init__(self, path: Path | str, ledger: Ledger) -> None:
        """Index `ledger` in the file `path` (`:memory:` for none)."""
        self._path = path
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tcd-search")
        self._connection: sqlite3.Connection | None = None
        self._lock = asyncio.Lock()

    async def catch_up(self) -> int:
        """Index what is new; how many receipts are indexed, or were and are no longer kept.

        An index of another ledger, or of a ledger that was cut back, is made anew.
        """
        async with self._lock:
            size, last = await self._run(self._position)
            if size and not await self._is_at(size - 1, last):
                size = 0
                await self._run(self._clear)
            receipts, evicted = await self._ledger.extent()
            size = max(size, evicted)
            if receipts - size > _BULK:
                await self._run(self._unsorted)
            while size < receipts and (page := await self._ledger.records(first=size, limit=_BATCH)):
                await self._run(self._insert, page)
                size += len(page)
            await self._run(self._sorted)
            return size

    async def erasable(self, wanted: Erasable, *, after: int = -1, limit: int = 1000) -> list[tuple[int, bytes]]:
        """Positions and heads of receipts that name a subject and still have a body, from above `after` on."""
        return await self._run(self._erasable, wanted, after, limit)

    async def erasures(self, first: int = 0) -> int:
        """How many bodies from position `first` on are named by `erase` records, each once."""
        return await self._run(self._erasures, first)

    async def scrub(self) -> None:
        """Overwrite what was forgotten in the file's older copies of pages; opening the file does it too.

        Raises:
            Unavailable: somebody else reads the file.
        """
        await self._run(self._scrub)

    async def _is_at(self, position: int, head: bytes) -> bool:
        receipts, evicted = await self._ledger.extent()
        if position < evicted:
            return position < receipts
        return list(await self._ledger.heads(first=position, limit=1)) == [head]

    async def search(
        self,
        filters: Mapping[str, Any],
        *,
        since_us: int | None = None,
        until_us: int | None = None,
        before: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> list[Found]:
        """Receipts, newest first.

        Args:
            filters: members of `FILTERS` to values.
            since_us: from (included), microseconds since 1970.
            until_us: to (excluded).
            before: (ts_us, index) of the last one of the page before.
            limit: at most so many.
        """
        return await self._run(self._search, *query(filters, since_us, until_us, before, limit))

    async def select(self, sql: str, values: Sequence[Any], *, steps: int) -> list[tuple[Any, ...]]:
        """Rows of a query of the table `receipt` that takes at most about `steps` instructions of SQLite's machine.

        Raises:
            Unavailable: it would take more.
        """
        return await self._run(self._select, sql, values, steps)

    async def close(self) -> None:
        """Close the file."""
        await self._run(self._close)
        self._thread.shutdown()

    async def _run(self, work: Callable[..., _T], *arguments: Any) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except sqlite3.Error as error:
            msg = f"the index of the receipts cannot be used: {error}"
            raise Unavailable(msg, retry_after=1.0) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            made = sqlite3.connect(self._path, isolation_level=None)
            try:
                # what a crash loses is indexed again
                made.execute("PRAGMA journal_mode = WAL")
                made.execute("PRAGMA synchronous = OFF")
                made.execute("PRAGMA secure_delete = ON")
                if made.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                    made.executescript(f"{_DROP} {_SCHEMA} PRAGMA user_version = {VERSION};")
                # what an earlier process could not, or was ended before
                made.execute(_EMPTY_WAL)
            except BaseException:
                made.close()
                raise
            self._connection = made
        return self._connection

    def _position(self) -> tuple[int, bytes]:
        row = self._open().execute("SELECT idx, head FROM receipt ORDER BY idx DESC LIMIT 1").fetchone()
        return (0, b"") if row is None else (int(row[0]) + 1, bytes(row[1]))

    def _clear(self) -> None:
        self._open().execute("DELETE FROM receipt")

    def _unsorted(self) -> None:
        for name in _INDEXES:
            self._open().execute(f"DROP INDEX IF EXISTS {name}")

    def _sorted(self) -> None:
        for name, columns in _INDEXES.items():
            self._open().execute(f"CREATE INDEX IF NOT EXISTS {name} ON receipt {columns}")

    def _insert(self, page: Sequence[StoredReceipt]) -> None:
        connection = self._open()
        bodies = [None if stored.receipt is None else read_json(stored.receipt.body) for stored in page]
        connection.execute("BEGIN")
        try:
            connection.executemany(_INSERT, map(_row, page, bodies))
            for body in bodies:
                if body is not None and body["typ"] == "erase":
                    connection.executemany(_FORGET, runs_of(body))
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _erasable(self, wanted: Erasable, after: int, limit: int) -> list[tuple[int, bytes]]:
        values: list[Any] = [after]
        where = ["idx > ?", "NOT erased", _NAMES_A_SUBJECT]
        for condition, value in (
            ("subject IN (SELECT value FROM json_each(?))", _list(wanted.subjects)),
            ("ts_us < ?", wanted.before_us),
            ("tenant = ?", wanted.tenant),
        ):
            if value is not None:
                where.append(condition)
                values.append(value)
        # conditions are constants of this module, values are bound
        sql = f"SELECT idx, head FROM receipt WHERE {' AND '.join(where)} ORDER BY idx LIMIT ?"  # noqa: S608
        return [(row[0], bytes(row[1])) for row in self._open().execute(sql, [*values, limit])]

    def _erasures(self, first: int) -> int:
        # a constant of this module; a value is bound
        query = f"SELECT count(*) FROM receipt WHERE {_NAMED} AND idx >= ?"  # noqa: S608
        return int(self._open().execute(query, (first,)).fetchone()[0])

    def _scrub(self) -> None:
        if self._open().execute(_EMPTY_WAL).fetchone()[0]:
            msg = "the WAL of the receipts' index cannot be emptied now"
            raise Unavailable(msg, retry_after=1.0)

    def _search(self, sql: str, values: list[Any]) -> list[Found]:
        rows = self._open().execute(sql, values).fetchall()
        return [_found(row) for row in rows]

    def _select(self, sql: str, values: Sequence[Any], steps: int) -> list[tuple[Any, ...]]:
        connection, left = self._open(), steps // _INSTRUCTIONS

        def over() -> int:
            nonlocal left
            left -= 1
            return left < 0

        connection.set_progress_handler(over, _INSTRUCTIONS)
        try:
            return connection.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if left >= 0:
                raise
            msg = "too many receipts to look through: ask for a shorter time or for less"
            raise Unavailable(msg) from error
        finally:
            connection.set_progress_handler(None, 0)

    def plan(self, sql: str, values: list[Any]) -> list[str]:
        """How SQLite would search; for tests."""
        return [str(row[3]) for row in self._open().execute(f"EXPLAIN QUERY PLAN {sql}", values)]

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _list(values: Sequence[str] | None) -> str | None:
    return None if values is None else json.dumps(values)


def _found(row: Sequence[Any]) -> Found:
    index, ts_us, head, typ, tenant, subject, model, action, enforced, cause, verdict, erased = row
    decided = None if verdict is None else bool(verdict)
    return Found(index, ts_us, head.hex(), typ, tenant, subject, model, action, enforced, cause, decided, bool(erased))


def query(
    filters: Mapping[str, Any],
    since_us: int | None,
    until_us: int | None,
    before: tuple[int, int] | None,
    limit: int,
) -> tuple[str, list[Any]]:
    """SQL and values of a search.

    Raises:
        ValueError: a filter is not known.
    """
    where, values = [], []
    for name, value in filters.items():
        if name not in FILTERS:
            msg = f"{name} is no filter"
            raise ValueError(msg)
        where.append(f"{name} = ?")
        values.append(int(value) if isinstance(value, bool) else value)
    for condition, bound in (("ts_us >= ?", since_us), ("ts_us < ?", until_us)):
        if bound is not None:
            where.append(condition)
            values.append(bound)
    if before is not None:
        where.append("(ts_us, idx) < (?, ?)")
        values.extend(before)
    text = f" WHERE {' AND '.join(where)}" if where else ""
    # names are constants of this module, values are bound
    sql = f"SELECT {_COLUMNS} FROM receipt{text} ORDER BY ts_us DESC, idx DESC LIMIT ?"  # noqa: S608
    return sql, [*values, limit]


def _row(stored: StoredReceipt, body: dict[str, Any] | None) -> tuple[Any, ...]:
    index, head, stub = stored.index, bytes.fromhex(stored.head), stored.stub
    if body is None:
        # the body is gone; that it was there stays known
        known = (0, head, "", "") if stub is None else (stub.ts_us, head, stub.typ, stub.tenant)
        return (index, *known, *[None] * 6, int(stub is not None))
    typ, decision = body["typ"], body.get("decision", {})
    opened = body.get("open", {})
    model = body.get("model") or opened.get("model") or {}
    verdict = decision.get("verdict")
    return (
        index,
        body["ts_us"],
        head,
        typ,
        body["tenant"],
        body.get("subject") or opened.get("subject"),
        model.get("id"),
        decision.get("action"),
        decision.get("enforced"),
        decision.get("cause"),
        None if verdict is None else int(verdict),
        0,
    )
