"""The store in SQLite: a file of mode 0600, or memory."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from sidecar_api.admin.store.driver import TABLES, Transaction
from tcd.errors import ConfigError, Unavailable

_T = TypeVar("_T")
MEMORY: Final = ":memory:"
VERSION: Final = 1


class SqliteDriver:
    """`Driver` of one file; all of SQLite runs in one thread of its own."""

    shared = False

    def __init__(self, path: Path | str) -> None:
        """Use the file `path`, or `MEMORY`; it is opened at the first use."""
        self.durable = path != MEMORY
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tcd-admin")
        self._connection: sqlite3.Connection | None = None
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self, *, alone: bool = False) -> AsyncGenerator[Transaction, None]:
        """See `Driver`; each one is alone here."""
        del alone
        async with self._turn:
            try:
                await self._in_thread(self._begin)
                yield self
                await self._in_thread(self._execute, "COMMIT")
            except BaseException as error:
                await self._in_thread(self._abort)
                if isinstance(error, sqlite3.Error):
                    msg = f"the admin plane's store cannot be used: {type(error).__name__}"
                    raise Unavailable(msg, retry_after=1.0) from None
                raise

    async def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """See `Transaction`."""
        return await self._in_thread(self._execute, sql, *values)

    async def close(self) -> None:
        """See `Driver`."""
        async with self._turn:
            await self._in_thread(self._close)
        self._thread.shutdown()

    async def _in_thread(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if self.durable:
                # made here, so that it never is anybody else's to read
                os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            made = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
            # a rollback journal: few writes, and no fault of a write-ahead log can matter
            made.execute("PRAGMA journal_mode = DELETE")
            made.execute("PRAGMA synchronous = EXTRA")
            # what is forgotten is zeros in the file
            made.execute("PRAGMA secure_delete = ON")
            (version,) = made.execute("PRAGMA user_version").fetchone()
            if version not in {0, VERSION}:
                made.close()
                msg = f"{self._path} was written by a newer version of tcd; remedy: upgrade this one"
                raise ConfigError(msg)
            made.execute("BEGIN IMMEDIATE")
            for table in TABLES:
                made.execute(table)
            made.execute(f"PRAGMA user_version = {VERSION}")
            made.execute("COMMIT")
            self._connection = made
        return self._connection

    def _begin(self) -> None:
        self._open().execute("BEGIN IMMEDIATE")

    def _execute(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        named = {str(at): value for at, value in enumerate(values, 1)}
        return self._open().execute(sql, named).fetchall()

    def _abort(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
