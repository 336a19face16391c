"""Steps that come in one turn of the event loop are concluded together, stage by stage.

A step runs through more code than a core's caches hold: one after the other, each step finds them full of what came
last. Stage by stage, sixteen signatures (or settlements, or answers) in a row find them warm.
"""

from __future__ import annotations

import asyncio
import logging
import types
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_LOG: Final = logging.getLogger(__name__)
#: Steps that are concluded in one turn of the loop at most.
SLICE: Final = 16

Stage = Callable[[T], None]
Failed = Callable[[T, Exception], None]


@types.coroutine
def abreast() -> Generator[None, None, None]:
    """Let the requests that came along catch up: `asyncio.sleep(0)` without its coroutine.

    What follows runs for all of them in a row. Others run in between, so nothing may be half done here.
    """
    yield


class Line(Generic[T]):
    """Runs stages over items; between an item's first and last there is no await, and nothing but stages of others.

    An item that raises leaves the line; the others go on. Bound to the event loop of its first `add`.
    """

    __slots__ = ("_failed", "_scheduled", "_stages", "_waiting")

    def __init__(self, stages: Sequence[Stage[T]], failed: Failed[T]) -> None:
        """A line of `stages`; `failed` hears of an item that raised, and of what."""
        self._stages = tuple(stages)
        self._failed = failed
        self._waiting: deque[T] = deque()
        self._scheduled = False

    def add(self, item: T) -> None:
        """Let an item pass all stages in the next turn of the loop, or a later one where many wait."""
        self._waiting.append(item)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def hurry(self, item: T) -> None:
        """Let an item that waits pass now, with those before it."""
        while item in self._waiting:
            self._pass()

    def _turn(self) -> None:
        self._pass()
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._turn)

    def _pass(self) -> None:
        waiting = self._waiting
        items = [waiting.popleft() for _ in range(min(SLICE, len(waiting)))]
        for stage in self._stages:
            items = [item for item in items if self._passes(stage, item)]

    def _passes(self, stage: Stage[T], item: T) -> bool:
        try:
            stage(item)
        except Exception as error:  # noqa: BLE001 - who waits for the item hears of it
            self._fail(item, error)
            return False
        return True

    def _fail(self, item: T, error: Exception) -> None:
        try:
            self._failed(item, error)
        except Exception:  # noqa: BLE001 - logged
            # the others must not be lost with it
            _LOG.exception("a step that failed could not be ended")
