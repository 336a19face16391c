"""Connections to PostgreSQL, and what its errors mean here. No message has the URL or the password in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeVar

import asyncpg

from tcd.errors import ConfigError, Unavailable

T = TypeVar("T")
#: Waits for something of the loop that it belongs to.
Wait = Callable[[Awaitable[Any]], Any]

#: Seconds for a connection, and for a statement.
CONNECT_S: Final = 5.0
STATEMENT_S: Final = 10.0
#: A commit that returned is on the disk of the server. A shim that is stopped within a transaction holds the lock of
#: the log: the server ends such a session.
_SETTINGS: Final = {
    "application_name": "tcd",
    "synchronous_commit": "on",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "10s",
    "lock_timeout": "8s",
    "idle_in_transaction_session_timeout": "5s",
    "client_min_messages": "warning",
    "timezone": "UTC",
    "jit": "off",
}
#: What a lost, refused or stuck connection looks like. The server may end one between two statements; the driver then
#: finds itself in a state that it does not expect.
LOST: Final = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
)


async def connect(url: str) -> Any:
    """A connection with the settings that the ledger relies on."""
    return await asyncpg.connect(url, timeout=CONNECT_S, command_timeout=STATEMENT_S, server_settings=_SETTINGS)


async def pool(url: str) -> Any:
    """Connections for reading, made when they are needed."""
    return await asyncpg.create_pool(
        url, min_size=0, max_size=4, timeout=CONNECT_S, command_timeout=STATEMENT_S, server_settings=_SETTINGS
    )


def name_of(error: BaseException) -> str:
    """What a message says of an error: never its text, which may quote a value."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {state}" if state else type(error).__name__


@contextlib.contextmanager
def failures(done: str) -> Iterator[None]:
    """Turn the driver's errors into `Unavailable`.

    Args:
        done: what cannot be done: `read` or `written`.
    """
    try:
        yield
    except (*LOST, asyncpg.PostgresError) as error:
        msg = f"the ledger cannot be {done}: {name_of(error)}"
        raise Unavailable(msg, retry_after=1.0) from None


@contextlib.contextmanager
def without_loop(opening: Awaitable[T], close: Callable[[T], None]) -> Iterator[tuple[T, Wait]]:
    """What `opening` opens, for reading by a program that runs no loop; and what waits for its coroutines.

    Raises:
        ConfigError: it cannot be reached or is no ledger. The URL is not in the message.
    """
    loop = asyncio.new_event_loop()
    try:
        try:
            with failures("read"):
                opened = loop.run_until_complete(opening)
        except (Unavailable, ValueError) as error:
            msg = f"the ledger cannot be read: {type(error).__name__}"
            raise ConfigError(msg) from None
        try:
            yield opened, loop.run_until_complete
        finally:
            close(opened)
            # the loop ends only after the sockets are closed
            loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
