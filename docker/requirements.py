"""Print what an image installs beside tcd itself: `python requirements.py pyproject.toml EXTRA...`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import tomllib


def requirements(project: dict[str, object], *, extras: list[str]) -> list[str]:
    """Requirement lines: the dependencies and those of the extras.

    Raises:
        KeyError: there is no such extra.
    """
    optional: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    lines: list[str] = [*project["dependencies"]]  # type: ignore[misc]
    for extra in extras:
        lines += optional[extra]
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pyproject", type=Path)
    parser.add_argument("extras", nargs="*")
    given = parser.parse_args()
    project = tomllib.loads(given.pyproject.read_text())["project"]
    sys.stdout.writelines(f"{line}\n" for line in requirements(project, extras=given.extras))


if __name__ == "__main__":
    main()
