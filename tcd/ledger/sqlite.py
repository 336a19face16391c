"""The SQLite ledger: durable, for one process. The default of `tcd serve`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from tcd.errors import ConfigError, Unavailable
from tcd.ledger.sqlite_store import Store
from tcd.ledger.values import (
    Appended,
    Batch,
    Checkpoint,
    EventPage,
    Extent,
    Idempotent,
    LedgerStats,
    SavedState,
    StoredReceipt,
)
from tcd.receipts.chain import ChainState

T = TypeVar("T")
#: Name of the ledger in a data directory.
FILE: Final = "ledger.sqlite"
#: Bodies counted at once where the file has no count: some milliseconds, in which nothing is committed.
STRETCH: Final = 256
#: Rows in the WAL, about two megabytes, that are worth copying back in a pause, and seconds without a commit that are
#: one: it takes two syncs, and who is always busy has none to spare.
_TIDY: Final = 400
_PAUSE: Final = 0.005


class SqliteLedger:
    """`Ledger` in a file; see `sqlite_store` for how it is written."""

    durable = True

    def __init__(self, directory: Path) -> None:
        """Open or make the ledger of a data directory.

        Raises:
            ConfigError: the directory cannot be used, another process uses it, or its file is no ledger.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            msg = f"the data directory {directory} cannot be made: {error.strerror}; remedy: choose another one"
            raise ConfigError(msg) from None
        self._thread = ThreadPoolExecutor(1, "tcd-ledger")
        self._closed = False
        self._appending = 0
        self._untidy = 0
        try:
            self._store = self._thread.submit(Store, directory / FILE).result()
        except BaseException as error:
            self._thread.shutdown()
            if isinstance(error, OSError):
                msg = f"the data directory {directory} cannot be used: {error.strerror}; remedy: choose another one"
                raise ConfigError(msg) from None
            raise

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            msg = "the ledger is closed"
            raise Unavailable(msg)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def append(self, batch: Batch, *, now_us: int, expected_size: int | None = None) -> Appended:
        """See `Ledger.append`."""
        self._appending += 1
        try:
            return await self._run(lambda: self._store.append(batch, now_us, expected_size))
        finally:
            self._appending -= 1
            self._untidy += len(batch.receipts) + len(batch.answers) + len(batch.events)
            if self._untidy >= _TIDY and not self._appending:
                asyncio.get_running_loop().call_later(_PAUSE, self._tidy)

    def _tidy(self) -> None:
        """Copy a little of the WAL back while nobody waits: 16 MiB at once hold up every commit behind them."""
        if self._untidy >= _TIDY and not (self._appending or self._closed):
            self._untidy = 0
            self._thread.submit(self._store.tidy)

    async def scrub(self) -> None:
        """See `Ledger.scrub`."""
        await self._run(self._store.scrub)

    async def get(self, head: str) -> StoredReceipt | None:
        """See `Ledger.get`."""
        return await self._run(lambda: self._store.get(head))

    async def erasure(self, index: int) -> StoredReceipt | None:
        """See `Ledger.erasure`."""
        return await self._run(lambda: self._store.erasure(index))

    async def answer(self, tenant: str, key: str, *, now_us: int) -> Idempotent | None:
        """See `Ledger.answer`."""
        return await self._run(lambda: self._store.answer(tenant, key, now_us))

    async def chain(self, chain: str) -> ChainState | None:
        """See `Ledger.chain`."""
        return await self._run(lambda: self._store.chain(chain))

    async def chain_records(self, chain: str, *, first: int = 0, limit: int = 1024) -> Sequence[StoredReceipt]:
        """See `Ledger.chain_records`."""
        return await self._run(lambda: self._store.chain_records(chain, first, limit))

    async def heads(self, *, first: int = 0, limit: int = 65_536) -> Sequence[bytes]:
        """See `Ledger.heads`."""
        return await self._run(lambda: self._store.heads(first, limit))

    async def records(self, *, first: int = 0, limit: int = 1024) -> Sequence[StoredReceipt]:
        """See `Ledger.records`."""
        return await self._run(lambda: self._store.records(first, limit))

    async def open_chains(self, *, after: str = "", limit: int = 1024) -> Sequence[ChainState]:
        """See `Ledger.open_chains`."""
        return await self._run(lambda: self._store.open_chains(after, limit))

    async def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See `Ledger.put_checkpoint`."""
        await self._run(lambda: self._store.put_checkpoint(checkpoint))

    async def checkpoint(self, *, covering: int | None = None) -> Checkpoint | None:
        """See `Ledger.checkpoint`."""
        return await self._run(lambda: self._store.checkpoint(covering))

    async def events(self, *, first: int = 0, limit: int = 10_000) -> EventPage:
        """See `Ledger.events`."""
        return await self._run(lambda: self._store.events(first, limit))

    async def put_state(self, state: SavedState) -> None:
        """See `Ledger.put_state`."""
        await self._run(lambda: self._store.put_state(state))

    async def states(self) -> Sequence[int]:
        """See `Ledger.states`."""
        return await self._run(self._store.states)

    async def state(self, events: int) -> SavedState:
        """See `Ledger.state`."""
        return await self._run(lambda: self._store.state(events))

    async def first_records(self, chains: Sequence[str]) -> Mapping[str, StoredReceipt]:
        """See `Ledger.first_records`."""
        return await self._run(lambda: self._store.first_records(chains))

    async def extent(self) -> Extent:
        """See `Ledger.extent`."""
        return await self._run(self._store.extent)

    async def stats(self) -> LedgerStats:
        """See `Ledger.stats`; what is not counted yet, stretch by stretch: commits come in between."""
        while (found := await self._run(partial(self._store.counted, STRETCH))) is None:
            pass
        return found

    async def close(self) -> None:
        """See `Ledger.close`; waits for what is being written."""
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.close)
        self._thread.shutdown()
