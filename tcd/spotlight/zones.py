"""Cutting a text into contiguous segments of instruction and data.

Role first: the text of a tool is Data whatever it says. Then the operator's spans, which switch heuristics off for
their text; then, for users only, the heuristics.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Final, Literal, NamedTuple

from tcd.spotlight import reminder
from tcd.spotlight.heuristics import regions
from tcd.spotlight.marking import Envelope, is_marked
from tcd.spotlight.policy import Policy
from tcd.spotlight.spans import Span, inline, merge

Kind = Literal["instruction", "data"]
Origin = Literal["role", "heuristic", "operator_inline", "operator_header"]

#: Roles that no heuristic looks at.
_TRUSTED: Final = frozenset({"system", "developer", "assistant"})
_NO_SPANS: Final[tuple[Span, ...]] = ()


class Text(NamedTuple):
    """One text of a request.

    Attributes:
        message: index in the body's list; -1 for a system text beside it.
        part: number of the text in its message.
        path: keys and indices from the body's root.
        role: of the message, "" when it names none.
        data: the kind of block says that this is untrusted, whatever the role.
        text: as decoded.
    """

    message: int
    part: int
    path: tuple[str | int, ...]
    role: str
    data: bool
    text: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of one kind.

    Attributes:
        message: of the text it belongs to.
        part: the same.
        kind: instruction or data.
        origin: what said so; instructions have `role`.
        text: without acting tags.
        start, end: in characters of the original text, acting tags included.
        marked: it is already marked and framed; `text` has the frame.
    """

    message: int
    part: int
    kind: Kind
    origin: Origin
    text: str
    start: int
    end: int
    marked: bool = False


class Cut(NamedTuple):
    """The segments of one text, and whether tags were taken out of it."""

    segments: list[Segment]
    stripped: bool


def cut(
    text: Text,
    policy: Policy,
    *,
    key: bytes,
    header: Mapping[tuple[int, int], list[Span]],
    envelope: Envelope | None = None,
) -> Cut:
    """Cut a text.

    Args:
        text: what is cut.
        policy: which origins count.
        key: the server's, for inline tags.
        header: spans of the boundary header by (message, part).
        envelope: of the request when it was marked before.
    """
    whole = text.text
    if not whole:
        return Cut([], stripped=False)
    if text.data:
        return _by_role(text, envelope)
    tags: list[Span] = []
    spans: dict[Origin, list[Span]] = {}
    if policy.zones in {"operator", "both"}:
        found = inline(whole, key, plain=policy.plain_tags)
        tags = found.tags
        spans["operator_inline"] = found.data
        spans["operator_header"] = merge(header.get((text.message, text.part), _NO_SPANS))
    frames, strays = _frames(whole, envelope)
    tags = merge([*tags, *strays])
    operator = any(spans.values()) or bool(frames)
    if not operator and policy.zones in {"heuristic", "both"} and text.role not in _TRUSTED:
        spans["heuristic"] = _regions(whole, tags)
    if not any(spans.values()) and not tags and not frames:
        return Cut([Segment(text.message, text.part, "instruction", "role", whole, 0, len(whole))], stripped=False)
    return Cut(_sweep(text, spans, tags, frames), stripped=bool(tags))


def _by_role(text: Text, envelope: Envelope | None) -> Cut:
    whole, stripped, marked = text.text, False, False
    if envelope is not None:
        inner = whole[len(envelope.opening) : len(whole) - len(envelope.closing)]
        marked = whole == f"{envelope.opening}{inner}{envelope.closing}" and is_marked(inner, envelope)
        if not marked:
            # a frame that is not all of the text, or holds unmarked text, was not made here
            whole = whole.replace(envelope.opening, "").replace(envelope.closing, "")
            stripped = whole != text.text
    if not whole:
        return Cut([], stripped=stripped)
    segment = Segment(text.message, text.part, "data", "role", whole, 0, len(text.text), marked=marked)
    return Cut([segment], stripped=stripped)


def _regions(text: str, tags: list[Span]) -> list[Span]:
    """What the heuristics find in the text as it will be without its tags, in characters of the text with them."""
    if not tags:
        return regions(text)
    edges = [0, *(edge for tag in tags for edge in tag), len(text)]
    kept = list(zip(edges[::2], edges[1::2], strict=True))
    starts = [0, *accumulate(end - start for start, end in kept)]
    found = regions("".join([text[start:end] for start, end in kept]))

    def moved(position: int, *, end: bool) -> int:
        run = (bisect_left(starts, position) if end else bisect_right(starts, position)) - 1
        run = min(max(run, 0), len(kept) - 1)
        return kept[run][0] + position - starts[run]

    return [(moved(start, end=False), moved(stop, end=True)) for start, stop in found]


def _frames(text: str, envelope: Envelope | None) -> tuple[list[Span], list[Span]]:
    """Whole frames of the request's envelope, and its tags that frame nothing that is marked."""
    frames: list[Span] = []
    strays: list[Span] = []
    if envelope is None or envelope.nonce not in text:
        return frames, strays
    # the reminder's own tags frame nothing
    sentence = reminder.sentence(envelope)
    said = text.find(sentence)
    windows = [(0, len(text))] if said < 0 else [(0, said), (said + len(sentence), len(text))]
    for begin, stop in windows:
        _framed(text, envelope, begin, stop, frames, strays)
    return frames, strays


def _framed(text: str, envelope: Envelope, begin: int, stop: int, frames: list[Span], strays: list[Span]) -> None:
    opening, closing = envelope.opening, envelope.closing
    start, end = text.find(opening, begin, stop), text.find(closing, begin, stop)
    while start >= 0 or end >= 0:
        if start < 0 or 0 <= end < start:
            strays.append((end, end + len(closing)))
            end = text.find(closing, end + len(closing), stop)
            continue
        inner = start + len(opening)
        following = text.find(opening, inner, stop)
        whole = end >= 0 and not 0 <= following < end and is_marked(text[inner:end], envelope)
        if whole:
            frames.append((start, end + len(closing)))
            end = text.find(closing, end + len(closing), stop)
        else:
            strays.append((start, inner))
        start = following


def _sweep(text: Text, spans: dict[Origin, list[Span]], tags: list[Span], frames: list[Span]) -> list[Segment]:
    """Segments of a text in order: an elementary run has the first origin that claims it; tags are left out."""
    whole = text.text
    everything = [*(s for found in spans.values() for s in found), *tags, *frames]
    edges = sorted({0, len(whole), *(edge for span in everything for edge in span)})
    cursors = {name: _Cursor(found) for name, found in spans.items()}
    tagged, framed = _Cursor(tags), _Cursor(frames)
    runs: list[_Run] = []
    for start, end in pairwise(edges):
        if tagged.covers(start):
            continue
        marked = framed.covers(start)
        origin = next((name for name, cursor in cursors.items() if cursor.covers(start)), None)
        if marked and origin is None:
            origin = "heuristic"
        if runs and (runs[-1].origin is None) is (origin is None) and runs[-1].marked is marked:
            runs[-1].spans.append((start, end))
        else:
            runs.append(_Run(origin, marked, [(start, end)]))
    return [
        Segment(
            message=text.message,
            part=text.part,
            kind="instruction" if run.origin is None else "data",
            origin=run.origin or "role",
            text="".join([whole[start:end] for start, end in run.spans]),
            start=run.spans[0][0],
            end=run.spans[-1][1],
            marked=run.marked,
        )
        for run in runs
    ]


class _Run(NamedTuple):
    """Neighbouring elementary runs of one kind; no origin means instruction."""

    origin: Origin | None
    marked: bool
    spans: list[Span]


class _Cursor:
    """Whether sorted disjoint spans cover positions that are asked in order."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans
        self._at = 0

    def covers(self, position: int) -> bool:
        while self._at < len(self._spans) and self._spans[self._at][1] <= position:
            self._at += 1
        return self._at < len(self._spans) and self._spans[self._at][0] <= position
