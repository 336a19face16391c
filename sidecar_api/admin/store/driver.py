"""A database as the store uses it: short transactions of statements whose values are `$1`, `$2`, ….

The statements are the same for SQLite and PostgreSQL; each one that decides something is atomic by itself.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

#: The tables. `until` is seconds since 1970.
TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS tcd_admin_nonce (
  kid TEXT NOT NULL, nonce TEXT NOT NULL, until DOUBLE PRECISION NOT NULL, PRIMARY KEY (kid, nonce))""",
    "CREATE INDEX IF NOT EXISTS tcd_admin_nonce_until ON tcd_admin_nonce (until)",
    """CREATE TABLE IF NOT EXISTS tcd_admin_act (
  principal TEXT NOT NULL, key TEXT NOT NULL, request TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('running', 'done', 'interrupted')),
  owner TEXT NOT NULL, until DOUBLE PRECISION NOT NULL,
  action TEXT NOT NULL DEFAULT '', actors TEXT NOT NULL DEFAULT '', object TEXT NOT NULL DEFAULT '',
  status INTEGER, answer TEXT, PRIMARY KEY (principal, key))""",
    "CREATE INDEX IF NOT EXISTS tcd_admin_act_until ON tcd_admin_act (until)",
    """CREATE TABLE IF NOT EXISTS tcd_admin_proposal (
  id TEXT PRIMARY KEY, until DOUBLE PRECISION NOT NULL, proposal TEXT NOT NULL, args TEXT NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS tcd_admin_principals (
  id INTEGER PRIMARY KEY CHECK (id = 1), digest TEXT NOT NULL, document TEXT NOT NULL)""",
)


class Transaction(Protocol):
    """A transaction that is open."""

    async def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        ...


class Driver(Protocol):
    """A database.

    Attributes:
        shared: whether other processes use it too.
        durable: whether it is there after a restart.
    """

    shared: bool
    durable: bool

    def transaction(self, *, alone: bool = False) -> AbstractAsyncContextManager[Transaction]:
        """A transaction: committed and durable at the end, rolled back by an error.

        With `alone` no other such one, of any process, is open at the same time.

        Raises:
            Unavailable: the database is away.
        """
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...
