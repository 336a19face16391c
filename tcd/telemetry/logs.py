"""Structured logs off the request path: a bounded queue, one writer thread, JSON lines (structlog's renderer).

A full queue drops the line and counts it: a slow disk must not slow a decision. Lines hold no raw subject
names and no secrets; who calls passes keyed digests.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TextIO

import structlog

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_END: Final[dict[str, Any]] = {}


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
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue(maxsize=limit)
        self._stream = stream
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._render = structlog.processors.JSONRenderer(sort_keys=True)
        self.dropped = 0

    def start(self) -> None:
        """Start the thread; idempotent."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tcd-log", daemon=True)
            self._thread.start()

    def stop(self, *, timeout: float = 2.0) -> None:
        """Write what waits and end the thread."""
        if self._thread is None:
            return
        try:
            self._queue.put(_END, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)
        self._thread = None

    def enabled(self, level: str) -> bool:
        """Whether lines of a level are written."""
        return LEVELS[level] >= self._least

    def write(self, level: str, event: str, **fields: Any) -> None:
        """Queue a line, also before the start; never blocks, never raises."""
        if LEVELS[level] < self._least:
            return
        try:
            self._queue.put_nowait({"level": level, "event": event, "at": self._clock(), **fields})
        except queue.Full:
            self.dropped += 1

    def _run(self) -> None:
        while True:
            line = self._queue.get()
            if line is _END:
                return
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
