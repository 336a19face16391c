"""Line charts as SVG documents: linear or logarithmic axes, several panels, one legend. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tcd import svg

_PANEL: Final = (400, 270)
_LEFT, _TOP, _RIGHT, _BOTTOM = 46, 30, 14, 40
_HEAD: Final = 34
_ROW: Final = 19
#: Width of a letter of the legend, generously.
_LETTER: Final = 6.6
#: Told apart also without colour: with dashes.
STYLES: Final = (
    ("#1f6f43", ""),
    ("#0b62a4", "7 3"),
    ("#b8530b", "2 3"),
    ("#7a3e9d", "9 3 2 3"),
    ("#a0122d", "5 2"),
    ("#5b5b5b", "1 3"),
    ("#008b8b", "12 4"),
    ("#8a6d00", "4 4"),
    ("#d81b8c", "14 3 3 3"),
    ("#333333", "3 6"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A named series of (x, y) points; `style` numbers a colour and its dashes."""

    label: str
    style: int
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One panel.

    Attributes:
        title: what is shown.
        x, y: names of the axes.
        lines: the series.
        x_range, y_range: ends of the axes; positive where logarithmic.
        log_x, log_y: which axes are.
        diagonal: whether y = x is drawn.
        limit: a vertical line at x, None for none.
    """

    title: str
    x: str
    y: str
    lines: Sequence[Line]
    x_range: tuple[float, float]
    y_range: tuple[float, float] = (0.0, 1.0)
    log_x: bool = False
    log_y: bool = False
    diagonal: bool = False
    limit: float | None = None


def _ticks(ends: tuple[float, float], *, log: bool) -> list[float]:
    low, high = ends
    return svg.decades(low, high) if log else [low + (high - low) / 4 * i for i in range(5)]


def _panel(chart: Chart, left: float, top: float) -> list[str]:
    width, height = _PANEL[0] - _LEFT - _RIGHT, _PANEL[1] - _TOP - _BOTTOM

    def x(value: float) -> float:
        return round(left + _LEFT + width * svg.share(value, *chart.x_range, log=chart.log_x), 1)

    def y(value: float) -> float:
        return round(top + _TOP + height * (1 - svg.share(value, *chart.y_range, log=chart.log_y)), 1)

    (x0, x1), (y0, y1) = chart.x_range, chart.y_range
    parts = [f'<text x="{left + _LEFT}" y="{top + 18}" font-weight="600">{escape(chart.title)}</text>']
    for tick in _ticks(chart.x_range, log=chart.log_x):
        parts.append(f'<line x1="{x(tick)}" x2="{x(tick)}" y1="{y(y0)}" y2="{y(y1)}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x(tick)}" y="{y(y0) + 15}" text-anchor="middle" fill="#555">{tick:g}</text>')
    for tick in _ticks(chart.y_range, log=chart.log_y):
        parts.append(f'<line x1="{x(x0)}" x2="{x(x1)}" y1="{y(tick)}" y2="{y(tick)}" stroke="#e4e4e4"/>')
        parts.append(f'<text x="{x(x0) - 5}" y="{y(tick) + 4}" text-anchor="end" fill="#555">{tick:g}</text>')
    middle = left + _LEFT + width / 2
    parts.append(f'<text x="{middle}" y="{y(y0) + 31}" text-anchor="middle" fill="#333">{escape(chart.x)}</text>')
    centre = top + _TOP + height / 2
    turned = f'transform="rotate(-90 {left + 11} {centre})"'
    parts.append(
        f'<text x="{left + 11}" y="{centre}" {turned} text-anchor="middle" fill="#333">{escape(chart.y)}</text>'
    )
    if chart.diagonal:
        low, high = max(x0, y0), min(x1, y1)
        parts.append(f'<line x1="{x(low)}" y1="{y(low)}" x2="{x(high)}" y2="{y(high)}" stroke="#999"/>')
    if chart.limit is not None:
        at = x(chart.limit)
        parts.append(f'<line x1="{at}" x2="{at}" y1="{y(y0)}" y2="{y(y1)}" stroke="#999" stroke-dasharray="3 3"/>')
    for line in chart.lines:
        colour, dashes = STYLES[line.style % len(STYLES)]
        points = svg.points((x(a), y(b)) for a, b in line.points)
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"{dash}/>')
    return parts


def document(title: str, charts: Sequence[Chart], *, columns: int = 2) -> str:
    """Charts side by side under a title, with one legend below them."""
    columns = min(columns, len(charts))
    legend = {line.label: line.style for chart in charts for line in chart.lines}
    width = _PANEL[0] * columns
    entry = max([len(label) for label in legend], default=0) * _LETTER + 50.0
    per_row = max(1, int((width - 12) / entry))
    panels = _PANEL[1] * math.ceil(len(charts) / columns)
    height = _HEAD + panels + _ROW * math.ceil(len(legend) / per_row) + 12
    box = f'viewBox="0 0 {width} {height}" role="img" font-family="system-ui, sans-serif" font-size="11"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="12" y="21" font-size="14" font-weight="600">{escape(title)}</text>',
    ]
    for i, chart in enumerate(charts):
        parts += _panel(chart, _PANEL[0] * (i % columns), _HEAD + _PANEL[1] * (i // columns))
    for i, (label, style) in enumerate(legend.items()):
        left = round(12 + entry * (i % per_row), 1)
        at = _HEAD + panels + _ROW * (i // per_row) + 10
        colour, dashes = STYLES[style % len(STYLES)]
        dash = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts.append(
            f'<line x1="{left}" x2="{left + 28}" y1="{at}" y2="{at}" stroke="{colour}" stroke-width="1.8"{dash}/>'
        )
        parts.append(f'<text x="{left + 33}" y="{at + 4}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
