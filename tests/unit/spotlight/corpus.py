"""The corpus of indirect injections and of honest prompts, and how much of them lands where it should."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tcd.bench.injection import wilson
from tcd.spotlight import Policy, Segment, cut, locate
from tests.unit.spotlight.kit import KEY

FOLDER = Path(__file__).resolve().parents[2] / "data" / "injections"
ESCAPE = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})")
POLICY = Policy(shadow=False)


@dataclass(frozen=True)
class Labelled:
    """A text and the character spans of what is framed in its source."""

    name: str
    kind: str
    text: str
    spans: tuple[tuple[int, int], ...]


def labelled(name: str, kind: str, source: str) -> Labelled:
    source = ESCAPE.sub(lambda m: chr(int(m[1] or m[2], 16)), source)
    text, spans, start = "", [], 0
    for piece in re.split("([⟦⟧])", source):
        if piece == "⟦":
            start = len(text)
        elif piece == "⟧":
            spans.append((start, len(text)))
        else:
            text += piece
    return Labelled(name, kind, text, tuple(spans))


def read(file: str) -> list[Labelled]:
    source = (FOLDER / file).read_text("utf-8")
    found = re.findall(r"(?ms)^=== (\S+) ?(\S*)\n(.*?)(?=^=== |\Z)", source)
    return [labelled(name, kind, body.removesuffix("\n")) for name, kind, body in found]


def segments(body: Any) -> Iterator[Segment]:
    located = locate(json.dumps(body).encode())
    for text in located.texts:
        yield from cut(text, POLICY, key=KEY, header={}).segments


def data_within(found: list[Segment], offset: int, spans: tuple[tuple[int, int], ...]) -> int:
    """Characters of spans, moved by `offset`, that lie in Data."""
    inside = 0
    for start, end in spans:
        for s in found:
            if s.kind == "data":
                inside += max(0, min(s.end, end + offset) - max(s.start, start + offset))
    return inside


__all__ = ["Labelled", "data_within", "read", "segments", "wilson"]
