"""Builds the kernels with the C compiler that is there: `python -m tcd.native.build`, and the wheel's build hook.

Imports nothing of `tcd`, so that the hook can load it before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
LIBRARY: Final = HERE / "_kernels.so"
#: No option here may change a result: no fused multiply-add, no reordering of sums.
FLAGS: Final = (
    *("-std=gnu11", "-O3", "-fPIC", "-shared", "-fvisibility=hidden"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)


class NoCompiler(RuntimeError):
    """There is no C compiler, or it does not take the sources."""


def sources() -> list[Path]:
    """The C files and their headers, by name."""
    return sorted([*HERE.glob("*.c"), *HERE.glob("*.h")])


def digest() -> str:
    """SHA-256 of the sources and the flags: what a built library must say that it was made of."""
    state = hashlib.sha256(" ".join(FLAGS).encode())
    for path in sources():
        state.update(path.name.encode() + b"\0" + path.read_bytes())
    return state.hexdigest()


def compiler() -> list[str] | None:
    """The command of the C compiler: that of CC, or the first one on the path."""
    named = os.environ.get("CC")
    if named:
        return shlex.split(named)
    found = next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)
    return [found] if found else None


def build(library: Path = LIBRARY, *, extra: Sequence[str] = ()) -> Path:
    """Compile the kernels into `library`, whole or not at all.

    Args:
        library: the file to make.
        extra: further options, such as those of a sanitizer.

    Raises:
        NoCompiler: there is none, or it fails; the text has its last words.
    """
    command = compiler()
    if command is None:
        msg = "no C compiler: none of cc, gcc and clang is on the path (Debian/Ubuntu: apt-get install gcc libc6-dev)"
        raise NoCompiler(msg)
    units = [str(path) for path in sources() if path.suffix == ".c"]
    with tempfile.TemporaryDirectory(prefix=".build-", dir=library.parent) as place:
        made = Path(place) / library.name
        line = [*command, *FLAGS, *extra, f'-DTCD_DIGEST="{digest()}"', "-o", str(made), *units, "-lm"]
        try:
            done = subprocess.run(line, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
        except OSError as error:
            msg = f"{command[0]} cannot be started: {error}"
            raise NoCompiler(msg) from error
        if done.returncode:
            msg = f"{command[0]} does not compile the kernels: {done.stderr.strip()[-2000:]}"
            raise NoCompiler(msg)
        made.replace(library)
    return library


def is_current(library: Path = LIBRARY) -> bool:
    """Whether a library is there that was made of these sources; looks for its digest, loads nothing."""
    return library.exists() and digest().encode() in library.read_bytes()


def ensure(library: Path = LIBRARY) -> Path:
    """Build unless it is current.

    Raises:
        NoCompiler: see `build`.
    """
    return library if is_current(library) else build(library)


def main() -> int:
    """Build what is missing or stale; exit status 1 without a compiler."""
    try:
        sys.stdout.write(f"{ensure()}\n")
    except (NoCompiler, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
