"""A PostgreSQL ledger as the source of an export; needs the extra `postgres`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from tcd.ledger.export_erasures import Bodies
from tcd.ledger.postgres_connect import Wait, without_loop
from tcd.ledger.postgres_reader import Reader
from tcd.ledger.values import Checkpoint, StoredReceipt


class _Waiting:
    """A ledger's coroutines, one after the other."""

    def __init__(self, reader: Reader, wait: Wait) -> None:
        self._reader = reader
        self._wait = wait

    def heads(self, first: int, limit: int) -> Sequence[bytes]:
        found: Sequence[bytes] = self._wait(self._reader.heads(first=first, limit=limit))
        return found

    def checkpoint(self, covering: int | None = None) -> Checkpoint | None:
        found: Checkpoint | None = self._wait(self._reader.checkpoint(covering=covering))
        return found

    def erase_records(self, first: int, limit: int) -> Sequence[StoredReceipt]:
        found: Sequence[StoredReceipt] = self._wait(self._reader.erase_records(first=first, limit=limit))
        return found

    def gone(self, first: int, end: int) -> Sequence[int]:
        found: Sequence[int] = self._wait(self._reader.gone(first=first, end=end))
        return found


@contextlib.contextmanager
def postgres_source(url: str) -> Iterator[Bodies]:
    """A PostgreSQL ledger, also while shims write it, reading only.

    Raises:
        ConfigError: it cannot be reached or is no ledger. The URL is not in the message.
    """
    with without_loop(Reader.reading(url), Reader.disconnect) as (reader, wait):
        yield _Waiting(reader, wait)
