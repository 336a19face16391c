"""Where the rows of a batch meet, so that they are in the micro-batcher together."""

from __future__ import annotations

import asyncio
from typing import Final

#: Seconds that rows wait for one that is held up elsewhere (a busy session, a slow look-up).
PATIENCE: Final = 0.02


class Rendezvous:
    """A cyclic barrier of lanes that may leave; opens at the latest `PATIENCE` after the first arrival."""

    def __init__(self, lanes: int) -> None:
        """Wait for `lanes` arrivals."""
        self._lanes = lanes
        self._waiting: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None

    async def arrive(self) -> None:
        """Wait for the other lanes."""
        loop = asyncio.get_running_loop()
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        if self._timer is None:
            self._timer = loop.call_later(PATIENCE, self._open)
        self._look()
        await place

    def leave(self) -> None:
        """A lane has no more rows."""
        self._lanes -= 1
        self._look()

    def _look(self) -> None:
        if len(self._waiting) >= self._lanes:
            self._open()

    def _open(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        for place in waiting:
            if not place.done():
                place.set_result(None)
