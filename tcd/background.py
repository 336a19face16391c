"""Ending a background task for certain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

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
