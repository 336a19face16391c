"""A log's tiles in memory, 32 bytes a leaf: for logs that are not exported, and rebuilt from the ledger at a start."""

from __future__ import annotations

from typing import Final, Protocol

from tcd.receipts.checkpoint import LogHead
from tcd.receipts.errors import MalformedTile
from tcd.receipts.merkle import HASH
from tcd.receipts.note import parse_note
from tcd.receipts.tiles import Tile

_ENTRIES: Final = -1


class TileStore(Protocol):
    """Where the tiles of a growing log are kept. One thread writes; what was put never changes but by growing."""

    def size(self) -> int:
        """Leaves of the published checkpoint, 0 before the first one."""
        ...

    def checkpoint(self) -> bytes | None:
        """The published checkpoint."""
        ...

    def read(self, tile: Tile) -> bytes:
        """Content of a tile, of a partial one the beginning of a wider one.

        Raises:
            MalformedTile: it is not there.
        """
        ...

    def put(self, tile: Tile, content: bytes) -> None:
        """Keep a tile, ahead of the checkpoint that needs it."""
        ...

    def publish(self, note: bytes) -> None:
        """Replace the checkpoint; its tiles are all there."""
        ...

    def close(self) -> None:
        """Nothing more is put."""
        ...


class MemoryTiles:
    """`TileStore` in memory. Entries are not kept: the ledger has them."""

    def __init__(self) -> None:
        """No tiles."""
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._note: bytes | None = None

    def size(self) -> int:
        """See `TileStore`."""
        return 0 if self._note is None else LogHead.from_text(parse_note(self._note)[0]).size

    def checkpoint(self) -> bytes | None:
        """See `TileStore`."""
        return self._note

    def read(self, tile: Tile) -> bytes:
        """See `TileStore`."""
        content = self._tiles.get((tile.level, tile.index), b"")
        if tile.level == _ENTRIES or len(content) < tile.width * HASH:
            msg = f"{tile.path()} is missing"
            raise MalformedTile(msg)
        return content[: tile.width * HASH]

    def put(self, tile: Tile, content: bytes) -> None:
        """See `TileStore`."""
        if tile.level != _ENTRIES:
            self._tiles[tile.level, tile.index] = content

    def publish(self, note: bytes) -> None:
        """See `TileStore`."""
        self._note = note

    def close(self) -> None:
        """See `TileStore`."""
