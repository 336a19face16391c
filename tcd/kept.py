"""Files that are made from code and kept beside it, so that a change of what they say is seen in review."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def keep(module: str, files: Mapping[Path, Callable[[], str]], arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with `--check` compare them.

    Args:
        module: whose `python -m` writes them.
        files: place, and what makes the text that belongs there.
        arguments: of the command line; None = the process's own.

    Returns:
        The exit status: 1 when a file is another one or not there.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description="Write the kept files.")
    parser.add_argument("--check", action="store_true", help="compare them instead")
    if not parser.parse_args(arguments).check:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text(), "utf-8")
        return 0
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text("utf-8") != text()]
    for path in stale:
        sys.stderr.write(f"{path} is out of date: run python -m {module}\n")
    return int(bool(stale))
