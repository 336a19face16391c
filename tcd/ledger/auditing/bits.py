"""Sets of positions in a log, a bit for each position."""

from __future__ import annotations

from collections.abc import Iterator


class Bits:
    """A set of positions."""

    def __init__(self) -> None:
        """An empty one."""
        self._bytes = bytearray()

    def add(self, at: int) -> None:
        """Put a position into it."""
        if at >> 3 >= len(self._bytes):
            self._bytes.extend(bytes((at >> 3) + 4096 - len(self._bytes)))
        self._bytes[at >> 3] |= 1 << (at & 7)

    def __contains__(self, at: int) -> bool:
        """Whether a position is in it."""
        return at >> 3 < len(self._bytes) and bool(self._bytes[at >> 3] >> (at & 7) & 1)

    def below(self, end: int) -> int:
        """How many positions below `end` are in it."""
        whole, rest = divmod(end, 8)
        last = self._bytes[whole] & ((1 << rest) - 1) if rest and whole < len(self._bytes) else 0
        return int.from_bytes(self._bytes[:whole], "little").bit_count() + last.bit_count()

    def missing_from(self, other: Bits) -> Iterator[int]:
        """Positions that the other set lacks."""
        for at, byte in enumerate(self._bytes):
            left = byte & ~other._bytes[at] if at < len(other._bytes) else byte
            for bit in range(8) if left else ():
                if left >> bit & 1:
                    yield 8 * at + bit
