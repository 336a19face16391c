"""A PostgreSQL ledger as the source of an export; needs the extra `postgres`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tcd.errors import ConfigError, Unavailable
from tcd.ledger.export_sources import Source
from tcd.ledger.port import Checkpoint
from tcd.ledger.postgres_reader import Reader


class _Waiting:
    """A ledger's coroutines, one after the other."""

    def __init__(self, reader: Any, run: Callable[[Any], Any]) -> None:
        self._reader = reader
        self._run = run

    def heads(self, first: int, limit: int) -> Sequence[bytes]:
        found: Sequence[bytes] = self._run(self._reader.heads(first=first, limit=limit))
        return found

    def checkpoint(self, covering: int | None = None) -> Checkpoint | None:
        found: Checkpoint | None = self._run(self._reader.checkpoint(covering=covering))
        return found


@contextlib.contextmanager
def postgres_source(url: str) -> Iterator[Source]:
    """A PostgreSQL ledger, also while shims write it, reading only.

    Raises:
        ConfigError: it cannot be reached or is no ledger. The URL is not in the message.
    """
    loop = asyncio.new_event_loop()
    try:
        try:
            reader = loop.run_until_complete(Reader.reading(url))
        except (Unavailable, ValueError) as error:
            msg = f"the ledger cannot be read: {type(error).__name__}"
            raise ConfigError(msg) from None
        try:
            yield _Waiting(reader, loop.run_until_complete)
        finally:
            reader.disconnect()
            # the loop ends only after the sockets are closed
            loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
