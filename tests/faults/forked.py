"""Processes that the tests of this folder kill, forked from one that has imported the shim.

To import it takes a second of CPU, and most of them live for less. What is forked has no thread, no file and no
connection of the others: only modules are shared, as read.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import IO, Final

#: Seconds after which a process that says nothing counts as stuck: far above what a busy machine needs.
STUCK: Final = 120.0
_CONTEXT: Final = multiprocessing.get_context("forkserver")
# one that cannot be imported here is passed over
_CONTEXT.set_forkserver_preload([f"tests.faults.{name}decider" for name in ("", "null_", "log_", "pg_")])


def _run(start: Callable[..., None], arguments: tuple[str, ...], out: Connection, errors: str) -> None:
    os.dup2(out.fileno(), 1)
    os.dup2(os.open(errors, os.O_WRONLY), 2)
    for name in [name for name in os.environ if name.startswith("TCD_")]:
        del os.environ[name]
    start(*arguments)


class Forked:
    """A process of `start(*arguments)`; what it says is in `stdout`."""

    def __init__(self, start: Callable[..., None], *arguments: str) -> None:
        self._errors = tempfile.NamedTemporaryFile(prefix="tcd-forked-")  # noqa: SIM115 - as long as the process
        reader, writer = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_run, args=(start, arguments, writer, self._errors.name), daemon=True)
        self._process.start()
        writer.close()
        self.stdout: IO[bytes] = os.fdopen(os.dup(reader.fileno()), "rb")
        reader.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def errors(self) -> str:
        """What it wrote to standard error."""
        with open(self._errors.name, "rb") as file:  # noqa: PTH123 - the file has a position of its own
            return file.read().decode()[-4000:]

    def lines(self, count: int, of: bytes = b"\n") -> bytes:
        """What it says until there are `count` of something in it, and more where it said more at once.

        Raises:
            AssertionError: it ended, or says nothing any more.
        """
        said, until = b"", time.monotonic() + STUCK
        while said.count(of) < count:
            assert time.monotonic() < until, self.errors()
            if select.select([self.stdout], [], [], 1.0)[0]:
                block = os.read(self.stdout.fileno(), 65536)
                assert block, self.errors()
                said += block
        return said

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.join()

    def rest(self) -> bytes:
        """What one that was killed had said and nobody had read; nothing more can be asked of it."""
        found = self.stdout.read()
        self.stdout.close()
        self._errors.close()
        return found
