"""Reads Parquet files in a process of its own: a damaged one can end the process that reads it, whatever it catches.

`python -m tcd.calibration.probe FILE...` decodes every page of every file and prints the name of the file it is at.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from tcd.errors import AssetError

_SECONDS: Final = 600.0
_ROWS: Final = 64


def probe(paths: list[Path], *, values: int) -> None:
    """Refuse files that cannot be decoded.

    Args:
        paths: Parquet files.
        values: most numbers that a file may say it holds; one that says more is not unpacked.

    Raises:
        AssetError: with the file's name.
    """
    command = [sys.executable, "-m", "tcd.calibration.probe", str(values), *map(str, paths)]
    try:
        done = subprocess.run(  # noqa: S603 - this interpreter, and files that are named
            command, capture_output=True, text=True, timeout=_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        msg = f"Parquet files that take longer than {_SECONDS:g} s to decode"
        raise AssetError(msg) from error
    if done.returncode == 0:
        return
    at = done.stdout.splitlines()
    name = Path(at[-1]).name if at else "Parquet"
    reason = done.stderr.strip().splitlines()
    msg = f"{name}: cannot be read: {reason[-1].strip() if reason else f'the reader ended with {done.returncode}'}"
    raise AssetError(msg)


def check(path: Path, *, values: int) -> None:
    """Decode every page of a file.

    Raises:
        AssetError: it says that it holds more numbers than `values`.
        OSError, ValueError, pa.ArrowException: it cannot be decoded.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        held = sum(group.column(i).num_values for group in groups for i in range(group.num_columns))
        # before anything is unpacked: a small file can say that it holds a great many equal values
        if held > values:
            msg = f"{held} values, more than {values}"
            raise AssetError(msg)
        for _ in file.iter_batches(batch_size=_ROWS):
            pass


def main(arguments: list[str]) -> int:
    """Check the files that are named after the most values."""
    for name in arguments[1:]:
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        try:
            check(Path(name), values=int(arguments[0]))
        except AssetError as error:
            sys.stderr.write(f"{error.detail}\n")
            return 1
        except (OSError, ValueError, pa.ArrowException) as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n".replace("\n", " ").strip() + "\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
