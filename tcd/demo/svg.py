"""Small line plots as inline SVG: no script, no font, no network; titles and descriptions for screen readers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tcd import svg

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
        return round(_TOP + inner * (1 - svg.share(value, panel.low, high, log=panel.log)), 1)

    whole = (_LEFT, WIDTH - _RIGHT)
    parts = [svg.text("panel", _LEFT, 12, panel.title)]
    for tick in svg.decades(panel.low, high) if panel.log else svg.ticks(panel.low, high, about=3):
        parts.append(svg.line("grid", x=whole, y=(y(tick), y(tick))))
        parts.append(svg.text("tick", _LEFT - 6, y(tick) + 4, f"{tick:g}", "end"))
    parts += [
        svg.text("tick", x(step), panel.height - 6, str(step), "middle")
        for step in range(0, steps, 20 if steps <= 200 else 50)  # noqa: PLR2004 - labels must not touch
    ]
    if last:
        parts.append(svg.text("tick", WIDTH / 2, height - 3, "token", "middle"))
    if panel.limit is not None:
        level = y(panel.limit)
        parts.append(svg.line("limit", x=whole, y=(level, level)))
        parts.append(svg.text("tick", _LEFT + 4, level + 12, panel.limit_label))
    parts += [_mark(mark, x(mark.step), panel.height, index) for index, mark in enumerate(panel.marks)]
    parts += [_line(line, x, y) for line in panel.lines]
    title = f"<title>{escape(panel.title)}</title><desc>{escape(_description(panel))}</desc>"
    return f'<svg class="plot" role="img" viewBox="0 0 {WIDTH} {height}">{title}{"".join(parts)}</svg>'


def _mark(mark: Mark, x: float, height: int, index: int) -> str:
    # labels of neighbouring marks go to opposite sides
    right = x < WIDTH * 0.75 and index % 2 == 1
    anchor, shift = ("start", 4) if right or x < WIDTH * 0.25 else ("end", -4)
    return svg.line(f"mark {mark.style}", x=(x, x), y=(_TOP - 4, height - _BOTTOM)) + svg.text(
        f"marktext {mark.style}", x + shift, _TOP - 6, mark.label, anchor
    )


def _line(line: Line, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    runs: list[list[tuple[float, float]]] = [[]]
    for step, value in enumerate(line.values):
        if value is None or not math.isfinite(value):
            runs.append([])
        else:
            runs[-1].append((x(step), y(value)))
    return "".join(svg.polyline(f"line {line.style}", run) for run in runs if run)


def _description(panel: Panel) -> str:
    ranges = []
    for line in panel.lines:
        values = [v for v in line.values if v is not None]
        if values:
            ranges.append(f"{line.label}: {len(values)} tokens, from {min(values):.3g} to {max(values):.3g}")
    marks = [f"{mark.label} at token {mark.step}" for mark in panel.marks]
    return "; ".join([*ranges, *marks])
