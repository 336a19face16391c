"""Plots as inline SVG: no script, no font, no style of their own (the page's style sheet has the classes).

Each has a title and a description in words; what a plot shows stands in a table of the page too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tcd import svg

_LEFT: Final = 58
_RIGHT: Final = 14
_TOP: Final = 12
_BOTTOM: Final = 42
#: Width of a character of a label, at most.
_CHARACTER: Final = 6.4
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """Points in the CSS class `style`: joined by a line, by steps where `steps`; with dots where `dots`."""

    points: Sequence[Point]
    style: str
    steps: bool = False
    dots: bool = False
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from (left, low) to (right, high); `tip` is said when it is pointed at."""

    left: float
    right: float
    low: float
    high: float
    style: str
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """A line across at `at` with its name; `upright` = a vertical one."""

    at: float
    label: str
    style: str = "level"
    upright: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """What is drawn.

    Attributes:
        title, about: in words, for whoever does not see it.
        x, y: names of the axes, with units.
        x_range, y_range: of the axes; y is in decades where `log`.
        x_ticks: value and label; None = numbers.
        log: y is the decimal logarithm, labelled as powers.
        whole, counts: x, y are whole numbers.
        lines, bars, levels: the marks.
        band: (x, low, high) of an area.
        width, height: of the view box.
    """

    title: str
    about: str
    x: str
    y: str
    x_range: Point
    y_range: Point
    x_ticks: Sequence[tuple[float, str]] | None = None
    log: bool = False
    whole: bool = False
    counts: bool = False
    lines: Sequence[Line] = ()
    bars: Sequence[Bar] = ()
    levels: Sequence[Level] = ()
    band: Sequence[tuple[float, float, float]] = ()
    width: int = 720
    height: int = 230


@dataclass(frozen=True, slots=True)
class _Frame:
    """From values to places."""

    x: Callable[[float], float]
    y: Callable[[float], float]
    right: float
    bottom: float


def draw(plot: Plot, name: str) -> str:
    """The plot as `<svg>`; `name` is one of the page's, for the labels of the element."""
    frame = _frame(plot)
    inside = [*_axes(plot, frame)]
    if plot.band:
        upper = [(frame.x(x), frame.y(high)) for x, _, high in plot.band]
        lower = [(frame.x(x), frame.y(low)) for x, low, _ in reversed(plot.band)]
        inside.append(svg.tag("polygon", class_="band", points=svg.points((*upper, *lower))))
    inside += [_bar(bar, frame) for bar in plot.bars]
    inside += [_level(level, frame, plot) for level in plot.levels]
    for line in plot.lines:
        inside += _line(line, frame)
    return (
        f'<svg class="plot" role="img" viewBox="0 0 {plot.width} {plot.height}" '
        f'aria-labelledby="{name}-title {name}-about"><title id="{name}-title">{escape(plot.title)}</title>'
        f'<desc id="{name}-about">{escape(plot.about)}</desc>{"".join(inside)}</svg>'
    )


def _frame(plot: Plot) -> _Frame:
    right, bottom = plot.width - _RIGHT, plot.height - _BOTTOM
    (x0, x1), (y0, y1) = plot.x_range, plot.y_range

    def x(value: float) -> float:
        return _LEFT + (right - _LEFT) * svg.share(value, x0, x1)

    def y(value: float) -> float:
        return bottom - (bottom - _TOP) * svg.share(value, y0, y1)

    return _Frame(x, y, right, bottom)


def _axes(plot: Plot, frame: _Frame) -> list[str]:
    out = []
    across = (_LEFT, frame.right)
    for value in svg.ticks(*plot.y_range, whole=plot.log or plot.counts):
        at = frame.y(value)
        label = _power(value) if plot.log else f"{value:g}"
        out.append(svg.line("grid", x=across, y=(at, at)))
        out.append(svg.tag("text", label, class_="tick", x=_LEFT - 7, y=at + 4, text_anchor="end"))
    ticks = plot.x_ticks
    if ticks is None:
        ticks = [(value, f"{value:g}") for value in svg.ticks(*plot.x_range, whole=plot.whole)]
    last = -math.inf
    for value, label in ticks:
        at, half = frame.x(value), len(label) * _CHARACTER / 2
        # one that would touch its neighbour is left out
        if at - half < last:
            continue
        last = at + half + 8
        anchor = "end" if at + half > plot.width else "middle"
        out.append(svg.line("axis", x=(at, at), y=(frame.bottom, frame.bottom + 4)))
        out.append(svg.text("tick", at, frame.bottom + 17, label, anchor))
    out.append(svg.line("axis", x=across, y=(frame.bottom, frame.bottom)))
    middle = (_TOP + frame.bottom) / 2
    out.append(svg.text("name", (_LEFT + frame.right) / 2, plot.height - 6, plot.x, "middle"))
    out.append(svg.text("name", 13, middle, plot.y, "middle", transform=f"rotate(-90 13 {middle})"))
    return out


def _power(exponent: float) -> str:
    small = {0: "1", 1: "10", 2: "100", -1: "0.1", -2: "0.01"}
    return small.get(int(exponent)) or f'10<tspan class="up" dy="-4">{int(exponent)}</tspan>'


def _bar(bar: Bar, frame: _Frame) -> str:
    left, right, top, bottom = frame.x(bar.left), frame.x(bar.right), frame.y(bar.high), frame.y(bar.low)
    gap = min(1.0, (right - left) / 4)
    tip = f"<title>{escape(bar.tip)}</title>" if bar.tip else ""
    return (
        f'<rect class="{bar.style}" x="{left + gap / 2:.1f}" y="{top:.1f}" width="{max(right - left - gap, 0.5):.1f}" '
        f'height="{max(bottom - top, 0.5):.1f}">{tip}</rect>'
    )


def _level(level: Level, frame: _Frame, plot: Plot) -> str:
    if level.upright:
        at = frame.x(level.at)
        before = at + len(level.label) * _CHARACTER > frame.right
        anchor, shift = ("end", -5) if before else ("start", 5)
        return svg.line(level.style, x=(at, at), y=(_TOP, frame.bottom)) + svg.text(
            "label", at + shift, _TOP + 11, level.label, anchor
        )
    at = frame.y(level.at)
    below = at - _TOP < 14  # noqa: PLR2004 - a label's height
    return svg.line(level.style, x=(_LEFT, plot.width - _RIGHT), y=(at, at)) + svg.text(
        "label", _LEFT + 6, at + (14 if below else -5), level.label
    )


def _line(line: Line, frame: _Frame) -> list[str]:
    places: list[Point] = []
    for x, y in line.points:
        if line.steps and places:
            places.append((frame.x(x), places[-1][1]))
        places.append((frame.x(x), frame.y(y)))
    drawn = line.joined and len(line.points) > 1
    out = [svg.polyline(f"line {line.style}", places)] if drawn else []
    if line.dots or len(line.points) == 1:
        out += [
            svg.tag("circle", class_=f"dot {line.style}", cx=frame.x(x), cy=frame.y(y), r=3) for x, y in line.points
        ]
    return out
