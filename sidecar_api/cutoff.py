"""A deadline for whatever a block awaits, at the price of an append (`asyncio.timeout` is 3.11 and later)."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Any

from tcd import deadlines
from tcd.errors import ScoringTimeout


class Cutoff:
    """Cancels the awaiting block at `when` (loop time; infinity = never) and raises `ScoringTimeout` instead."""

    __slots__ = ("_fired", "_task", "_what", "_when")

    def __init__(self, when: float, what: str) -> None:
        """A deadline; `what` is the detail of the error."""
        self._when = when
        self._what = what
        self._fired = False
        self._task: asyncio.Task[Any] | None = None

    def __enter__(self) -> None:
        """Begin to watch."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: used inside coroutines only
        self._task = task
        if self._when < math.inf:
            deadlines.of(task.get_loop()).watch(self._when, self)

    def expire(self) -> None:
        """See `deadlines.Expiring`."""
        if self._task is not None:
            self._fired = True
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Watch no more; turn its own cancellation into the timeout, and let others' through."""
        task, self._task = self._task, None
        if not self._fired or task is None:
            return
        # before anything else: also where the block swallowed the cancellation, its count must go down
        uncancel = getattr(task, "uncancel", None)  # Python 3.11
        others = uncancel() if uncancel is not None else 0
        if kind is asyncio.CancelledError and not others:
            raise ScoringTimeout(self._what) from None
