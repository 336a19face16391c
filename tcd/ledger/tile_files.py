"""A log as a directory of tlog-tiles files: written so that a reader never sees half a file, the checkpoint last.

Partial tiles of a tile that became full go away when the next checkpoint is out, as C2SP allows.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tcd.files import sync_directory, write_whole
from tcd.receipts.checkpoint import LogHead
from tcd.receipts.errors import InconsistentLog, MalformedTile
from tcd.receipts.merkle import HASH
from tcd.receipts.note import MAX_NOTE
from tcd.receipts.tile_proofs import TileLog
from tcd.receipts.tiles import MAX_ENTRY, WIDTH, Tile, TileBuilder, prefix_entries

CHECKPOINT: Final = "checkpoint"
_MAX_FILE: Final = WIDTH * max(HASH, MAX_ENTRY + 2)


def _make_directories(root: Path, folder: Path) -> None:
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for made in reversed(missing):
        made.mkdir(exist_ok=True)
        sync_directory(made.parent)
    if folder != root and root not in folder.parents:
        msg = f"{folder} is not under {root}"
        raise ValueError(msg)


class TileDirectory:
    """A directory of tiles. One process writes; any number may read."""

    def __init__(self, root: Path) -> None:
        """The directory `root`, which need not be there yet."""
        self.root = root
        self._filled: list[Tile] = []

    def read(self, tile: Tile) -> bytes:
        """Content of a tile; of a partial one that is gone, the beginning of the wider ones.

        Raises:
            MalformedTile: it is not there.
        """
        try:
            return self._bytes(self.root / tile.path())
        except FileNotFoundError:
            pass
        for path in self._wider(tile):
            with contextlib.suppress(FileNotFoundError):
                wider = self._bytes(path)
                return wider[: tile.width * HASH] if tile.level >= 0 else prefix_entries(wider, tile.width)
        msg = f"{tile.path()} is missing"
        raise MalformedTile(msg)

    def _wider(self, tile: Tile) -> Iterable[Path]:
        full = self.root / Tile(tile.level, tile.index).path()
        yield full
        folder = full.with_name(full.name + ".p")
        try:
            widths = sorted(int(item.name) for item in folder.iterdir() if item.name.isdecimal())
        except (FileNotFoundError, NotADirectoryError):
            # none, or the tile was filled this moment: then it is there
            yield full
            return
        yield from (folder / str(width) for width in widths if width > tile.width)

    @staticmethod
    def _bytes(path: Path) -> bytes:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
        if len(content) > _MAX_FILE:
            msg = f"{path.name} is too long"
            raise MalformedTile(msg)
        return content

    def checkpoint(self) -> bytes | None:
        """The signed note, None before the first one.

        Raises:
            MalformedTile: too long.
        """
        try:
            note = self._bytes(self.root / CHECKPOINT)
        except FileNotFoundError:
            return None
        if len(note) > MAX_NOTE:
            msg = "the checkpoint is too long"
            raise MalformedTile(msg)
        return note

    def size(self) -> int:
        """Leaves of the checkpoint, 0 before the first one.

        Raises:
            MalformedCheckpoint, MalformedNote, MalformedTile: it is none.
        """
        note = self.checkpoint()
        return 0 if note is None else LogHead.from_note(note).size

    def log(self) -> TileLog:
        """The log of the checkpoint, for roots and proofs."""
        return TileLog(self.size(), self.read)

    def export(self, entries: Iterable[bytes], note: bytes) -> int:
        """Append the entries that the new checkpoint covers and the old one does not; the checkpoint comes last.

        After a crash in between the same call goes on: tiles are only written anew with the same content.

        Args:
            entries: from the old checkpoint's size on.
            note: the new checkpoint, signed over exactly these and the older entries.

        Returns:
            Files written, the checkpoint with them.

        Raises:
            InconsistentLog: the entries do not lead to the checkpoint's size and root; the old checkpoint stays.
            OSError: a file cannot be written; the old checkpoint stays.
        """
        head = LogHead.from_note(note)
        builder = TileBuilder.resume(self.size(), self.read)
        written = 0
        for tile, content in builder.extend(entries):
            self.put(tile, content)
            written += 1
        if len(builder) != head.size or builder.root() != head.root:
            msg = f"{len(builder)} entries, which are not those of the checkpoint of {head.size}"
            raise InconsistentLog(msg)
        for tile, content in builder.partials():
            self.put(tile, content)
            written += 1
        self.publish(note)
        return written + 1

    def put(self, tile: Tile, content: bytes) -> None:
        """Write a tile, ahead of the checkpoint that needs it.

        Raises:
            OSError: it cannot be written.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        path = self.root / tile.path()
        if tile.width == WIDTH:
            self._filled.append(tile)
        if path.is_file() and self._bytes(path) == content:
            return
        _make_directories(self.root, path.parent)
        write_whole(path, content)

    def publish(self, note: bytes) -> None:
        """Put a checkpoint in place, all of whose tiles are there.

        Raises:
            OSError: it cannot be written; the old one stays.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        write_whole(self.root / CHECKPOINT, note)
        filled, self._filled = self._filled, []
        for tile in filled:
            path = self.root / tile.path()
            shutil.rmtree(path.with_name(path.name + ".p"), ignore_errors=True)

    def reset(self) -> None:
        """Nothing is kept that a failure could have spoilt: files are whole."""
        self._filled.clear()

    def close(self) -> None:
        """Nothing is held open."""
