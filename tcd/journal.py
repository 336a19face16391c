"""A file of JSON values that only grows: what was appended is durable, and a torn end is cut off.

Each line carries a checksum. A line that is broken with others behind it is damage, not a crash: it is refused.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tcd.errors import ConfigError, Unavailable
from tcd.files import SECRET, sync_directory, write_whole

_WIDTH: Final = 9


def _line(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _value(line: bytes) -> Any:
    """The value of a whole line.

    Raises:
        ValueError: it is torn or damaged.
    """
    if not line.endswith(b"\n") or line[:_WIDTH] != b"%08x " % zlib.crc32(line[_WIDTH:-1]):
        msg = "not a whole line"
        raise ValueError(msg)
    return json.loads(line[_WIDTH:])


def read(path: Path) -> tuple[list[Any], int]:
    """The values of a journal, and the bytes that they take; it may be written meanwhile.

    Raises:
        ConfigError: it is damaged before its end, or cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise ConfigError(msg) from None
    values: list[Any] = []
    size = 0
    for number, line in enumerate(lines, 1):
        try:
            values.append(_value(line))
        except ValueError:
            if number < len(lines):
                msg = f"{path}:{number}: damaged; remedy: restore the file, or move it away to begin anew"
                raise ConfigError(msg) from None
            break
        size += len(line)
    return values, size


def aside(path: Path) -> list[Path]:
    """The files that `Journal.set_aside` made beside a journal, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-[0-9][0-9][0-9][0-9][0-9][0-9]{path.suffix}"))


class Journal:
    """A journal open for appending, by one process."""

    def __init__(self, path: Path) -> None:
        """Open or make it; `values` has what is in it.

        Raises:
            ConfigError: another process has it, it is damaged, or it cannot be opened.
        """
        self._path = path
        self._file = self._opened()
        try:
            self.values, size = read(path)
            os.ftruncate(self._file, size)
            sync_directory(path.parent)
        except ConfigError:
            self.close()
            raise
        except OSError as error:
            self.close()
            msg = f"{path}: {error.strerror}"
            raise ConfigError(msg) from None

    def _opened(self) -> int:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, SECRET)
        except OSError as error:
            msg = f"{self._path}: {error.strerror}"
            raise ConfigError(msg) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            msg = f"{self._path} is another process's"
            raise ConfigError(msg) from None
        return file

    def append(self, values: Sequence[Any]) -> None:
        """Make values durable, in order.

        Raises:
            Unavailable: they cannot be written; nothing of them is there.
        """
        data, size = b"".join(map(_line, values)), os.fstat(self._file).st_size
        try:
            whole = os.write(self._file, data) == len(data)
            os.fdatasync(self._file)
        except OSError as error:
            os.ftruncate(self._file, size)
            msg = f"{self._path} cannot be written: {error.strerror}"
            raise Unavailable(msg, retry_after=1.0) from error
        if not whole:
            os.ftruncate(self._file, size)
            msg = f"{self._path} cannot be written: the disk is full"
            raise Unavailable(msg, retry_after=1.0)

    def replace(self, values: Sequence[Any]) -> None:
        """Have these values instead of all that are there.

        Raises:
            Unavailable: they cannot be written; the old ones stay.
        """
        try:
            write_whole(self._path, b"".join(map(_line, values)), mode=SECRET)
        except OSError as error:
            msg = f"{self._path} cannot be written: {error.strerror}"
            raise Unavailable(msg, retry_after=1.0) from error
        old, self._file = self._file, self._opened()
        os.close(old)

    def set_aside(self, values: Sequence[Any]) -> None:
        """Keep values in a file of their own beside the journal, numbered, before `replace` leaves them out.

        Raises:
            Unavailable: it cannot be written.
        """
        number = 1 + max((int(path.stem.rpartition("-")[2]) for path in aside(self._path)), default=0)
        path = self._path.with_name(f"{self._path.stem}-{number:06d}{self._path.suffix}")
        try:
            write_whole(path, b"".join(map(_line, values)), mode=SECRET)
        except OSError as error:
            msg = f"{path} cannot be written: {error.strerror}"
            raise Unavailable(msg, retry_after=1.0) from error

    def close(self) -> None:
        """Let go of it."""
        os.close(self._file)
