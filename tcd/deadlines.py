"""Deadlines at the price of an append: those of the same few milliseconds share one timer of the loop.

A timer per request and per thing it waits for costs more than the waiting, and nearly all of them are cancelled. Here
nothing is cancelled: whoever is done ignores its `expire`. An item is kept until its deadline has passed.
"""

from __future__ import annotations

import asyncio
import math
from typing import Final, Protocol
from weakref import WeakKeyDictionary

#: Slots per second: an item expires at most a 256th of a second after its deadline.
_SLOTS: Final = 256


class Expiring(Protocol):
    """Something that has a deadline."""

    def expire(self) -> None:
        """The deadline has passed; nothing happens when it is over already."""
        ...


class Deadlines:
    """The deadlines of one event loop."""

    __slots__ = ("_loop", "_slots")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """No deadlines yet."""
        self._loop = loop
        self._slots: dict[int, list[Expiring]] = {}

    def watch(self, when: float, item: Expiring) -> None:
        """Call `item.expire()` at loop time `when` or a little later."""
        slot = math.ceil(when * _SLOTS)
        items = self._slots.get(slot)
        if items is None:
            items = self._slots[slot] = []
            self._loop.call_at(slot / _SLOTS, self._fire, slot)
        items.append(item)

    def _fire(self, slot: int) -> None:
        for item in self._slots.pop(slot, ()):
            item.expire()

    def __len__(self) -> int:
        """Items that are kept."""
        return sum(map(len, self._slots.values()))


_known: WeakKeyDictionary[asyncio.AbstractEventLoop, Deadlines] = WeakKeyDictionary()


def of(loop: asyncio.AbstractEventLoop) -> Deadlines:
    """The deadlines of a loop."""
    found = _known.get(loop)
    if found is None:
        found = _known[loop] = Deadlines(loop)
    return found
