"""Elements of a drawing."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

#: Lines that are told apart without colour too: a dash pattern each.
_STROKES: Final = (
    ("#0b57b0", ""),
    ("#b3401f", "7 3"),
    ("#0a6b3d", "2 3"),
    ("#7a3fa0", "10 3 2 3"),
    ("#8a5300", "4 2 1 2"),
    ("#1a1f26", "1 2"),
)
Value = str | int | float


def _shown(value: Value) -> str:
    return f"{value:.1f}" if isinstance(value, float) else escape(str(value))


def tag(name: str, content: str = "", /, **attributes: Value) -> str:
    """An element; fractions of a pixel have one digit.

    Args:
        name: of the element.
        content: what is in it, escaped by whoever made it.
        attributes: `class_` is class and `text_anchor` text-anchor; an empty one is left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_shown(value)}"' for key, value in attributes.items() if value != ""
    )
    return f"<{name}{given}>{content}</{name}>" if content else f"<{name}{given}/>"


def text(kind: str, x: Value, y: Value, words: str, anchor: str = "", **more: Value) -> str:
    """A line of text in the CSS class `kind`, its baseline at y."""
    return tag("text", escape(words), class_=kind, x=x, y=y, text_anchor=anchor, **more)


def line(kind: str, *, x: tuple[Value, Value], y: tuple[Value, Value], **more: Value) -> str:
    """A straight line in the CSS class `kind`."""
    return tag("line", class_=kind, x1=x[0], x2=x[1], y1=y[0], y2=y[1], **more)


def points(places: Iterable[tuple[float, float]]) -> str:
    """Places as polylines and polygons have them."""
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def polyline(kind: str, places: Iterable[tuple[float, float]], more: str = "") -> str:
    """Places joined by lines, in the CSS class `kind`; `more` attributes as text, such as a `stroke`."""
    given = f" {more}" if more else ""
    return f'<polyline class="{kind}"{given} points="{points(places)}"/>'


def stroke(number: int) -> str:
    """Colour and dashes of a numbered line, as attributes."""
    colour, dash = _STROKES[number % len(_STROKES)]
    return f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
