"""Deadlines that share a timer: each expires, none before its time, and nothing is kept afterwards."""

from __future__ import annotations

import asyncio
import math

import numpy as np

from tcd import deadlines


class Item:
    """Notes when it expired."""

    def __init__(self, when: float) -> None:
        self.when = when
        self.at = -math.inf

    def expire(self) -> None:
        self.at = asyncio.get_running_loop().time()


class Last(Item):
    """Says when it expired."""

    def __init__(self, when: float) -> None:
        super().__init__(when)
        self.expired = asyncio.Event()

    def expire(self) -> None:
        self.expired.set()


async def test_every_item_expires_once_and_not_before_its_time() -> None:
    loop = asyncio.get_running_loop()
    known = deadlines.of(loop)
    assert deadlines.of(loop) is known
    rng = np.random.default_rng(3)
    now = loop.time()
    items = [Item(now + rng.uniform(-0.01, 0.05)) for _ in range(500)]
    for item in items:
        known.watch(item.when, item)
    assert len(known) == len(items)
    last = Last(max(item.when for item in items) + 0.02)
    known.watch(last.when, last)
    await asyncio.wait_for(last.expired.wait(), 60)
    assert not len(known)
    # the loop's clock may have a resolution of a millisecond, and a timer may be as early
    assert all(item.at >= item.when - 0.002 for item in items)


async def test_deadlines_of_one_moment_share_a_timer() -> None:
    loop = asyncio.get_running_loop()
    known = deadlines.of(loop)
    begin = math.ceil(loop.time() * 256) / 256 + 3600.0
    for i in range(1000):
        known.watch(begin + 1e-6 * (i + 1), Item(0.0))
    assert len(known._slots) == 1
    known._fire(next(iter(known._slots)))
    assert not len(known)
