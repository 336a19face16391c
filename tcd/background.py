"""Background tasks: kept while they run, and ended for certain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any

_LOG = logging.getLogger(__name__)
_AGAIN = 0.1


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it is done.

    Once is not enough before Python 3.12: `asyncio.wait_for` swallows a cancellation that comes in the moment its
    inner future is done (https://github.com/python/cpython/issues/86296).
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_AGAIN)


@contextlib.asynccontextmanager
async def running(work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run `work` beside an `async with` block."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        yield
    finally:
        await end(task)


class Tasks:
    """Tasks of one purpose; the event loop alone would let them be collected.

    Attributes:
        over: whether they were ended.
    """

    def __init__(self, purpose: str) -> None:
        """None yet; `purpose` names them in the log when one fails."""
        self._purpose = purpose
        self._running: set[asyncio.Task[None]] = set()
        self.over = False

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work`; inside a running loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.warning("%s: %s", self._purpose, type(task.exception()).__name__)

    async def drain(self, seconds: float) -> None:
        """Wait for all of them, then end what is left."""
        if self._running:
            _, late = await asyncio.wait(set(self._running), timeout=seconds)
            for task in late:
                await end(task)

    async def end(self) -> None:
        """End all of them now."""
        self.over = True
        for task in tuple(self._running):
            await end(task)
