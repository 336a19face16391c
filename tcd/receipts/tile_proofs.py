"""Roots and proofs of a log computed from its tiles; what a tile says counts only after the root was compared."""

from __future__ import annotations

from typing import Final

from tcd.receipts.errors import MalformedTile
from tcd.receipts.merkle import (
    EMPTY_ROOT,
    MAX_SIZE,
    consistency_path,
    inclusion_path,
    node_hash,
    perfect_subtrees,
)
from tcd.receipts.tiles import WIDTH, Read, Tile, split_tile, tile_for

_HEIGHT: Final = 8
_CACHED: Final = 64


class TileLog:
    """A log of `size` leaves whose tiles `read` gives. Reads O(log n) tiles per proof."""

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

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves (None = all).

        Raises:
            MalformedTile: a tile is missing or not of its width.
        """
        return self._hash(0, self._bounded(size)) if self._bounded(size) else EMPTY_ROOT

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Proof that leaf `index` is among the first `size`, nearest sibling first.

        Raises:
            MalformedTile: a tile is missing or not of its width.
            ValueError: no such leaf.
        """
        size = self._bounded(size)
        if not 0 <= index < size:
            msg = f"no leaf {index} in {size}"
            raise ValueError(msg)
        return inclusion_path(index, size, self._hash)

    def consistency(self, old: int, size: int | None = None) -> tuple[bytes, ...]:
        """Proof that the first `old` leaves are a prefix of the first `size`.

        Raises:
            MalformedTile: a tile is missing or not of its width.
            ValueError: `old` beyond `size`.
        """
        size = self._bounded(size)
        if not 0 <= old <= size:
            msg = f"{old} leaves are no prefix of {size}"
            raise ValueError(msg)
        return consistency_path(old, size, self._hash)

    def leaf(self, index: int) -> bytes:
        """Hash of a leaf.

        Raises:
            MalformedTile: a tile is missing or not of its width.
        """
        return self.subtree(0, index)

    def _bounded(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            msg = f"no {size} leaves in {self.size}"
            raise ValueError(msg)
        return size

    def _hash(self, start: int, end: int) -> bytes:
        parts = [self.subtree(level, first >> level) for first, level in perfect_subtrees(start, end)]
        root = parts.pop()
        while parts:
            root = node_hash(parts.pop(), root)
        return root

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
