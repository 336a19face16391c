"""A PostgreSQL ledger as what is audited, also while shims write it; needs the extra `postgres`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from tcd.errors import ConfigError, Unavailable
from tcd.ledger.auditing.sources import PAGE, ChainRow, Row, Sizes
from tcd.ledger.postgres_connect import Wait, connect, failures, without_loop
from tcd.ledger.postgres_schema import metadata

_ROWS = (
    "SELECT idx, head, sig, kid, typ, tenant, chain, seq, prev, ts_us, body"
    " FROM tcd_receipt LEFT JOIN tcd_body USING (idx) WHERE idx >= $1 ORDER BY idx LIMIT $2"
)
_ORPHANS = (
    "SELECT idx FROM tcd_body WHERE NOT EXISTS (SELECT 1 FROM tcd_receipt WHERE tcd_receipt.idx = tcd_body.idx)"
    " ORDER BY idx LIMIT 20"
)
_GUARDED = ("tcd_receipt", "tcd_event", "tcd_checkpoint")
#: A guard that is there and is not switched off.
_GUARD = "SELECT 1 FROM pg_trigger WHERE tgrelid = $1::text::regclass AND tgname = $2 AND tgenabled = 'O'"
_UNIQUE = "SELECT conname FROM pg_constraint WHERE conrelid = 'tcd_receipt'::regclass"


class PostgresStore:
    """A PostgreSQL ledger, reading only: one connection, one page at a time."""

    live = True

    def __init__(self, connection: Any, wait: Wait) -> None:
        """Read through a connection of a loop that nothing else runs."""
        self.name = "PostgreSQL"
        self._connection = connection
        self._wait = wait

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with failures("read"):
            found: list[Any] = self._wait(self._connection.fetch(query, *values))
        return found

    def sizes(self) -> Sizes:
        """See `Store.sizes`."""
        # the rows, not what the head row says of them
        most = "(SELECT coalesce(max(idx) + 1, 0) FROM {})"
        newest = "(SELECT coalesce(max(size), 0) FROM tcd_checkpoint)"
        query = f"SELECT {most.format('tcd_receipt')}, {most.format('tcd_event')}, {newest}"
        return Sizes(*self._rows(query)[0])

    def rows(self, first: int) -> Sequence[Row]:
        """See `Store.rows`."""
        return [Row(*row) for row in self._rows(_ROWS, first, PAGE)]

    def heads(self, first: int, end: int) -> Sequence[bytes]:
        """See `Store.heads`."""
        query = "SELECT head FROM tcd_receipt WHERE idx >= $1 AND idx < $2 ORDER BY idx LIMIT $3"
        return [row[0] for row in self._rows(query, first, end, PAGE)]

    def erasures(self, first: int) -> Sequence[tuple[int, bytes]]:
        """See `Store.erasures`."""
        query = (
            "SELECT idx, body FROM tcd_receipt JOIN tcd_body USING (idx) WHERE idx >= $1 AND typ = 'erase'"
            " ORDER BY idx LIMIT $2"
        )
        return [tuple(row) for row in self._rows(query, first, PAGE)]

    def events(self, first: int) -> Sequence[tuple[int, str]]:
        """See `Store.events`."""
        query = "SELECT idx, event FROM tcd_event WHERE idx >= $1 ORDER BY idx LIMIT $2"
        return [tuple(row) for row in self._rows(query, first, PAGE)]

    def checkpoints(self, after: int) -> Sequence[tuple[int, bytes, bytes]]:
        """See `Store.checkpoints`."""
        query = "SELECT size, root, note FROM tcd_checkpoint WHERE size > $1 ORDER BY size LIMIT $2"
        return [tuple(row) for row in self._rows(query, after, PAGE)]

    def chains(self, after: bytes) -> Sequence[ChainRow]:
        """See `Store.chains`."""
        query = "SELECT id, seq, prev, closed FROM tcd_chain WHERE id > $1 ORDER BY id LIMIT $2"
        return [ChainRow(*row) for row in self._rows(query, after, PAGE)]

    def tally(self) -> None:
        """See `Store.tally`: its rows are counted whenever somebody asks."""

    def problems(self) -> Iterator[tuple[str, str, str]]:
        """See `Store.problems`."""
        head = self._rows("SELECT size, events FROM tcd_head")
        sizes = self.sizes()
        if len(head) != 1 or head[0][0] > sizes.receipts or head[0][1] > sizes.events:
            said = tuple(head[0]) if head else None
            yield "rollback", "tcd_head", f"it says {said}, there are {tuple(sizes)}"
        there = {name for (name,) in self._rows(_UNIQUE)}
        for constraint in metadata.tables["tcd_receipt"].constraints:
            name = constraint.name
            if isinstance(name, str) and name not in there:
                yield "schema_changed", f"constraint {name}", "it is missing"
        for table in _GUARDED:
            if self._rows(_GUARD, table, f"{table}_kept") == []:
                yield "guard_missing", f"trigger {table}_kept", "rows could be changed"
        for table in ("receipt", "event"):
            for (index,) in self._rows(f"SELECT idx FROM tcd_{table} WHERE idx < 0 ORDER BY idx LIMIT 20"):  # noqa: S608
                yield "row_malformed", f"{table} {index}", "there is no such position"
        for (size,) in self._rows("SELECT size FROM tcd_checkpoint WHERE size < 1 ORDER BY size LIMIT 20"):
            yield "row_malformed", f"checkpoint {size}", "there is no such size"
        for (index,) in self._rows(_ORPHANS):
            yield "orphan_body", f"body {index}", "no receipt has it"


@contextlib.contextmanager
def postgres_store(url: str) -> Iterator[PostgresStore]:
    """A PostgreSQL ledger, also while shims write it.

    Raises:
        ConfigError: it cannot be reached or is no ledger. The URL is not in the message.
    """
    with without_loop(connect(url), lambda connection: connection.terminate()) as (connection, wait):
        try:
            yield PostgresStore(connection, wait)
        except Unavailable as error:
            raise ConfigError(error.detail) from None
