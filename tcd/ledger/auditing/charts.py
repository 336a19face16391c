"""Charts of an audit as inline SVG: no script, no font, no network; each says in words what it shows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tcd.svg import Frame, figure, legend, polyline, round_up, stroke, tag, text

_FRAME: Final = Frame(width=520, height=250, left=58, right=12, top=12, bottom=44)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its name, and labels at shares of its length."""

    name: str
    ticks: Sequence[tuple[float, str]]


def short(value: float) -> str:
    """A number for a tick."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if letter == 'k' else unit):g}{letter}"
    return f"{value:g}"


def counts(most: float) -> Axis:
    """The axis of a number of things."""
    top = round_up(most)
    # whole numbers only
    parts = next(n for n in (4, 5, 2, 1) if top % n == 0)
    return Axis("", [(i / parts, short(top * i / parts)) for i in range(parts + 1)])


def _axes(x: Axis, y: Axis) -> list[str]:
    out = []
    for share, label in y.ticks:
        out.append(_FRAME.level("grid", share))
        out.append(text("tick", _FRAME.left - 7, _FRAME.down(share) + 4, label, "end"))
    for share, label in x.ticks:
        anchor = "end" if share > 0.99 else "start" if share < 0.01 else "middle"  # noqa: PLR2004 - an end of the axis
        out.append(text("tick", _FRAME.across(share), _FRAME.height - _FRAME.bottom + 16, label, anchor))
    return [*out, *_FRAME.names(x.name, y.name)]


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return tag("rect", class_=kind, x=x, y=y, width=width, height=height)


def _figure(number: int, title: str, says: str, parts: Sequence[str], keys: str = "", height: int = 0) -> str:
    return figure(number, title, says, parts, (_FRAME.width, height or _FRAME.height), keys)


def bars(
    number: int, title: str, says: str, values: Sequence[int], x: Axis, *, level: float | None = None, name: str = ""
) -> str:
    """A histogram; `level` draws a dashed line, of what would be expected."""
    y = counts(max([*values, level or 0.0, 1.0]))
    top = round_up(max([*values, level or 0.0, 1.0]))
    width = (_FRAME.across(1) - _FRAME.left) / max(1, len(values))
    parts = _axes(x, Axis(name, y.ticks))
    for at, value in enumerate(values):
        if value:
            y_top = _FRAME.down(value / top)
            parts.append(_rect("bar", _FRAME.left + at * width, y_top, max(0.8, width - 1), _FRAME.down(0) - y_top))
    if level is not None:
        parts.append(_FRAME.level("limit", level / top))
    return _figure(number, title, says, parts)


def lines(
    number: int, title: str, says: str, series: Sequence[tuple[str, Sequence[int]]], x: Axis, *, name: str
) -> str:
    """Counts over the same axis, with a legend."""
    top = round_up(max([1, *(value for _, values in series for value in values)]))
    parts = _axes(x, Axis(name, counts(top).ticks))
    for at, (_, values) in enumerate(series):
        last = max(1, len(values) - 1)
        places = ((_FRAME.across(i / last), _FRAME.down(value / top)) for i, value in enumerate(values))
        parts.append(polyline("line", places, stroke(at)))
    return _figure(number, title, says, parts, legend([label for label, _ in series]))


def shares(number: int, title: str, says: str, rows: Sequence[tuple[str, int, int]]) -> str:
    """Named shares as bars: part of whole."""
    row, left = 26, 220
    parts = []
    for at, (name, part, whole) in enumerate(rows):
        y, share = at * row + 4, part / whole if whole else 0.0
        room = _FRAME.width - left - 92
        parts.append(text("axis", left - 8, y + 15, name, "end"))
        parts.append(_rect("trough", left, y + 3, room, 15))
        parts.append(_rect("bar", left, y + 3, share * room, 15))
        label = "none" if not whole else f"{share:.1%}" if part in {0, whole} else f"{min(share, 0.9999):.2%}"
        parts.append(text("tick", _FRAME.width - 86, y + 15, f"{label} of {short(whole)}"))
    return _figure(number, title, says, parts, height=len(rows) * row + 10)


def strip(number: int, title: str, says: str, spans: Sequence[tuple[float, float]], fitting: float, size: int) -> str:
    """The log as a strip: what fits the newest checkpoint, and where something is wrong; shares of its length."""
    right = _FRAME.width - _FRAME.right - 10
    parts = [_rect("trough", 10, 10, right - 10, 26), _rect("fits", 10, 10, fitting * (right - 10), 26)]
    for low, high in spans:
        parts.append(_rect("wrong", 10 + low * (right - 10), 4, max(2.5, (high - low) * (right - 10)), 38))
    parts.append(text("tick", 10, 58, "receipt 0"))
    parts.append(text("tick", right, 58, str(size), "end"))
    return _figure(number, title, says, parts, height=64)
