"""JSON documents and CSV tables inside a text, found in linear time without a backtracking expression."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

Region = tuple[int, int]

_OPENER: Final = re.compile(r'\{(?=\s*["}])|\[(?=\s*(?:["{\[\]]|-?[0-9]|true|false|null))', re.ASCII)
# a closed string at once, its escapes one by one: no two ways to read it; one that is never closed begins with the bare
# quote, and is found to be so but once, for it ends the search
_TOKEN: Final = re.compile(r'("[^"\\]*(?:\\[\s\S][^"\\]*)*")|([{\[])|([}\]])|"')
_STRING, _OPEN, _CLOSE = 1, 2, 3
_BETWEEN: Final = " \t\r\n,"
_decode: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode
_JSON_SHARE: Final = 0.5
_CSV_LINES: Final = 3
_CSV_COMMAS: Final = 2
#: Failures of the decoder on one text: each counts the lines before it.
_MOST_FAILURES: Final = 8


def _balanced(text: str, start: int) -> int:
    """Index after the bracket that closes the one at `start`; -1 when none does, or a string is never closed."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        kind = token.lastindex
        if kind == _STRING:
            continue
        if kind == _OPEN:
            depth += 1
        elif kind == _CLOSE:
            depth -= 1
            if depth == 0:
                return token.end()
        else:
            return -1
    return -1


class _Documents:
    """Finds where documents end. What is JSON to the letter is read by the decoder, as often as that may fail."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._failures = 0

    def end(self, start: int) -> int:
        if self._failures < _MOST_FAILURES:
            try:
                return _decode(self._text, start)[1]
            except (ValueError, RecursionError):
                self._failures += 1
        # not JSON to the letter, which an attacker can always make it: brackets and strings decide
        return _balanced(self._text, start)


def json_document(text: str) -> Region | None:
    """Neighbouring balanced documents that make up half of the text; an open one reaches to the end."""
    if '"' not in text and "[" not in text:
        return None
    documents, at = _Documents(text), 0
    while (opened := _OPENER.search(text, at)) is not None:
        start = opened.start()
        if len(text) - start < _JSON_SHARE * len(text):
            return None
        end = documents.end(start)
        while 0 <= end < len(text):
            follows = _OPENER.match(text, _skip(text, end))
            if follows is None:
                break
            end = documents.end(follows.start())
        if end < 0:
            return start, len(text)
        if end - start >= _JSON_SHARE * len(text):
            return start, end
        at = end
    return None


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BETWEEN:
        at += 1
    return at


def _commas(line: str) -> int:
    """Commas outside quotes."""
    if '"' not in line:
        return line.count(",")
    return sum(piece.count(",") for piece in line.split('"')[::2])


def csv(text: str) -> Region | None:
    """From the first to the last of the runs of three rows with the same two or more commas.

    A quoted field may hold line breaks; one that is never closed reaches to the end.
    """
    if text.count(",") < _CSV_LINES * _CSV_COMMAS:
        return None
    lines = text.splitlines(keepends=True)
    if '"' not in text:
        first, last = _run([line.count(",") for line in lines])
        return None if first < 0 else (sum(map(len, lines[:first])), sum(map(len, lines[:last])))
    rows = list(_rows(lines))
    first, last = _run([commas for commas, _ in rows])
    lengths = [length for _, length in rows]
    return None if first < 0 else (sum(lengths[:first]), sum(lengths[:last]))


def _run(commas: list[int]) -> tuple[int, int]:
    """From the first row of the first run to behind the last one of the last; -1 when there is no run."""
    begin, end = -1, -1
    start, before = 0, -1
    for index, count in enumerate(commas):
        if count != before:
            start, before = index, count
        elif count >= _CSV_COMMAS and index - start >= _CSV_LINES - 1:
            begin, end = start if begin < 0 else begin, index + 1
    return begin, end


def _rows(lines: list[str]) -> Iterator[tuple[int, int]]:
    """Commas and length of each row; inside a table an open quote joins lines."""
    before, index = 0, 0
    while index < len(lines):
        row = lines[index]
        index += 1
        quotes = row.count('"')
        if quotes % 2 and row.count(",") >= _CSV_COMMAS - 1 and before:
            pieces = [row]
            while quotes % 2 and index < len(lines):
                pieces.append(lines[index])
                quotes += lines[index].count('"')
                index += 1
            row = "".join(pieces)
        before = _commas(row) if quotes else row.count(",")
        before = before if before >= _CSV_COMMAS else 0
        yield before, len(row)
