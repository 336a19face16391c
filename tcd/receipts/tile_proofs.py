"""Roots and proofs of a log computed from its tiles; what a tile says counts only after the root was compared."""

from __future__ import annotations

from typing import Final

from tcd.receipts.errors import MalformedTile
from tcd.receipts.merkle import MAX_SIZE, ProvableLog, node_hash
from tcd.receipts.tiles import WIDTH, Read, Tile, split_tile, tile_for

_HEIGHT: Final = 8
_CACHED: Final = 64


class TileLog(ProvableLog):
    """A log of `size` leaves whose tiles `read` gives. Reads O(log n) tiles per proof.

    Roots and proofs raise MalformedTile where a tile is missing or not of its width.
    """

    __slots__ = ("_cache", "_read", "size")

    def __init__(self, size: int, read: Read) -> None:
        """A log.

        Args:
            size: of a checkpoint.
            read: content of a tile; raises MalformedTile where there is none. A reader may answer a partial tile with
                the full one.

        Raises:
            ValueError: no size of a log.
        """
        if not 0 <= size <= MAX_SIZE:
            msg = f"no log has {size} leaves"
            raise ValueError(msg)
        self.size = size
        self._read = read
        self._cache: dict[Tile, list[bytes]] = {}

    def __len__(self) -> int:
        """Number of leaves."""
        return self.size

    def leaf(self, index: int) -> bytes:
        """Hash of a leaf.

        Raises:
            MalformedTile: a tile is missing or not of its width.
        """
        return self.subtree(0, index)

    def subtree(self, level: int, number: int) -> bytes:
        """Root of the subtree `number` of 2^level leaves.

        Raises:
            MalformedTile: a tile is missing or not of its width.
        """
        tall, inside = divmod(level, _HEIGHT)
        first = number << inside
        row = self._tile(tile_for(tall, first, self.size))[first % WIDTH : first % WIDTH + (1 << inside)]
        if len(row) != 1 << inside:
            msg = f"a tile of level {tall} is too narrow"
            raise MalformedTile(msg)
        while len(row) > 1:
            row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
        return row[0]

    def _tile(self, tile: Tile) -> list[bytes]:
        found = self._cache.get(tile)
        if found is None:
            found = split_tile(tile, self._read(tile))
            if len(self._cache) >= _CACHED:
                self._cache.pop(next(iter(self._cache)))
            self._cache[tile] = found
        return found
