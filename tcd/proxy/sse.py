"""Server-sent events cut out of a byte stream, each with its own bytes. Pure.

The pieces put together are the stream, byte for byte. One pass: linear in the stream, whatever its pieces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: A blank line. What of CR LF CR LF comes after the cut begins the next piece, where it is a blank line.
_END: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r")
#: Bytes of a separator that may have been seen without its end.
_OVERLAP: Final = 3
_DATA: Final = b"data"
DONE: Final = b"[DONE]"


class EventTooLong(Exception):
    """An event did not end within the limit."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its bytes as they came, blank line included, and its data (lines joined); None for a comment."""

    raw: bytes
    data: bytes | None


def data_of(raw: bytes) -> bytes | None:
    """The data of an event (HTML standard, 9.2.6): the `data` lines, without the one space after the colon."""
    lines = []
    for line in raw.splitlines():
        name, colon, found = line.partition(b":")
        if name == _DATA:
            lines.append(found[1:] if colon and found.startswith(b" ") else found)
    return b"\n".join(lines) if lines else None


class Splitter:
    """Cuts a stream into events."""

    def __init__(self, *, limit: int = 1 << 20) -> None:
        """Hold `limit` bytes of an event that has not ended."""
        self._limit = limit
        self._held = bytearray()

    def feed(self, chunk: bytes) -> list[Event]:
        """Events that end in this chunk.

        Raises:
            EventTooLong: one is over the limit; `rest` has the bytes that were held.
        """
        start = max(0, len(self._held) - _OVERLAP)
        self._held += chunk
        found, at = [], 0
        for match in _END.finditer(self._held, start):
            raw = bytes(self._held[at : match.end()])
            found.append(Event(raw, data_of(raw)))
            at = match.end()
        del self._held[:at]
        if len(self._held) > self._limit:
            raise EventTooLong
        return found

    def rest(self) -> bytes:
        """What has not ended; it is given once."""
        held = bytes(self._held)
        self._held.clear()
        return held
