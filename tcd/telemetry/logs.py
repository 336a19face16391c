"""Structured logs off the request path: a bounded queue, one writer thread, JSON lines (structlog's renderer).

A full queue drops the line and counts it: a slow disk must not slow a decision. Lines hold no raw subject
names and no secrets; who calls passes keyed digests.
"""

from __future__ import annotations

import logging
import queue
import sys
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

import structlog

from tcd.inbox import Inbox

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class LogWriter:
    """Writes events as JSON lines from its own thread."""

    def __init__(
        self,
        *,
        level: str = "info",
        limit: int = 10_000,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """A writer that is not started.

        Args:
            level: least level that is written.
            limit: lines that may wait.
            stream: where to; default standard error.
            clock: seconds since 1970.
        """
        self._least = LEVELS[level]
        self._inbox: Inbox[dict[str, Any]] = Inbox("tcd-log", self._run, limit=limit)
        self._stream = stream
        self._clock = clock
        self._render = structlog.processors.JSONRenderer(sort_keys=True)
        self.dropped = 0

    def start(self) -> None:
        """Start the thread; idempotent."""
        self._inbox.start()

    def stop(self, *, timeout: float = 2.0) -> None:
        """Write what waits and end the thread."""
        self._inbox.stop(timeout=timeout)

    def enabled(self, level: str) -> bool:
        """Whether lines of a level are written."""
        return LEVELS[level] >= self._least

    def write(self, level: str, event: str, **fields: Any) -> None:
        """Queue a line, also before the start; never blocks, never raises."""
        if LEVELS[level] < self._least:
            return
        try:
            self._inbox.put({"level": level, "event": event, "at": self._clock(), **fields})
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        for line in self._inbox:
            self._emit(line)

    def _emit(self, line: dict[str, Any]) -> None:
        at = line.pop("at")
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e6):06d}Z"
        text = str(self._render(None, "", {"ts": stamp, **line}))
        stream = self._stream if self._stream is not None else sys.stderr
        try:
            stream.write(f"{text}\n")
            stream.flush()
        except (OSError, ValueError):
            # the disk is full or the stream is closed: there is nowhere to say so
            self.dropped += 1


class QueueHandler(logging.Handler):
    """Sends the standard library's records through a `LogWriter`."""

    def __init__(self, writer: LogWriter) -> None:
        """Forward to `writer`."""
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; a traceback goes as text of its own member."""
        level = "error" if record.levelno >= logging.ERROR else record.levelname.lower()
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            fields["error"] = record.exc_info[0].__name__
            fields["trace"] = logging.Formatter().formatException(record.exc_info)
        self._writer.write(level if level in LEVELS else "info", record.getMessage(), **fields)
