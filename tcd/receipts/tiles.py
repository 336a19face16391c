"""C2SP tlog-tiles: a log as immutable files of 256 hashes, from which anyone computes roots and proofs.

Tile n of level l holds the roots of the subtrees of 256^l leaves from (256 n) 256^l on. Entries of the log (heads,
32 bytes each) are in bundles of 256, each entry with its length as u16.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tcd.receipts.errors import MalformedTile
from tcd.receipts.merkle import EMPTY_ROOT, HASH, MAX_SIZE, leaf_hash, node_hash

WIDTH: Final = 256
_HEIGHT: Final = 8
_LEVELS: Final = 8
MAX_ENTRY: Final = 65_535
_PATH: Final = re.compile(
    r"tile/(?P<level>[0-9]|[1-5][0-9]|6[0-3]|entries)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """A tile, or with level -1 a bundle of entries.

    Attributes:
        level: 0 = leaf hashes; -1 = entries.
        index: of the tile in its level.
        width: hashes in it, 1..256.
    """

    level: int
    index: int
    width: int = WIDTH

    def path(self) -> str:
        """Path of the file under the log's directory."""
        parts = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            parts.append(f"x{rest % 1000:03d}")
            rest //= 1000
        level = "entries" if self.level < 0 else str(self.level)
        suffix = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(parts))}{suffix}"

    @classmethod
    def from_path(cls, path: str) -> Tile:
        """Inverse of `path`.

        Raises:
            MalformedTile: no path of a tile.
        """
        found = _PATH.fullmatch(path)
        if found is None:
            msg = f"no path of a tile: {path[:80]!r}"
            raise MalformedTile(msg)
        index = int(found["index"].replace("/", "").replace("x", ""))
        level = -1 if found["level"] == "entries" else int(found["level"])
        tile = cls(level, index, int(found["width"] or WIDTH))
        if tile.path() != path:
            msg = f"no path of a tile: {path[:80]!r}"
            raise MalformedTile(msg)
        return tile


Read = Callable[[Tile], bytes]


def tiles_of(size: int, *, since: int = 0) -> list[Tile]:
    """Tiles and bundles of a log of `size` leaves that one of `since` leaves did not have.

    Raises:
        ValueError: sizes out of order or range.
    """
    if not 0 <= since <= size <= MAX_SIZE:
        msg = f"no log grows from {since} to {size}"
        raise ValueError(msg)
    found: list[Tile] = []
    for level in (-1, *range(_LEVELS)):
        shift = _HEIGHT * max(level, 0)
        old, new = since >> shift, size >> shift
        if not new:
            break
        for index in range(old // WIDTH, -(-new // WIDTH)):
            width = min(WIDTH, new - index * WIDTH)
            if index * WIDTH + width > old:
                found.append(Tile(level, index, width))
    return found


def tile_for(level: int, index: int, size: int) -> Tile:
    """The tile of a log of `size` leaves that has subtree `index` of 256^level leaves.

    Raises:
        MalformedTile: the log has no such subtree.
    """
    count = size >> (_HEIGHT * max(level, 0))
    if not 0 <= index < count:
        msg = f"no subtree {index} of level {level} in {size} leaves"
        raise MalformedTile(msg)
    number = index // WIDTH
    return Tile(level, number, min(WIDTH, count - number * WIDTH))


def pack_entries(entries: Iterable[bytes]) -> bytes:
    """A bundle of entries.

    Raises:
        ValueError: an entry over 65,535 bytes.
    """
    parts: list[bytes] = []
    for item in entries:
        if len(item) > MAX_ENTRY:
            msg = f"an entry of {len(item)} bytes: at most {MAX_ENTRY}"
            raise ValueError(msg)
        parts += (len(item).to_bytes(2, "big"), item)
    return b"".join(parts)


def unpack_entries(bundle: bytes, width: int) -> list[bytes]:
    """Entries of a bundle.

    Raises:
        MalformedTile: not `width` entries.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(bundle) and len(entries) < width:
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle) or at + 2 > len(bundle):
            break
        entries.append(bundle[at + 2 : end])
        at = end
    if len(entries) != width or at != len(bundle):
        msg = f"not a bundle of {width} entries"
        raise MalformedTile(msg)
    return entries


def prefix_entries(bundle: bytes, width: int) -> bytes:
    """The first `width` entries of a wider bundle, as a bundle.

    Raises:
        MalformedTile: there are fewer.
    """
    at = 0
    for _ in range(width):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if at + 2 > len(bundle) or end > len(bundle):
            msg = f"fewer than {width} entries"
            raise MalformedTile(msg)
        at = end
    return bundle[:at]


class TileBuilder:
    """Grows a log and gives the files to write; holds less than 256 hashes per level, whatever the size."""

    __slots__ = ("_entries", "_levels", "_size")

    def __init__(self) -> None:
        """An empty log."""
        self._levels: list[list[bytes]] = [[] for _ in range(_LEVELS)]
        self._entries: list[bytes] = []
        self._size = 0

    @classmethod
    def resume(cls, size: int, read: Read) -> TileBuilder:
        """Go on with a log of `size` leaves from its rightmost tiles.

        Raises:
            MalformedTile: a tile is missing or not of its width.
        """
        builder = cls()
        builder._size = size
        for level in range(_LEVELS):
            count = (size >> (_HEIGHT * level)) % WIDTH
            if count:
                tile = Tile(level, size >> (_HEIGHT * (level + 1)), count)
                builder._levels[level] = split_tile(tile, read(tile))
        if size % WIDTH:
            tile = Tile(-1, size // WIDTH, size % WIDTH)
            builder._entries = unpack_entries(read(tile), tile.width)
        return builder

    def __len__(self) -> int:
        """Number of leaves."""
        return self._size

    def extend(self, entries: Iterable[bytes]) -> Iterator[tuple[Tile, bytes]]:
        """Append entries; gives every tile and bundle that became full, in an order in which they can be written."""
        for item in entries:
            self._entries.append(item)
            self._levels[0].append(leaf_hash(item))
            self._size += 1
            if self._size % WIDTH:
                continue
            yield Tile(-1, self._size // WIDTH - 1), pack_entries(self._entries)
            self._entries.clear()
            for level in range(_LEVELS):
                hashes = self._levels[level]
                if len(hashes) < WIDTH:
                    break
                yield Tile(level, (self._size >> (_HEIGHT * (level + 1))) - 1), b"".join(hashes)
                self._levels[level + 1].append(subtree_root(hashes))
                hashes.clear()

    def partials(self) -> list[tuple[Tile, bytes]]:
        """The partial tiles and the partial bundle of the log as it is."""
        found = [
            (Tile(level, self._size >> (_HEIGHT * (level + 1)), len(hashes)), b"".join(hashes))
            for level, hashes in enumerate(self._levels)
            if hashes
        ]
        if self._entries:
            found.append((Tile(-1, self._size // WIDTH, len(self._entries)), pack_entries(self._entries)))
        return found

    def root(self) -> bytes:
        """Root of the log as it is."""
        parts: list[bytes] = []
        for hashes in reversed(self._levels):
            at = 0
            while at < len(hashes):
                width = 1 << ((len(hashes) - at).bit_length() - 1)
                parts.append(subtree_root(hashes[at : at + width]))
                at += width
        if not parts:
            return EMPTY_ROOT
        root = parts.pop()
        while parts:
            root = node_hash(parts.pop(), root)
        return root


def subtree_root(hashes: Sequence[bytes]) -> bytes:
    """Root over hashes, a power of two of them."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row), 2)]
    return row[0]


def split_tile(tile: Tile, content: bytes) -> list[bytes]:
    """Hashes of a tile.

    Raises:
        MalformedTile: not of its width.
    """
    if len(content) != tile.width * HASH:
        msg = f"{tile.path()} has {len(content)} bytes"
        raise MalformedTile(msg)
    return [content[at : at + HASH] for at in range(0, len(content), HASH)]
