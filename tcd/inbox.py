"""What waits for a thread of its own: a bounded queue, and the thread that empties it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

T = TypeVar("T")
_END = object()


class Inbox(Generic[T]):
    """Taken in from anywhere, also before the start; emptied by one daemon thread."""

    def __init__(self, name: str, work: Callable[[], None], *, limit: int) -> None:
        """An inbox whose thread is not started.

        Args:
            name: of the thread.
            work: what it does: empty the inbox until its iteration ends.
            limit: things that may wait.
        """
        self._name = name
        self._work = work
        self._queue: queue.Queue[object] = queue.Queue(limit)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()

    def stop(self, *, timeout: float) -> None:
        """End the thread when it has taken what waits; one that cannot within `timeout` seconds goes on alone."""
        if self._thread is None:
            return
        try:
            self._queue.put(_END, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)
        self._thread = None

    def put(self, thing: T) -> None:
        """Let a thing wait; never blocks.

        Raises:
            queue.Full: too many wait.
        """
        self._queue.put_nowait(thing)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty()

    def __iter__(self) -> Iterator[T]:
        """Take one thing after the other, until the stop."""
        while (thing := self._queue.get()) is not _END:
            yield cast("T", thing)

    def batches(self, *, most: int, seconds: float) -> Iterator[list[T]]:
        """Take what waits, at most `most` things at once, until the stop; an empty list after `seconds` of silence."""
        over = False
        while not over:
            things: list[T] = []
            try:
                thing = self._queue.get(timeout=seconds)
                while not (over := thing is _END):
                    things.append(cast("T", thing))
                    if len(things) == most:
                        break
                    thing = self._queue.get_nowait()
            except queue.Empty:
                pass
            yield things
