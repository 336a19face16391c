"""The store in PostgreSQL, beside the ledger that several shims share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from sidecar_api.admin.store.driver import TABLES, Transaction
from tcd.ledger.postgres_connect import failures, pool

#: Replicas that start together make the tables one after the other: key of their advisory lock.
_MAKING: Final = 0x7463_645F_6164_6D69
#: Of transactions that count before they write.
_COUNTING: Final = _MAKING + 1


class PostgresDriver:
    """`Driver` of a database; bound to one event loop."""

    shared = True
    durable = True

    def __init__(self, url: str) -> None:
        """Nothing is connected before the first use.

        Args:
            url: of the database, as the ledger has it; never shown.
        """
        self._url = url
        self._pool: Any = None
        self._opening = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self, *, alone: bool = False) -> AsyncGenerator[Transaction, None]:
        """See `Driver`."""
        with failures("used by the admin plane"):
            connections = await self._connections()
            async with connections.acquire() as connection, connection.transaction():
                if alone:
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _COUNTING)
                yield _Open(connection)

    async def close(self) -> None:
        """See `Driver`."""
        if self._pool is not None:
            with failures("used by the admin plane"):
                await self._pool.close()
            self._pool = None

    async def _connections(self) -> Any:
        async with self._opening:
            if self._pool is None:
                made = await pool(self._url)
                async with made.acquire() as connection, connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _MAKING)
                    there = await connection.fetchval("SELECT to_regclass('tcd_admin_principals')")
                    # a role that may not make tables uses those that its owner made
                    for table in TABLES if there is None else ():
                        await connection.execute(table)
                self._pool = made
        return self._pool


class _Open:
    """`Transaction` over a connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self._connection.fetch(sql, *values)]
