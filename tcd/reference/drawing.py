"""Boxes, arrows and words as SVG: enough for the documentation's pictures, readable on light and on dark pages."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import Final

from tcd import svg

_STYLE: Final = """
  text { font: 13px system-ui, sans-serif; fill: #1f2933; }
  .title { font-weight: 600; } .small { font-size: 11.5px; fill: #52606d; }
  .box { fill: #f5f7fa; stroke: #7b8794; } .ours { fill: #e0f2f1; stroke: #00796b; }
  .zone { fill: none; stroke: #9aa5b1; stroke-dasharray: 5 4; }
  .arrow { fill: none; stroke: #52606d; stroke-width: 1.4; } .head { fill: #52606d; } .page { fill: #ffffff; }
  .over { stroke: #ffffff; stroke-width: 4; paint-order: stroke; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7eb; } .small { fill: #cbd2d9; } .box { fill: #323f4b; stroke: #9aa5b1; }
    .ours { fill: #134e4a; stroke: #4db6ac; } .zone { stroke: #7b8794; }
    .arrow { stroke: #cbd2d9; } .head { fill: #cbd2d9; } .page { fill: #1f2933; } .over { stroke: #1f2933; }
  }
"""
_LINE: Final = 17


@dataclass
class Drawing:
    """A picture under construction; lengths in pixels, y downwards."""

    width: int
    height: int
    alt: str
    _parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: str, *, kind: str = "small", anchor: str = "middle") -> None:
        """A line of text, its baseline at y."""
        self._parts.append(svg.text(kind, f"{x:g}", f"{y:g}", words, anchor))

    def box(self, x: int, y: int, w: int, h: int, title: str, *lines: str, kind: str = "box") -> None:
        """A box with a title and lines, centred."""
        self._parts.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{w}" height="{h}" rx="7"/>')
        top = y + (h - _LINE * (1 + len(lines))) / 2 + 13
        self.text(x + w / 2, top, title, kind="title")
        for i, line in enumerate(lines, 1):
            self.text(x + w / 2, top + i * _LINE, line)

    def zone(self, x: int, y: int, w: int, h: int, title: str) -> None:
        """A dashed border with a name in its upper left corner."""
        self._parts.append(f'<rect class="zone" x="{x}" y="{y}" width="{w}" height="{h}" rx="9"/>')
        self.text(x + 10, y + 17, title, anchor="start")

    def line(self, *points: tuple[float, float]) -> None:
        """A line without a head."""
        self._parts.append(svg.polyline("arrow", points))

    def arrow(
        self,
        *points: tuple[float, float],
        words: str = "",
        at: tuple[float, float] | None = None,
        anchor: str = "middle",
    ) -> None:
        """A line through points with a head at its end, and words above the middle of its first stretch or `at`."""
        self.line(*points)
        (x0, y0), (x1, y1) = points[-2:]
        angle = math.atan2(y1 - y0, x1 - x0)
        corners = [(x1 - 9 * math.cos(angle + turn), y1 - 9 * math.sin(angle + turn)) for turn in (0.42, -0.42)]
        self._parts.append(f'<polygon class="head" points="{svg.points([(x1, y1), *corners])}"/>')
        if words:
            (a, b), (c, d) = points[:2]
            x, y = at or ((a + c) / 2, (b + d) / 2 - 6)
            # a line that they cross stays behind them
            self.text(x, y, words, kind="small over", anchor=anchor)

    def svg(self) -> str:
        """The whole file."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}"'
            f' height="{self.height}" role="img"><title>{escape(self.alt)}</title><style>{_STYLE}</style>\n'
            f'<rect class="page" width="{self.width}" height="{self.height}" rx="10"/>\n'
            + "\n".join(self._parts)
            + "\n</svg>\n"
        )
