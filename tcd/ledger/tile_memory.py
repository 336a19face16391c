"""A log's tiles in memory, 32 bytes a leaf for the newest million: for logs that are not exported.

They are built again from the ledger at a start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from tcd.receipts.checkpoint import LogHead
from tcd.receipts.errors import MalformedTile
from tcd.receipts.merkle import HASH, leaf_hash
from tcd.receipts.tiles import WIDTH, Tile

_ENTRIES: Final = -1
#: Tiles of leaf hashes kept, 8 KiB each; those above them are a 256th.
MOST_LEAF_TILES: Final = 4096


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

    def reset(self) -> None:
        """Whoever wrote failed in between: what is not published may be put again, and where it cannot, all is gone."""
        ...

    def close(self) -> None:
        """Nothing more is put."""
        ...


class MemoryTiles:
    """`TileStore` in memory. Entries are not kept, the ledger has them; nor all leaf hashes, which follow from them.

    Attributes:
        heads: gives heads from a position on, as many as asked for; for tiles of leaf hashes that were let go.
    """

    def __init__(self, *, most: int = MOST_LEAF_TILES) -> None:
        """No tiles; of those of leaf hashes the newest `most` will be kept."""
        self._tiles: dict[tuple[int, int], bytes] = {}
        self._most = most
        self._note: bytes | None = None
        self.heads: Callable[[int, int], Sequence[bytes]] | None = None

    def size(self) -> int:
        """See `TileStore`."""
        return 0 if self._note is None else LogHead.from_note(self._note).size

    def checkpoint(self) -> bytes | None:
        """See `TileStore`."""
        return self._note

    def read(self, tile: Tile) -> bytes:
        """See `TileStore`; raises what `heads` raises where a tile was let go.

        Raises:
            MalformedTile: it is not there.
        """
        content = self._tiles.get((tile.level, tile.index))
        if content is None and tile.level == 0 and self.heads is not None:
            content = b"".join(map(leaf_hash, self.heads(tile.index * WIDTH, tile.width)))
        if content is None or len(content) < tile.width * HASH:
            msg = f"{tile.path()} is missing"
            raise MalformedTile(msg)
        return content[: tile.width * HASH]

    def put(self, tile: Tile, content: bytes) -> None:
        """See `TileStore`."""
        if tile.level == _ENTRIES:
            return
        self._tiles[tile.level, tile.index] = content
        if tile.level == 0:
            self._tiles.pop((0, tile.index - self._most), None)

    def publish(self, note: bytes) -> None:
        """See `TileStore`."""
        self._note = note

    def reset(self) -> None:
        """See `TileStore`: without the entries of the last tile nobody could go on, so all is gone."""
        self._tiles, self._note = {}, None

    def close(self) -> None:
        """See `TileStore`."""
