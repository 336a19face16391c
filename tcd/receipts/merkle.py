"""The log's Merkle tree (RFC 9162 §2.1, same hashes as RFC 6962): ranges, roots, proofs made and checked.

`MerkleTree` keeps every leaf hash and makes proofs; `CompactRange` keeps O(log n) hashes and makes roots only.
The checks need neither. All are pure and bounded by `MAX_PATH` hashes.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from tcd.receipts.errors import BadInclusion, InconsistentLog

HASH: Final = 32
#: Longest path: a log has at most 2^63 - 1 leaves.
MAX_PATH: Final = 64
MAX_SIZE: Final = 2**63 - 1
#: Root of the empty log.
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry); the entry of a receipt is its 32-byte head."""
    return hashlib.sha256(b"\0" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\1" + left + right).digest()


class CompactRange:
    """The roots of the perfect subtrees that make up the first `size` leaves, largest first."""

    __slots__ = ("_roots", "size")

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        """Resume at `size` leaves.

        Raises:
            ValueError: not one 32-byte root for each bit that is set in `size`.
        """
        if not 0 <= size <= MAX_SIZE or len(roots) != size.bit_count() or any(len(root) != HASH for root in roots):
            msg = "a compact range has one 32-byte root for each bit set in its size"
            raise ValueError(msg)
        self.size = size
        self._roots = list(roots)

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The subtree roots, largest first; `CompactRange(size, roots)` resumes."""
        return tuple(self._roots)

    def append(self, leaf: bytes) -> None:
        """Append a leaf hash; amortised one hash."""
        size, roots = self.size, self._roots
        while size & 1:
            leaf = node_hash(roots.pop(), leaf)
            size >>= 1
        roots.append(leaf)
        self.size += 1

    def extend(self, entries: Iterable[bytes]) -> None:
        """Append entries (not yet hashed)."""
        for entry in entries:
            self.append(leaf_hash(entry))

    def root(self) -> bytes:
        """Root of the tree; at most 63 hashes."""
        if not self._roots:
            return EMPTY_ROOT
        root = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            root = node_hash(left, root)
        return root


HashRange = Callable[[int, int], bytes]


class ProvableLog(ABC):
    """Roots and proofs of a log's prefixes, whatever holds the roots of its perfect subtrees."""

    __slots__ = ()

    @abstractmethod
    def __len__(self) -> int:
        """Number of leaves."""

    @abstractmethod
    def subtree(self, level: int, number: int) -> bytes:
        """Root of the perfect subtree `number` of 2^level leaves."""

    def root(self, size: int | None = None) -> bytes:
        """Root of the first `size` leaves (None = all).

        Raises:
            ValueError: more leaves than there are.
        """
        size = self._size(size)
        return self._hash(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Proof that leaf `index` is among the first `size`, nearest sibling first.

        Raises:
            ValueError: no such leaf.
        """
        size = self._size(size)
        if not 0 <= index < size:
            msg = f"no leaf {index} in {size}"
            raise ValueError(msg)
        return inclusion_path(index, size, self._hash)

    def consistency(self, old: int, size: int | None = None) -> tuple[bytes, ...]:
        """Proof that the first `old` leaves are a prefix of the first `size`; empty for 0 and for equal sizes.

        Raises:
            ValueError: `old` beyond `size`.
        """
        size = self._size(size)
        if not 0 <= old <= size:
            msg = f"{old} leaves are no prefix of {size}"
            raise ValueError(msg)
        return consistency_path(old, size, self._hash)

    def range_root(self, start: int, end: int) -> bytes:
        """Root of the leaves [start, end) by themselves.

        Args:
            start: a multiple of the smallest power of two that is not below `end - start`.
            end: at most the number of leaves.

        Raises:
            ValueError: no such range.
        """
        if not 0 <= start < end <= len(self) or start % (1 << (end - start - 1).bit_length()):
            msg = f"no subtree [{start}, {end}) in {len(self)}"
            raise ValueError(msg)
        return self._hash(start, end)

    def _size(self, size: int | None) -> int:
        if size is None:
            return len(self)
        if not 0 <= size <= len(self):
            msg = f"no {size} leaves in {len(self)}"
            raise ValueError(msg)
        return size

    def _hash(self, start: int, end: int) -> bytes:
        """Hash of the leaves of [start, end); `start` is a multiple of the power of two that covers them."""
        parts = [self.subtree(level, first >> level) for first, level in perfect_subtrees(start, end)]
        root = parts.pop()
        while parts:
            root = node_hash(parts.pop(), root)
        return root


class MerkleTree(ProvableLog):
    """A tree in memory: all perfect subtrees' roots by level, about 64 bytes a leaf. Proofs cost O(log n)."""

    __slots__ = ("_levels",)

    def __init__(self, entries: Iterable[bytes] = ()) -> None:
        """A tree over `entries`."""
        self._levels: list[list[bytes]] = [[]]
        for entry in entries:
            self.append(entry)

    def __len__(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    def append(self, entry: bytes) -> int:
        """Append an entry and return its index."""
        index = len(self)
        node, level = leaf_hash(entry), 0
        self._levels[0].append(node)
        position = index
        while position & 1:
            node = node_hash(self._levels[level][position - 1], node)
            level, position = level + 1, position >> 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node)
        return index

    def subtree(self, level: int, number: int) -> bytes:
        """See `ProvableLog`."""
        return self._levels[level][number]


def inclusion_path(index: int, size: int, hash_range: HashRange) -> tuple[bytes, ...]:
    """Proof that leaf `index` is among `size`, nearest sibling first.

    Args:
        index: below `size`.
        size: leaves.
        hash_range: root of the leaves [start, end), `start` a multiple of the power of two that covers them.
    """
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(hash_range(middle, end))
            end = middle
        else:
            path.append(hash_range(start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_path(old: int, size: int, hash_range: HashRange) -> tuple[bytes, ...]:
    """Proof that the first `old` leaves are a prefix of the first `size`; empty for 0 and for equal sizes.

    Args:
        old: at most `size`.
        size: leaves.
        hash_range: as for `inclusion_path`.
    """
    if old in {0, size}:
        return ()
    path: list[bytes] = []
    start, end, whole = 0, size, True
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(hash_range(middle, end))
            end = middle
        else:
            path.append(hash_range(start, middle))
            start, whole = middle, False
    if not whole:
        path.append(hash_range(start, end))
    return tuple(reversed(path))


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def perfect_subtrees(start: int, end: int) -> Iterator[tuple[int, int]]:
    """First leaf and level of the perfect subtrees that make up [start, end)."""
    while start < end:
        level = (end - start).bit_length() - 1
        yield start, level
        start += 1 << level


def _check_hashes(hashes: Iterable[bytes], count: int) -> bool:
    return count <= MAX_PATH and all(len(item) == HASH for item in hashes)


def inclusion_root(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes:
    """The root under which a proof shows leaf hash `leaf` as number `index` of `size` leaves (RFC 9162 §2.1.3.2).

    Raises:
        BadInclusion: no proof for such a leaf.
    """
    if not 0 <= index < size <= MAX_SIZE or not _check_hashes((leaf, *path[: MAX_PATH + 1]), len(path)):
        msg = "the proof is out of range"
        raise BadInclusion(msg)
    first, last, node = index, size - 1, leaf
    for item in path:
        if last == 0:
            msg = "the proof is too long"
            raise BadInclusion(msg)
        if first & 1 or first == last:
            node = node_hash(item, node)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            node = node_hash(node, item)
        first, last = first >> 1, last >> 1
    if last:
        msg = "the proof is too short"
        raise BadInclusion(msg)
    return node


def check_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes], root: bytes) -> None:
    """Check that leaf hash `leaf` is number `index` of the `size` leaves under `root`.

    Raises:
        BadInclusion: it does not follow from the proof.
    """
    if inclusion_root(index, size, leaf, path) != root:
        msg = "the proof does not lead to the root"
        raise BadInclusion(msg)


def check_consistency(old: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]) -> None:
    """Check that the log of `old` leaves is a prefix of that of `size` (RFC 9162 §2.1.4.2).

    Size 0 is consistent with everything if its root is that of the empty log; it and equal sizes need an empty proof.

    Raises:
        InconsistentLog: it does not follow from the proof.
    """
    if not 0 <= old <= size <= MAX_SIZE or not _check_hashes((old_root, root, *path[: MAX_PATH + 1]), len(path)):
        msg = "the log shrank or the proof is out of range"
        raise InconsistentLog(msg)
    if old in {0, size}:
        if path or old_root != (root if old == size else EMPTY_ROOT):
            msg = "equal or empty logs: other roots, or a proof that is not needed"
            raise InconsistentLog(msg)
        return
    rest = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not path or _both_roots(old, size, rest) != (old_root, root):
        msg = "the proof does not lead to both roots"
        raise InconsistentLog(msg)


def _both_roots(old: int, size: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Roots of both logs by the proof; None when its length is not that of these sizes."""
    first, last = old - 1, size - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    before = after = path[0]
    for item in path[1:]:
        if last == 0:
            return None
        if first & 1 or first == last:
            before, after = node_hash(item, before), node_hash(item, after)
            while first and not first & 1:
                first, last = first >> 1, last >> 1
        else:
            after = node_hash(after, item)
        first, last = first >> 1, last >> 1
    return None if last else (before, after)
