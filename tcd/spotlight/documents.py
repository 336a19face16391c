"""JSON documents and CSV tables inside a text, found in linear time without a backtracking expression."""

from __future__ import annotations

import json
import re
from typing import Final

Region = tuple[int, int]

_OPENER: Final = re.compile(r'\{(?=\s*["}])|\[(?=\s*(?:["{\[\]]|-?[0-9]|true|false|null))', re.ASCII)
_TOKEN: Final = re.compile(r'["{}\[\]]')
_BETWEEN: Final = " \t\r\n,"
_decode: Final = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str).raw_decode
_JSON_SHARE: Final = 0.5
_CSV_LINES: Final = 3
_CSV_COMMAS: Final = 2
#: Openers that are tried. Each scan ends where the next begins, but a failed decode counts the lines before it.
_MOST_DOCUMENTS: Final = 512


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
    while True:
        token = _TOKEN.search(text, at)
        if token is None:
            return -1
        if token[0] == '"':
            at = _string_end(text, token.start())
            if at < 0:
                return -1
            continue
        depth += 1 if token[0] in "{[" else -1
        at = token.end()
        if depth == 0:
            return at


def _document_end(text: str, start: int) -> int:
    try:
        return _decode(text, start)[1]
    except (ValueError, RecursionError):
        # not JSON to the letter, which an attacker can always make it: brackets and strings decide
        return _balanced(text, start)


def json_document(text: str) -> Region | None:
    """Neighbouring balanced documents that make up half of the text; an open one reaches to the end."""
    if '"' not in text and "[" not in text:
        return None
    at = 0
    for _ in range(_MOST_DOCUMENTS):
        opened = _OPENER.search(text, at)
        if opened is None:
            return None
        start = opened.start()
        if len(text) - start < _JSON_SHARE * len(text):
            return None
        end = _document_end(text, start)
        while 0 <= end < len(text):
            follows = _OPENER.match(text, _skip(text, end))
            if follows is None:
                break
            end = _document_end(text, follows.start())
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
    begin, end = -1, -1
    run_start, run_length, run_commas = 0, 0, -1
    position, lines = 0, text.splitlines(keepends=True)
    index = 0
    while index < len(lines):
        row_start, row = position, lines[index]
        index, position = index + 1, position + len(row)
        quotes = row.count('"')
        if quotes % 2 and row.count(",") >= _CSV_COMMAS - 1 and run_length:
            pieces = [row]
            while quotes % 2 and index < len(lines):
                pieces.append(lines[index])
                quotes += lines[index].count('"')
                position += len(lines[index])
                index += 1
            row = "".join(pieces)
            if quotes % 2:
                position = len(text)
        commas = _commas(row)
        if commas >= _CSV_COMMAS and commas == run_commas:
            run_length += 1
        else:
            run_start, run_length, run_commas = row_start, int(commas >= _CSV_COMMAS), commas
        if run_length >= _CSV_LINES:
            begin = run_start if begin < 0 else begin
            end = position
    return None if begin < 0 else (begin, end)
