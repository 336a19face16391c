"""The tree of a ledger's log: grows from heads, keeps its tiles, and gives roots and proofs of every size so far.

Everything here blocks and belongs to one thread; `proofs` may be used in any.
"""

from __future__ import annotations

from collections.abc import Sequence

from tcd.ledger.tile_memory import TileStore
from tcd.receipts.checkpoint import LogHead
from tcd.receipts.errors import InconsistentLog, MalformedTile
from tcd.receipts.tile_proofs import TileLog
from tcd.receipts.tiles import Tile, TileBuilder


class LogTree:
    """A growing log over a store of tiles."""

    def __init__(self, store: TileStore) -> None:
        """Go on where the store's checkpoint ends.

        Raises:
            InconsistentLog: the tiles are not those of the store's checkpoint.
            MalformedCheckpoint, MalformedNote: it is none.
            OSError: a file cannot be read.
        """
        self._store = store
        note = store.checkpoint()
        head = None if note is None else LogHead.from_note(note)
        try:
            self._builder = TileBuilder.resume(0 if head is None else head.size, store.read)
        except MalformedTile as error:
            msg = f"the tiles are not those of their checkpoint: {error.detail}"
            raise InconsistentLog(msg) from None
        if head is not None and self._builder.root() != head.root:
            msg = f"the tiles do not lead to the root of their checkpoint of {head.size} leaves"
            raise InconsistentLog(msg)
        self.published = head

    def __len__(self) -> int:
        """Leaves so far, which may be more than any checkpoint has."""
        return len(self._builder)

    def extend(self, first: int, heads: Sequence[bytes]) -> None:
        """Append heads, of which the first is number `first` of the log.

        Raises:
            ValueError: they do not follow what is there.
            OSError: a tile cannot be written; the tree is of no use then.
        """
        if first != len(self):
            msg = f"heads from {first} on do not follow {len(self)}"
            raise ValueError(msg)
        for tile, content in self._builder.extend(heads):
            self._store.put(tile, content)

    def seal(self) -> bytes:
        """Make the newest leaves readable; the root of all leaves.

        Raises:
            OSError: a tile cannot be written.
        """
        for tile, content in self._builder.partials():
            self._store.put(tile, content)
        return self._builder.root()

    def publish(self, note: bytes) -> None:
        """Make a checkpoint of at most the sealed leaves the published one.

        Raises:
            InconsistentLog: it is not of this tree, or smaller than the published one.
            OSError: it cannot be written.
        """
        head = LogHead.from_note(note)
        if self.published is not None and head.size < self.published.size:
            msg = f"a checkpoint of {head.size} leaves was published after one of {self.published.size}"
            raise InconsistentLog(msg)
        if self.proofs(head.size).root() != head.root:
            msg = f"another root of {head.size} leaves was signed before"
            raise InconsistentLog(msg)
        self._store.publish(note)
        self.published = head

    def read(self, tile: Tile) -> bytes:
        """Content of a sealed tile.

        Raises:
            MalformedTile: it is not there.
        """
        return self._store.read(tile)

    def proofs(self, size: int) -> TileLog:
        """Roots and proofs of the first `size` leaves, which were sealed."""
        return TileLog(size, self._store.read)
