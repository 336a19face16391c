"""The data directory and its ledger, looked at without changing them, also while a shim uses them."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcd.doctor.finding import Finding
from tcd.ledger.sqlite import FILE
from tcd.ledger.sqlite_schema import APPLICATION_ID, MIGRATIONS

DISK_LEAST: Final = 64 << 20
DISK_GOOD: Final = 1 << 30
_ANOTHER: Final = "choose another directory with --data-dir or TCD_DATA_DIR"
_RESTORE: Final = "start a fresh directory; `tcd audit store` says what can be read of this one"


def free_bytes(directory: Path) -> int:
    """Bytes that are free where a directory is, or would be made."""
    return shutil.disk_usage(next(path for path in (directory, *directory.parents) if path.exists())).free


def check_directory(directory: Path, *, free: Callable[[Path], int] = free_bytes) -> Iterator[Finding]:
    """Whether a data directory can be written, and has room."""
    place = next(path for path in (directory, *directory.parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        yield Finding("data directory", "fail", f"{place} cannot be written by this user", _ANOTHER)
    elif place != directory:
        yield Finding("data directory", "ok", f"{directory} will be made")
    elif directory.stat().st_mode & 0o022:
        remedy = f"chmod 700 {directory}"
        yield Finding("data directory", "warn", f"{directory} can be written by others", remedy)
    else:
        yield Finding("data directory", "ok", str(directory))
    room = free(directory)
    detail, remedy = f"{room >> 20} MiB free", f"make room; a decision takes about 5 kB; or {_ANOTHER}"
    if room < DISK_LEAST:
        yield Finding("disk", "fail", detail, remedy)
    else:
        yield Finding("disk", "warn", detail, remedy) if room < DISK_GOOD else Finding("disk", "ok", detail)


@dataclass(frozen=True, slots=True)
class Store:
    """What was read of a ledger; `newest_us` is the time of its newest receipt."""

    findings: tuple[Finding, ...]
    newest_us: int | None = None


def check_sqlite(directory: Path) -> Store:
    """Header, version and integrity of the ledger of a data directory; it is opened for reading alone."""
    path = directory / FILE
    if not path.exists():
        return Store((Finding("ledger", "ok", f"{path.name} will be made at the first start"),))
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            return _read(connection, path)
    except sqlite3.Error as error:
        return Store((Finding("ledger", "fail", f"{path}: {error}", _RESTORE),))


def _read(connection: sqlite3.Connection, path: Path) -> Store:
    def one(query: str) -> int:
        row = connection.execute(query).fetchone()
        return int(row[0]) if row is not None else 0

    if one("PRAGMA application_id") != APPLICATION_ID:
        return Store((Finding("ledger", "fail", f"{path} is no ledger of tcd", _ANOTHER),))
    version = one("PRAGMA user_version")
    if version > len(MIGRATIONS):
        detail = f"version {version}, this tcd knows {len(MIGRATIONS)}"
        return Store((Finding("ledger", "fail", detail, "use the newer tcd that wrote it"),))
    found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    if found != ["ok"]:
        return Store((Finding("ledger", "fail", f"damaged: {'; '.join(found)[:300]}", _RESTORE),))
    newest = one("SELECT ts_us FROM receipt ORDER BY idx DESC LIMIT 1") or None
    count = one("SELECT coalesce(max(idx), -1) + 1 FROM receipt")
    behind = "" if version == len(MIGRATIONS) else f", upgraded to {len(MIGRATIONS)} at the next start"
    return Store((Finding("ledger", "ok", f"version {version}{behind}, {count} receipts, intact"),), newest)


async def check_postgres(url: str, *, timeout: float) -> Finding:
    """Whether the server of a URL answers and is new enough; nothing of the URL is shown."""
    try:
        import asyncpg  # noqa: PLC0415 - an extra
    except ImportError:
        return Finding("ledger", "fail", "PostgreSQL needs the extra postgres", "pip install 'tcd[postgres]'")
    try:
        connection = await asyncpg.connect(url.partition("?")[0], timeout=timeout)
        try:
            number = int(await connection.fetchval("SHOW server_version_num"))
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError) as error:
        kind = type(error).__name__
        return Finding("ledger", "fail", f"PostgreSQL cannot be used: {kind}", "check the server, role and password")
    if number < 130_000:  # noqa: PLR2004 - as PostgreSQL writes 13.0
        return Finding("ledger", "fail", f"PostgreSQL {number // 10_000}", "use PostgreSQL 13 or newer")
    return Finding("ledger", "ok", f"PostgreSQL {number // 10_000} answers")
