"""Files that are whole or not there: a temporary name, a sync, a rename, a sync of the directory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

#: Mode of a file that holds a secret.
SECRET = 0o600


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: the directory cannot be opened or synced.
    """
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def writing(path: Path, *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """A file that takes the place of `path`, durably, when the block ends without an error; else nothing changes.

    What a killed process leaves is a file named `.NAME.PID.THREAD.tmp`, which nothing reads.

    Args:
        path: the file; its directory exists.
        mode: permissions of the file, less the umask.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    # of a process that was killed and had the same numbers
    temporary.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_whole(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file whole or not at all; see `writing`."""
    with writing(path, mode=mode) as file:
        file.write(data)
