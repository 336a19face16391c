"""JSON documents and CSV tables inside a text, found in linear time without a backtracking expression."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final

Region = tuple[int, int]

_OPENER: Final = re.compile(r'\{(?=\s*["}])|\[(?=\s*(?:["{\[\]]|-?[0-9]|true|false|null))', re.ASCII)
# a string without escapes at once; any other begins with the bare quote
_TOKEN: Final = re.compile(r'("[^"\\]*")|([{\[])|([}\]])|"')
_STRING, _OPEN, _CLOSE = 1, 2, 3
_BETWEEN: Final = " \t\r\n,"
_decode: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode
_JSON_SHARE: Final = 0.5
_CSV_LINES: Final = 3
_CSV_COMMAS: Final = 2
#: Failures of the decoder on one text: each counts the lines before it.
_MOST_FAILURES: Final = 8


def _string_end(text: str, quote: int) -> int:
    """Index after the quote that closes the string opened at `quote`; -1 when none does."""
    at = quote
    while True:
        at = text.find('"', at + 1)
        if at < 0:
            return -1
        slashes = at - 1
        while text[slashes] == "\\":
            slashes -= 1
        if (at - 1 - slashes) % 2 == 0:
            return at + 1


def _balanced(text: str, start: int) -> int:
    """Index after the bracket that closes the one at `start`; -1 when none does."""
    depth, at = 0, start
    while at >= 0:
        for token in _TOKEN.finditer(text, at):
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
                at = _string_end(text, token.start())
                break
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
    begin, end = -1, -1
    run_start, run_length, run_commas = 0, 0, -1
    position = 0
    for commas, length in _rows(lines) if '"' in text else ((line.count(","), len(line)) for line in lines):
        if commas >= _CSV_COMMAS and commas == run_commas:
            run_length += 1
        else:
            run_start, run_length, run_commas = position, int(commas >= _CSV_COMMAS), commas
        position += length
        if run_length >= _CSV_LINES:
            begin = run_start if begin < 0 else begin
            end = position
    return None if begin < 0 else (begin, end)


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
