"""A mapping that keeps its newest entries in memory and the others in a temporary file: an audit's memory is constant.

The file has no name, and is gone when the mapping is.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

import msgspec

_V = TypeVar("_V", bound=msgspec.Struct)
#: Entries in memory.
KEPT: Final = 8_192
#: KiB of the file that SQLite may cache.
_CACHE: Final = 8_192


class Spill(Generic[_V]):
    """Bytes to structs. Entries that are read are the newest again; change them in place, or put them again."""

    def __init__(self, kind: type[_V], *, kept: int | None = None) -> None:
        """An empty mapping of at most `kept` entries in memory; None = `KEPT`."""
        self._kept = KEPT if kept is None else kept
        self._near: OrderedDict[bytes, _V] = OrderedDict()
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._file: sqlite3.Connection | None = None

    def get(self, key: bytes) -> _V | None:
        """The entry of a key."""
        found = self._near.get(key)
        if found is not None:
            self._near.move_to_end(key)
            return found
        if self._file is None:
            return None
        row = self._file.execute("SELECT value FROM entry WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        made = self._decode(row[0])
        self.put(key, made)
        return made

    def put(self, key: bytes, value: _V) -> None:
        """Set the entry of a key."""
        self._near[key] = value
        self._near.move_to_end(key)
        if len(self._near) > self._kept:
            self._shed()

    def items(self) -> Iterator[tuple[bytes, _V]]:
        """All entries, by key. Nothing may be put meanwhile."""
        if self._file is None:
            yield from sorted(self._near.items())
            return
        self._write(len(self._near))
        for key, value in self._file.execute("SELECT key, value FROM entry ORDER BY key"):
            yield key, self._decode(value)

    def __len__(self) -> int:
        """Entries in all."""
        if self._file is None:
            return len(self._near)
        self._write(len(self._near))
        return int(self._file.execute("SELECT count(*) FROM entry").fetchone()[0])

    def _shed(self) -> None:
        self._write(max(1, self._kept // 2))

    def _write(self, count: int) -> None:
        if self._file is None:
            # an empty name is a temporary file that SQLite deletes by itself
            self._file = sqlite3.connect("", isolation_level=None)
            for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE}"):
                self._file.execute(f"PRAGMA {pragma}")
            self._file.execute("CREATE TABLE entry (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        pairs = [self._near.popitem(last=False) for _ in range(count)]
        self._file.execute("BEGIN")
        rows = sorted((key, self._encode(value)) for key, value in pairs)
        self._file.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?)", rows)
        self._file.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        self._near.clear()
        if self._file is not None:
            self._file.close()
