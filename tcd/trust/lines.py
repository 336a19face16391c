"""Where a member stands in a TOML text: the parser keeps no positions, so the text is looked through once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

_TABLE: Final = re.compile(r"\s*\[(\[?)([^\[\]]+)\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_.\-\"']+)\s*=")
Path = tuple[str | int, ...]


class Lines:
    """Line numbers, from 1, by path; good for messages, not for editing."""

    def __init__(self, text: str) -> None:
        """Look through the text."""
        self._known: dict[Path, int] = {}
        arrays: Counter[tuple[str, ...]] = Counter()
        table: Path = ()
        for number, line in enumerate(text.splitlines(), 1):
            header = _TABLE.match(line)
            if header is not None:
                names = _split(header[2])
                if header[1]:
                    arrays[names] += 1
                table = _indexed(names, arrays)
                self._known.setdefault(table, number)
                continue
            key = _KEY.match(line)
            if key is not None:
                self._known.setdefault((*table, *_split(key[1])), number)

    def of(self, path: Sequence[str | int]) -> int:
        """The line of a member, or of the nearest thing around it that has one."""
        at = tuple(path)
        while at and at not in self._known:
            at = at[:-1]
        return self._known.get(at, 1)


def _split(name: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in name.split("."))


def _indexed(names: tuple[str, ...], arrays: Counter[tuple[str, ...]]) -> Path:
    """Names with the index of the newest element behind each array of tables."""
    path: list[str | int] = []
    for depth, name in enumerate(names, 1):
        path.append(name)
        if arrays[names[:depth]]:
            path.append(arrays[names[:depth]] - 1)
    return tuple(path)
