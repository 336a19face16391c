"""Print what an image installs beside tcd itself: its dependencies of pyproject.toml, less what it does not run.

`python requirements.py pyproject.toml EXTRA... --without NAME...`. PyTorch is only used on a GPU and by the demo, and
`tritonclient[all]` brings the CUDA bindings.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import tomllib

_NARROWER = {"tritonclient[all]": "tritonclient[http,grpc]"}


def name_of(requirement: str) -> str:
    """The package's name, without extras, version and marker."""
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]


def requirements(project: dict[str, object], *, extras: list[str], without: list[str]) -> list[str]:
    """Requirement lines.

    Raises:
        KeyError: there is no such extra.
        ValueError: a name of `without` is no dependency.
    """
    optional: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    lines: list[str] = [*project["dependencies"]]  # type: ignore[misc]
    unknown = set(without) - {name_of(line) for line in lines}
    if unknown:
        msg = f"no dependency of tcd: {sorted(unknown)}"
        raise ValueError(msg)
    lines = [line for line in lines if name_of(line) not in without]
    for extra in extras:
        lines += optional[extra]
    for wide, narrow in _NARROWER.items():
        lines = [narrow + line.removeprefix(wide) if line.startswith(wide) else line for line in lines]
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pyproject", type=Path)
    parser.add_argument("extras", nargs="*")
    parser.add_argument("--without", action="append", default=[])
    given = parser.parse_args()
    project = tomllib.loads(given.pyproject.read_text())["project"]
    sys.stdout.writelines(f"{line}\n" for line in requirements(project, extras=given.extras, without=given.without))


if __name__ == "__main__":
    main()
