"""Small line plots as inline SVG: no script, no font, no network; titles and descriptions for screen readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 640
_LEFT: Final = 52
_RIGHT: Final = 12
_TOP: Final = 34
_BOTTOM: Final = 22


@dataclass(frozen=True, slots=True)
class Line:
    """A series: y per step (None leaves a gap), drawn with the CSS class `style`."""

    label: str
    style: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at a step, with a label."""

    step: int
    label: str
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot.

    Attributes:
        title: what is shown, with its unit.
        lines: the series.
        marks: moments.
        low: bottom of the axis.
        high: top of the axis; raised to the data's maximum.
        log: whether the axis is logarithmic (both bounds positive).
        limit: a horizontal line, such as a threshold.
        limit_label: its name.
        height: pixels.
    """

    title: str
    lines: Sequence[Line]
    marks: Sequence[Mark] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    limit: float | None = None
    limit_label: str = ""
    height: int = 120


def plot(panel: Panel, *, steps: int, last: bool = False) -> str:
    """The panel as an `<svg>` element.

    Args:
        panel: what to draw.
        steps: length of the axis in tokens.
        last: whether the axis is named.
    """
    height = panel.height + (14 if last else 0)
    inner = panel.height - _TOP - _BOTTOM
    data = [v for line in panel.lines for v in line.values if v is not None and math.isfinite(v)]
    high = max([panel.high, *data])
    span = WIDTH - _LEFT - _RIGHT

    def x(step: float) -> float:
        return round(_LEFT + span * step / max(steps - 1, 1), 1)

    def y(value: float) -> float:
        if panel.log:
            value = max(value, panel.low)
            share = math.log(value / panel.low) / math.log(high / panel.low)
        else:
            share = (value - panel.low) / ((high - panel.low) or 1.0)
        return round(_TOP + inner * (1 - min(max(share, 0.0), 1.0)), 1)

    parts = [f'<text class="panel" x="{_LEFT}" y="12">{escape(panel.title)}</text>']
    for tick in _ticks(panel.low, high, log=panel.log):
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:g}</text>')
    parts += [
        f'<text class="tick" x="{x(step)}" y="{panel.height - 6}" text-anchor="middle">{step}</text>'
        for step in range(0, steps, 20 if steps <= 200 else 50)  # noqa: PLR2004 - labels must not touch
    ]
    if last:
        parts.append(f'<text class="tick" x="{WIDTH / 2}" y="{height - 3}" text-anchor="middle">token</text>')
    if panel.limit is not None:
        level = y(panel.limit)
        parts.append(f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{level}" y2="{level}"/>')
        parts.append(f'<text class="tick" x="{_LEFT + 4}" y="{level + 12}">{escape(panel.limit_label)}</text>')
    parts += [_mark(mark, x(mark.step), panel.height, index) for index, mark in enumerate(panel.marks)]
    parts += [_line(line, x, y) for line in panel.lines]
    title = f"<title>{escape(panel.title)}</title><desc>{escape(_description(panel))}</desc>"
    return f'<svg class="plot" role="img" viewBox="0 0 {WIDTH} {height}">{title}{"".join(parts)}</svg>'


def _mark(mark: Mark, x: float, height: int, index: int) -> str:
    # labels of neighbouring marks go to opposite sides
    right = x < WIDTH * 0.75 and index % 2 == 1
    anchor, shift = ("start", 4) if right or x < WIDTH * 0.25 else ("end", -4)
    return (
        f'<line class="mark {mark.style}" x1="{x}" x2="{x}" y1="{_TOP - 4}" y2="{height - _BOTTOM}"/>'
        f'<text class="marktext {mark.style}" x="{x + shift}" y="{_TOP - 6}" text-anchor="{anchor}">'
        f"{escape(mark.label)}</text>"
    )


def _line(line: Line, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    runs: list[list[str]] = [[]]
    for step, value in enumerate(line.values):
        if value is None or not math.isfinite(value):
            runs.append([])
        else:
            runs[-1].append(f"{x(step)},{y(value)}")
    return "".join(f'<polyline class="line {line.style}" points="{" ".join(run)}"/>' for run in runs if run)


def _ticks(low: float, high: float, *, log: bool) -> list[float]:
    if log:
        first, final = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        return [10.0**e for e in range(first, final + 1)]
    step = 10 ** math.floor(math.log10((high - low) or 1.0))
    while (high - low) / step > 3:  # noqa: PLR2004 - four labels fit
        step *= 2
    while (high - low) / step < 2:  # noqa: PLR2004 - two steps at least
        step /= 2
    return [round(low + step * i, 10) for i in range(int((high - low) / step + 1e-9) + 1)]


def _description(panel: Panel) -> str:
    ranges = []
    for line in panel.lines:
        values = [v for v in line.values if v is not None]
        if values:
            ranges.append(f"{line.label}: {len(values)} tokens, from {min(values):.3g} to {max(values):.3g}")
    marks = [f"{mark.label} at token {mark.step}" for mark in panel.marks]
    return "; ".join([*ranges, *marks])
