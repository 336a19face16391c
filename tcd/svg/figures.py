"""Figures of a report: a plot with its axes, a legend, and in words what it shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tcd.svg.elements import stroke, tag, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The box of a plot in its view box; lengths in pixels, y downwards."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    def across(self, share: float) -> float:
        """Place of a share of the x axis."""
        return self.left + share * (self.width - self.left - self.right)

    def down(self, share: float) -> float:
        """Place of a share of the y axis."""
        return self.top + (1.0 - share) * (self.height - self.top - self.bottom)

    def level(self, kind: str, share: float) -> str:
        """A line across."""
        at = self.down(share)
        return tag("line", class_=kind, x1=self.left, y1=at, x2=self.width - self.right, y2=at)

    def upright(self, kind: str, share: float) -> str:
        """A vertical line."""
        at = self.across(share)
        return tag("line", class_=kind, x1=at, y1=self.top, x2=at, y2=self.height - self.bottom)

    def names(self, x: str, y: str) -> list[str]:
        """The names of the axes."""
        right, bottom = self.width - self.right, self.height - self.bottom
        turned = f"translate(13 {(self.top + bottom) / 2:.0f}) rotate(-90)"
        return [
            text("axis", f"{(self.left + right) / 2:.0f}", self.height - 8, x, "middle"),
            tag("text", escape(y), class_="axis", transform=turned, text_anchor="middle"),
        ]


def figure(number: int, title: str, says: str, parts: Sequence[str], box: tuple[int, int], keys: str = "") -> str:
    """A figure; `number` tells those of a page apart, `box` is its size, `keys` its legend."""
    inside = f'<title id="t{number}">{escape(title)}</title><desc id="d{number}">{escape(says)}</desc>{"".join(parts)}'
    labels = f"t{number} d{number}"
    plot = tag("svg", inside, class_="plot", viewBox=f"0 0 {box[0]} {box[1]}", role="img", aria_labelledby=labels)
    caption = f"<figcaption>{escape(title)}. {escape(says)}</figcaption>"
    return f"<figure>{plot}<div>{keys}{caption}</div></figure>"


def legend(names: Sequence[str], more: Sequence[tuple[str, str]] = ()) -> str:
    """A legend of numbered strokes, and of `more`: names and CSS classes."""
    drawn = [(name, f'class="line" {stroke(i)}') for i, name in enumerate(names)]
    drawn += [(name, f'class="{kind}"') for name, kind in more]
    keys = (
        f'<li><svg aria-hidden="true" viewBox="0 0 34 10"><path {how} d="M1 5H33"/></svg>{escape(name)}</li>'
        for name, how in drawn
    )
    return f'<ul class="legend">{"".join(keys)}</ul>'
