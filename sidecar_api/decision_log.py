"""The decision log: a line per decision in a file, off the request path, for trying policies on what was decided.

It names subjects in clear, so it is off unless configured and the file is its owner's alone. It is no record of truth,
that is the ledger's: a full queue drops lines and says how many.
"""

from __future__ import annotations

import json
import logging
import os
import queue
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tcd.files import SECRET
from tcd.inbox import Inbox

_LOG: Final = logging.getLogger(__name__)
_WAITING: Final = 10_000


class DecisionLog:
    """Appends lines from its own thread."""

    def __init__(self, path: Path, *, waiting: int = _WAITING) -> None:
        """A log that is not started; `waiting` lines may wait to be written."""
        self._path = path
        self._inbox: Inbox[Mapping[str, Any]] = Inbox("tcd-decisions", self._run, limit=waiting)
        self.dropped = 0

    def start(self) -> None:
        """Begin to write."""
        self._inbox.start()

    def stop(self, *, timeout: float = 5.0) -> None:
        """Write what waits and end."""
        self._inbox.stop(timeout=timeout)

    def write(self, line: Mapping[str, Any]) -> None:
        """Queue a line; never blocks."""
        try:
            self._inbox.put(line)
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        try:
            with os.fdopen(
                os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, SECRET), "w"
            ) as file:
                for line in self._inbox:
                    file.write(json.dumps(line, separators=(",", ":")) + "\n")
                    if self._inbox.empty:
                        file.flush()
        except OSError as error:
            _LOG.error("the decision log %s cannot be written: %s", self._path, error.strerror)
            self.dropped += sum(1 for _ in self._inbox)
        if self.dropped:
            _LOG.warning("the decision log dropped %d lines", self.dropped)
