"""Where an export reads heads and checkpoints: a SQLite file, a directory of tiles; `export_postgres` has the third."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tcd.errors import ConfigError
from tcd.ledger.auditing.sources import unused
from tcd.ledger.sqlite_reader import Reader
from tcd.ledger.sqlite_schema import APPLICATION_ID
from tcd.ledger.tile_files import TileDirectory
from tcd.ledger.values import Checkpoint
from tcd.receipts.checkpoint import LogHead
from tcd.receipts.errors import MalformedTile
from tcd.receipts.merkle import HASH
from tcd.receipts.tiles import WIDTH, tile_for, unpack_entries

_PAGE = 8_192


class Source(Protocol):
    """A log that can be read from its beginning."""

    def heads(self, first: int, limit: int) -> Sequence[bytes]:
        """Heads from position `first` on, at most `limit`."""
        ...

    def checkpoint(self, covering: int | None = None) -> Checkpoint | None:
        """The newest checkpoint; with `covering`, the smallest one that has the leaf at that position."""
        ...


def pages(source: Source, size: int) -> Iterator[Sequence[bytes]]:
    """All heads up to `size`."""
    first = 0
    while first < size and (page := source.heads(first, min(_PAGE, size - first))):
        yield page
        first += len(page)


def checkpoints(source: Source, *, after: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Checkpoints of more than `after` and at most `size` leaves."""
    while (found := source.checkpoint(after)) is not None and found.size <= size:
        yield found.size, found.note
        after = found.size


class _Tiles:
    """A directory of tiles: only its newest checkpoint is there."""

    def __init__(self, directory: TileDirectory) -> None:
        self._directory = directory
        note = directory.checkpoint()
        head = None if note is None else LogHead.from_note(note)
        # read once: the log may grow meanwhile
        self._checkpoint = None if note is None or head is None else Checkpoint(head.size, head.root, note)

    def heads(self, first: int, limit: int) -> Sequence[bytes]:
        size = 0 if self._checkpoint is None else self._checkpoint.size
        found: list[bytes] = []
        while first < size and len(found) < limit:
            tile = tile_for(-1, first, size)
            entries = unpack_entries(self._directory.read(tile), tile.width)
            if any(len(entry) != HASH for entry in entries):
                msg = f"{tile.path()} has entries that are no heads"
                raise MalformedTile(msg)
            found += entries[first % WIDTH :]
            first = (first // WIDTH + 1) * WIDTH
        return found[:limit]

    def checkpoint(self, covering: int | None = None) -> Checkpoint | None:
        found = self._checkpoint
        return found if found is not None and (covering is None or covering < found.size) else None


@contextlib.contextmanager
def tiles_source(directory: Path) -> Iterator[Source]:
    """A directory of tlog-tiles, also while it grows.

    Raises:
        VerificationError: its checkpoint is none.
    """
    yield _Tiles(TileDirectory(directory))


@contextlib.contextmanager
def sqlite_source(path: Path) -> Iterator[Reader]:
    """A SQLite ledger that no process uses, reading only.

    Raises:
        ConfigError: it cannot be read, is no ledger, or a server uses it.
    """
    try:
        with unused(path), contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                msg = f"{path} is no ledger of tcd"
                raise ConfigError(msg)
            yield Reader(db)
    except (sqlite3.Error, OSError) as error:
        msg = f"the ledger {path} cannot be read: {error}"
        raise ConfigError(msg) from None
