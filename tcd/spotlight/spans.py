"""Operator spans: the header `X-TCD-Data-Boundary` and inline tags.

The header is `message[.text]:start-end,...`: byte offsets into the original content of a text of a message, `.text`
counting a message's texts from 0. Tokens that cannot be read are dropped one by one; no range is clamped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from tcd.spotlight import nonces
from tcd.spotlight.policy import Reason

Span = tuple[int, int]
Place = tuple[int, int]

_TOKEN: Final = re.compile(r"([0-9]{1,6})(?:\.([0-9]{1,6}))?:([0-9]{1,9})-([0-9]{1,9})", re.ASCII)
#: Tokens of a header that are looked at.
MAX_TOKENS: Final = 256
_TAG: Final = re.compile(r"<(/?)tcd-data:([0-9a-f]{32})>", re.ASCII)
_PLAIN_OPEN: Final = "<llmtrace-data>"
_PLAIN_CLOSE: Final = "</llmtrace-data>"


class Tags(NamedTuple):
    """Acting inline tags of one text: the spans between them, and the tags themselves, in characters."""

    data: list[Span]
    tags: list[Span]


def parse_header(value: str) -> tuple[list[tuple[int, int, int, int]], list[Reason]]:
    """Tokens of a header as (message, text, start, end), and a reason for each that was dropped."""
    tokens: list[tuple[int, int, int, int]] = []
    failures: list[Reason] = []
    pieces = value.split(",", MAX_TOKENS)
    if len(pieces) > MAX_TOKENS:
        pieces = pieces[:MAX_TOKENS]
        failures.append("header_parse_failed")
    for piece in pieces:
        found = _TOKEN.fullmatch(piece.strip(" \t"))
        if found is None or int(found[3]) >= int(found[4]):
            failures.append("header_parse_failed")
            continue
        tokens.append((int(found[1]), int(found[2] or 0), int(found[3]), int(found[4])))
    return tokens, failures


def place_header(value: str, texts: Mapping[Place, str]) -> tuple[dict[Place, list[Span]], list[Reason]]:
    """The header's spans in characters by (message, text), and a reason for each token that does not fit.

    An offset inside a character moves outwards to its boundary.
    """
    tokens, failures = parse_header(value)
    spans: dict[Place, list[Span]] = {}
    encoded: dict[Place, bytes] = {}
    for message, text, start, end in tokens:
        place = (message, text)
        if place not in texts:
            failures.append("header_message_index_out_of_bounds")
            continue
        if place not in encoded:
            encoded[place] = texts[place].encode()
        raw = encoded[place]
        if end > len(raw):
            failures.append("header_range_out_of_bounds")
            continue
        span = (_characters(raw, _outwards(raw, start, -1)), _characters(raw, _outwards(raw, end, 1)))
        spans.setdefault(place, []).append(span)
    return spans, failures


def _outwards(raw: bytes, offset: int, step: int) -> int:
    while 0 < offset < len(raw) and raw[offset] & 0xC0 == 0x80:  # noqa: PLR2004 - a UTF-8 continuation byte
        offset += step
    return offset


def _characters(raw: bytes, offset: int) -> int:
    before = raw[:offset]
    return offset if before.isascii() else len(before.decode())


def inline(text: str, key: bytes, *, plain: bool) -> Tags:
    """The operator's inline tags of a text.

    Tags with an authentic nonce nest; a stray close acts on nothing, an open tag without its close reaches to the end.
    With `plain`, `<llmtrace-data>` acts too: as anyone can write it, its zone ends at the last close of the text only.
    """
    data: list[Span] = []
    tags: list[Span] = []
    if "tcd-data:" in text:
        _authentic(text, key, data, tags)
    if plain and _PLAIN_OPEN in text:
        _plain(text, data, tags)
    return Tags(merge(data), sorted(tags))


def _authentic(text: str, key: bytes, data: list[Span], tags: list[Span]) -> None:
    known: dict[str, bool] = {}
    depth: dict[str, int] = {}
    opened: dict[str, int] = {}
    for tag in _TAG.finditer(text):
        nonce = tag[2]
        if nonce not in known:
            known[nonce] = nonces.authentic(key, nonce, purpose=nonces.OPERATOR)
        if not known[nonce]:
            continue
        tags.append(tag.span())
        if not tag[1]:
            depth[nonce] = depth.get(nonce, 0) + 1
            if depth[nonce] == 1:
                opened[nonce] = tag.end()
        elif depth.get(nonce, 0):
            depth[nonce] -= 1
            if depth[nonce] == 0:
                data.append((opened.pop(nonce), tag.start()))
    data.extend((start, len(text)) for start in opened.values())


def _plain(text: str, data: list[Span], tags: list[Span]) -> None:
    start = text.find(_PLAIN_OPEN)
    end = text.rfind(_PLAIN_CLOSE)
    data.append((start + len(_PLAIN_OPEN), len(text) if end < start else end))
    for tag in (_PLAIN_OPEN, _PLAIN_CLOSE):
        at = text.find(tag)
        while at >= 0:
            tags.append((at, at + len(tag)))
            at = text.find(tag, at + len(tag))


def merge(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, empty ones gone, overlapping and touching ones merged."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
