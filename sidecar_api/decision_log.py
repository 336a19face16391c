"""The decision log: a line per decision in a file, off the request path, for trying policies on what was decided.

It names subjects in clear, so it is off unless configured and the file is its owner's alone. It is no record of truth,
that is the ledger's: a full queue drops lines and says how many.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tcd.files import SECRET

_LOG: Final = logging.getLogger(__name__)
_WAITING: Final = 10_000


class DecisionLog:
    """Appends lines from its own thread."""

    def __init__(self, path: Path, *, waiting: int = _WAITING) -> None:
        """A log that is not started; `waiting` lines may wait to be written."""
        self._path = path
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue(waiting)
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._run, name="tcd-decisions", daemon=True)
        self._thread.start()

    def stop(self, *, timeout: float = 5.0) -> None:
        """Write what waits and end."""
        if self._thread is not None:
            self._queue.put(None, timeout=timeout)
            self._thread.join(timeout)
            self._thread = None

    def write(self, line: Mapping[str, Any]) -> None:
        """Queue a line; never blocks."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        try:
            with os.fdopen(
                os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, SECRET), "w"
            ) as file:
                while (line := self._queue.get()) is not None:
                    file.write(json.dumps(line, separators=(",", ":")) + "\n")
                    if self._queue.empty():
                        file.flush()
        except OSError as error:
            _LOG.error("the decision log %s cannot be written: %s", self._path, error.strerror)
            self._drain()
        if self.dropped:
            _LOG.warning("the decision log dropped %d lines", self.dropped)

    def _drain(self) -> None:
        while self._queue.get() is not None:
            self.dropped += 1
