"""A deadline for whatever a block awaits, at the price of one timer (`asyncio.timeout` is 3.11 and later)."""

from __future__ import annotations

import asyncio
from types import TracebackType

from tcd.errors import ScoringTimeout


class Cutoff:
    """Cancels the awaiting block at `when` (loop time) and raises `ScoringTimeout` instead."""

    __slots__ = ("_fired", "_handle", "_task", "_what", "_when")

    def __init__(self, when: float, what: str) -> None:
        """A deadline; `what` is the detail of the error."""
        self._when = when
        self._what = what
        self._fired = False

    def __enter__(self) -> None:
        """Arm the timer."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: used inside coroutines only
        self._task = task
        self._handle = loop.call_at(self._when, self._fire)

    def _fire(self) -> None:
        self._fired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disarm it; turn its own cancellation into the timeout, and let others' through."""
        self._handle.cancel()
        if not self._fired:
            return
        # before anything else: also where the block swallowed the cancellation, its count must go down
        uncancel = getattr(self._task, "uncancel", None)  # Python 3.11
        others = uncancel() if uncancel is not None else 0
        if kind is asyncio.CancelledError and not others:
            raise ScoringTimeout(self._what) from None
