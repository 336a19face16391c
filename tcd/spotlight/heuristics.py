"""Which regions of a user's text look like pasted material: tables, code, mails, JSON, CSV.

Each heuristic finds at most one region, all of them in time linear in the text. Whatever is ambiguous goes towards
Data: a region ends at the last close that fits, and an opener without a close makes the rest Data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from tcd.spotlight.documents import csv, json_document

Region = tuple[int, int]

_TABLE: Final = re.compile(r"<table[\s/>]", re.IGNORECASE | re.ASCII)
_TABLE_END: Final = re.compile(r"</table", re.IGNORECASE | re.ASCII)
_FENCES: Final = ("```", "~~~")
_HEADERS: Final = frozenset(
    {
        *("from", "to", "cc", "bcc", "subject", "date", "sent", "reply-to", "sender", "message-id", "in-reply-to"),
        *("references", "received", "return-path", "delivered-to", "mime-version", "content-type", "importance"),
        *("content-transfer-encoding", "list-unsubscribe", "x-mailer", "x-priority", "user-agent", "attachments"),
    }
)
_LONGEST_HEADER: Final = max(map(len, _HEADERS))
_HEADER_LINES: Final = 2


def html_table(text: str) -> Region | None:
    """From the first `<table` to the end of the last `</table>`; without one, to the end of the text."""
    if "<" not in text:
        return None
    opened = [found.start() for found in _TABLE.finditer(text)]
    if not opened:
        return None
    closed = [found.end() for found in _TABLE_END.finditer(text, opened[0])]
    end = text.find(">", closed[-1]) if closed and closed[-1] > opened[-1] else -1
    return opened[0], len(text) if end < 0 else end + 1


def _fence(line: str) -> tuple[str, int] | None:
    """Kind and length of a fence at the start of a line, behind at most three spaces or a quote mark."""
    bare = line.lstrip(" \t>")
    for kind in _FENCES:
        if bare.startswith(kind):
            return kind[0], len(bare) - len(bare.lstrip(kind[0]))
    return None


def fenced_code(text: str) -> Region | None:
    """From the first fence to the end of the last one; when that one is open, to the end of the text."""
    if _FENCES[0] not in text and _FENCES[1] not in text:
        return None
    begin, end, position = -1, -1, 0
    opened: tuple[str, int] | None = None
    for line in text.splitlines(keepends=True):
        fence = _fence(line)
        if fence is not None and opened is None:
            opened = fence
            begin = position if begin < 0 else begin
        elif fence is not None and opened is not None and fence[0] == opened[0] and fence[1] >= opened[1]:
            info = line.strip(" \t>\r\n").strip(fence[0])
            if not info:
                opened, end = None, position + len(line)
        position += len(line)
    if begin < 0:
        return None
    return begin, len(text) if opened is not None else end


def _is_header(line: str) -> bool:
    bare = line.lstrip(" \t>*")
    colon = bare.find(":", 0, _LONGEST_HEADER + 3)
    return colon > 0 and bare[:colon].rstrip(" *").lower() in _HEADERS


def mail(text: str) -> Region | None:
    """From the first of two neighbouring header lines to the end of the text; a folded line continues a header."""
    if ":" not in text:
        return None
    begin, count, position = -1, 0, 0
    for line in text.splitlines(keepends=True):
        if _is_header(line):
            begin = position if count == 0 else begin
            count += 1
            if count == _HEADER_LINES:
                return begin, len(text)
        elif not (count and line[:1] in " \t" and line.strip()):
            count = 0
        position += len(line)
    return None


#: In order; an earlier one gives the overlapping part its kind.
HEURISTICS: Final[tuple[Callable[[str], Region | None], ...]] = (html_table, fenced_code, mail, json_document, csv)


def regions(text: str) -> list[Region]:
    """The Data regions of a text, in order, overlapping and touching ones merged."""
    found = sorted(region for heuristic in HEURISTICS if (region := heuristic(text)) is not None)
    merged: list[Region] = []
    for start, end in found:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        elif end > start:
            merged.append((start, end))
    return merged
