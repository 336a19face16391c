"""Where the principals in force are kept: in a file of the data directory, or in the database that replicas share.

They are looked up for every request, so what one replica changes holds at all of them from the next request on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from sidecar_api.admin.principals import KeySet, Principals
from sidecar_api.admin.store import AdminStore
from tcd.errors import ConfigError, Unavailable, ValidationFailed

_BAD = "the principals cannot be read"


class People(Protocol):
    """The principals in force."""

    async def current(self) -> Principals | None:
        """Those of now; None before the first are enrolled: then nobody gets in.

        Raises:
            Unavailable: they cannot be read; then nobody gets in either.
        """
        ...

    async def replace(self, before: str | None, after: Principals) -> bool:
        """Put others in force, durably, where those of digest `before` are (None: nobody); whether it was done."""
        ...


class FilePeople:
    """`People` in a file; another file is read when it has another identity, size or time."""

    def __init__(self, path: Path) -> None:
        """Read the file, if it is there.

        Raises:
            ConfigError: it cannot be used.
        """
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._known: Principals | None = None
        self._read()

    def _read(self) -> Principals | None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._seen = self._known = None
            return None
        except OSError as error:
            msg = f"{self._path}: {error.strerror}"
            raise ConfigError(msg) from None
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen != self._seen:
            self._known = Principals.load(self._path)
            self._seen = seen
        return self._known

    async def current(self) -> Principals | None:
        """See `People`."""
        try:
            return self._read()
        except ConfigError:
            raise Unavailable(_BAD, retry_after=10.0) from None

    async def replace(self, before: str | None, after: Principals) -> bool:
        """See `People`."""
        known = await self.current()
        if (None if known is None else known.digest) != before:
            return False
        after.save(self._path)
        return True


class SharedPeople:
    """`People` in the store."""

    def __init__(self, store: AdminStore) -> None:
        """Keep them in `store`."""
        self._store = store
        self._text: str | None = None
        self._known: Principals | None = None

    async def current(self) -> Principals | None:
        """See `People`."""
        text = await self._store.principals()
        if text != self._text:
            try:
                self._known = None if text is None else Principals(KeySet.model_validate_json(text))
            except (ValidationError, ValidationFailed):
                raise Unavailable(_BAD, retry_after=10.0) from None
            self._text = text
        return self._known

    async def replace(self, before: str | None, after: Principals) -> bool:
        """See `People`."""
        return await self._store.replace_principals(before, after.digest, after.document.model_dump_json())
