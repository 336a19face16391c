"""Which regions of a user's text look like pasted material: tables, code, mails, JSON, CSV.

Each heuristic finds at most one region, all of them in time linear in the text. Whatever is ambiguous goes towards
Data: a region ends at the last close that fits, and an opener without a close makes the rest Data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from tcd.spotlight.documents import csv, json_document
from tcd.spotlight.spans import merge

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
# Each matches at the beginning of a line and without a choice: linear.
_FENCE: Final = re.compile(r"^[ \t>]*(```+|~~~+)([^\n]*)", re.MULTILINE)
_HEADER: Final = re.compile(r"^[ \t>*]*([A-Za-z-]{2,26})[ \t*]*:", re.MULTILINE | re.ASCII)
#: With which a line begins that continues the one before; the end of the text is looked at there too.
_FOLDS: Final = (" ", "\t", "")
#: Characters of a line that decide whether it continues the one before.
_FOLDED: Final = 80


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


def fenced_code(text: str) -> Region | None:
    """From the first fence to the end of the last one; when that one is open, to the end of the text."""
    if _FENCES[0] not in text and _FENCES[1] not in text:
        return None
    begin, end = -1, -1
    opened: str | None = None
    for line in _FENCE.finditer(text):
        fence = line[1]
        if opened is None:
            opened = fence
            begin = line.start() if begin < 0 else begin
        elif fence.startswith(opened) and not line[2].strip():
            # a closing fence has no words behind it and is at least as long
            opened, end = None, min(len(text), line.end() + 1)
    if begin < 0:
        return None
    return begin, len(text) if opened is not None else end


def mail(text: str) -> Region | None:
    """From the first of two neighbouring header lines to the end of the text; a folded line continues a header."""
    if ":" not in text:
        return None
    begin, after = -1, -1
    for line in _HEADER.finditer(text):
        if line[1].lower() not in _HEADERS:
            continue
        if line.start() == after:
            return begin, len(text)
        begin, after = line.start(), text.find("\n", line.end()) + 1 or -1
        if text[after : after + 1] in _FOLDS:
            after = _folded_end(text, line.end())
    return None


def _folded_end(text: str, at: int) -> int:
    """Where the line after a header begins, its continuations included."""
    while True:
        at = text.find("\n", at) + 1
        if not at:
            return -1
        folded = text.startswith((" ", "\t"), at) and text[at : at + _FOLDED].strip()
        if not folded or _HEADER.match(text, at):
            return at


#: Each with the characters without one of which outside what is Data already it can add nothing.
HEURISTICS: Final[tuple[tuple[Callable[[str], Region | None], str], ...]] = (
    (html_table, "<"),
    (fenced_code, "`~"),
    (mail, ":"),
    (json_document, "{}[]"),
    (csv, ","),
)


def regions(text: str) -> list[Region]:
    """The Data regions of a text, in order, overlapping and touching ones merged."""
    found: list[Region] = []
    rest = text
    for heuristic, needs in HEURISTICS:
        if not any(character in rest for character in needs):
            continue
        region = heuristic(text)
        if region is not None:
            found = merge([*found, region])
            edges = [0, *(edge for span in found for edge in span), len(text)]
            rest = "\n".join([text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)])
    return found
