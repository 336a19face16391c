"""Charts of an audit as inline SVG: no script, no font, no network; each says in words what it shows. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH, _HEIGHT = 520, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 12, 44
#: Told apart without colour too: a dash pattern each.
STROKES: Final = (("#0b57b0", ""), ("#b3401f", "7 3"), ("#0a6b3d", "2 3"), ("#7a3fa0", "10 3 2 3"))


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its name, and labels at shares of its length."""

    name: str
    ticks: Sequence[tuple[float, str]]


def nice(most: float) -> float:
    """The next number that is 1, 2 or 5 times a power of ten."""
    if most <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(most))
    return next(unit * k for k in (1.0, 2.0, 5.0, 10.0) if unit * k >= most * (1 - 1e-12))


def short(value: float) -> str:
    """A number for a tick."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if letter == 'k' else unit):g}{letter}"
    return f"{value:g}"


def counts(most: float) -> Axis:
    """The axis of a number of things."""
    top = nice(most)
    # whole numbers only
    parts = next(n for n in (4, 5, 2, 1) if top % n == 0)
    return Axis("", [(i / parts, short(top * i / parts)) for i in range(parts + 1)])


def _across(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _down(share: float) -> float:
    return _TOP + (1.0 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _frame(x: Axis, y: Axis) -> list[str]:
    out, right, bottom = [], _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    for share, label in y.ticks:
        at = _down(share)
        out.append(f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>')
        out.append(f'<text class="tick" x="{_LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    for share, label in x.ticks:
        at = _across(share)
        anchor = "end" if share > 0.99 else "start" if share < 0.01 else "middle"  # noqa: PLR2004 - an end of the axis
        out.append(f'<text class="tick" x="{at:.1f}" y="{bottom + 16}" text-anchor="{anchor}">{escape(label)}</text>')
    middle = (_LEFT + right) / 2
    out.append(f'<text class="axis" x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x.name)}</text>')
    turned = f'transform="translate(13 {(_TOP + bottom) / 2:.0f}) rotate(-90)"'
    out.append(f'<text class="axis" {turned} text-anchor="middle">{escape(y.name)}</text>')
    return out


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _figure(number: int, title: str, says: str, parts: Sequence[str], legend: str = "", height: int = _HEIGHT) -> str:
    return (
        f'<figure><svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="t{number} d{number}">'
        f'<title id="t{number}">{escape(title)}</title><desc id="d{number}">{escape(says)}</desc>{"".join(parts)}</svg>'
        f"<div>{legend}<figcaption>{escape(title)}. {escape(says)}</figcaption></div></figure>"
    )


def bars(
    number: int, title: str, says: str, values: Sequence[int], x: Axis, *, level: float | None = None, name: str = ""
) -> str:
    """A histogram; `level` draws a dashed line, of what would be expected."""
    y = counts(max([*values, level or 0.0, 1.0]))
    top = nice(max([*values, level or 0.0, 1.0]))
    width = (_WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    parts = _frame(x, Axis(name, y.ticks))
    for at, value in enumerate(values):
        if value:
            y_top = _down(value / top)
            parts.append(_rect("bar", _LEFT + at * width, y_top, max(0.8, width - 1), _down(0) - y_top))
    if level is not None:
        at_y = _down(level / top)
        parts.append(f'<line class="limit" x1="{_LEFT}" y1="{at_y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{at_y:.1f}"/>')
    return _figure(number, title, says, parts)


def lines(
    number: int, title: str, says: str, series: Sequence[tuple[str, Sequence[int]]], x: Axis, *, name: str
) -> str:
    """Counts over the same axis, with a legend."""
    top = nice(max([1, *(value for _, values in series for value in values)]))
    parts = _frame(x, Axis(name, counts(top).ticks))
    legend = []
    for at, (label, values) in enumerate(series):
        colour, dash = STROKES[at % len(STROKES)]
        stroke = f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        last = max(1, len(values) - 1)
        points = " ".join(f"{_across(i / last):.1f},{_down(value / top):.1f}" for i, value in enumerate(values))
        parts.append(f'<polyline class="line" {stroke} points="{points}"/>')
        key = f'<svg aria-hidden="true" viewBox="0 0 34 10"><path class="line" {stroke} d="M1 5H33"/></svg>'
        legend.append(f"<li>{key}{escape(label)}</li>")
    return _figure(number, title, says, parts, f'<ul class="legend">{"".join(legend)}</ul>')


def shares(number: int, title: str, says: str, rows: Sequence[tuple[str, int, int]]) -> str:
    """Named shares as bars: part of whole."""
    row, left = 26, 220
    parts = []
    for at, (name, part, whole) in enumerate(rows):
        y, share = at * row + 4, part / whole if whole else 0.0
        room = _WIDTH - left - 92
        parts.append(f'<text class="axis" x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect class="trough" x="{left}" y="{y + 3}" width="{room}" height="15"/>')
        parts.append(f'<rect class="bar" x="{left}" y="{y + 3}" width="{share * room:.1f}" height="15"/>')
        label = "none" if not whole else f"{share:.1%}" if part in {0, whole} else f"{min(share, 0.9999):.2%}"
        parts.append(f'<text class="tick" x="{_WIDTH - 86}" y="{y + 15}">{label} of {short(whole)}</text>')
    return _figure(number, title, says, parts, height=len(rows) * row + 10)


def strip(number: int, title: str, says: str, spans: Sequence[tuple[float, float]], fitting: float, size: int) -> str:
    """The log as a strip: what fits the newest checkpoint, and where something is wrong; shares of its length."""
    right = _WIDTH - _RIGHT - 10
    parts = [
        f'<rect class="trough" x="10" y="10" width="{right - 10}" height="26"/>',
        f'<rect class="fits" x="10" y="10" width="{fitting * (right - 10):.1f}" height="26"/>',
    ]
    for low, high in spans:
        x = 10 + low * (right - 10)
        parts.append(
            f'<rect class="wrong" x="{x:.1f}" y="4" width="{max(2.5, (high - low) * (right - 10)):.1f}" height="38"/>'
        )
    parts.append('<text class="tick" x="10" y="58">receipt 0</text>')
    parts.append(f'<text class="tick" x="{right}" y="58" text-anchor="end">{size}</text>')
    return _figure(number, title, says, parts, height=64)
