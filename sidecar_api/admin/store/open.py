"""The store of the settings: where the ledger is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sidecar_api.admin.store.driver import Driver
from sidecar_api.admin.store.sqlite import MEMORY, SqliteDriver
from sidecar_api.admin.store.store import AdminStore
from tcd.config import Settings

_FILE: Final = "store.sqlite"


def _store(driver: Driver) -> AdminStore:
    return AdminStore(driver, owner=os.urandom(16).hex())


def memory_store() -> AdminStore:
    """A store that is lost with the process."""
    return _store(SqliteDriver(MEMORY))


def sqlite_store(folder: Path) -> AdminStore:
    """A store in a file of a private folder."""
    return _store(SqliteDriver(folder / _FILE))


def open_store(settings: Settings, folder: Path) -> AdminStore:
    """The store beside the ledger of the settings: memory, a file of `folder`, or the shared database."""
    if settings.ledger_url is not None:
        from sidecar_api.admin.store.postgres import PostgresDriver  # noqa: PLC0415 - an extra

        return _store(PostgresDriver(settings.ledger_url.get_secret_value()))
    return memory_store() if settings.ledger == "memory" else sqlite_store(folder)
