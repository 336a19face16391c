"""The signals of `tcd serve`."""

from __future__ import annotations

import asyncio
import signal


class Stop:
    """SIGTERM and SIGINT: before serving they cancel the start, afterwards they drain."""

    def __init__(self) -> None:
        """Take the signals; inside the task that starts the server."""
        self.event = asyncio.Event()
        self.serving = False
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: made inside a coroutine
        self._task = task
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signal)

    def _signal(self) -> None:
        if not self.serving:
            self._task.cancel()
        self.event.set()
