"""Curves as inline SVG: no script, no font, no network; a title and a description for screen readers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

_WIDTH, _HEIGHT = 460, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 46
#: Told apart without colour too: a dash pattern each.
_STROKES: Final = (
    ("#0b57b0", ""),
    ("#b3401f", "7 3"),
    ("#0a6b3d", "2 3"),
    ("#7a3fa0", "10 3 2 3"),
    ("#8a5300", "4 2 1 2"),
    ("#1a1f26", "1 2"),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line; x ascending, both of the same length. A stepped one is constant between its points."""

    name: str
    x: F64
    y: F64
    stepped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot.

    Attributes:
        title: what is shown.
        says: the same in a sentence or two with numbers, for who does not see it.
        x_label, y_label: of the axes.
        x_ticks: where the axis is labelled; the first and last are its ends.
        curves: the lines; y in [0, 1].
        diagonal: whether a line of equality is drawn.
    """

    title: str
    says: str
    x_label: str
    y_label: str
    x_ticks: tuple[float, ...]
    curves: tuple[Curve, ...]
    diagonal: bool = False


def _points(curve: Curve, scale: tuple[float, float]) -> str:
    low, high = scale
    x, y = curve.x, curve.y
    if curve.stepped and x.shape[0]:
        x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
    across = _LEFT + (np.clip(x, low, high) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)
    down = _TOP + (1.0 - np.clip(y, 0, 1)) * (_HEIGHT - _TOP - _BOTTOM)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across.tolist(), down.tolist(), strict=True))


def _axes(plot: Plot) -> list[str]:
    low, high = plot.x_ticks[0], plot.x_ticks[-1]
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    out = []
    for tick in plot.x_ticks:
        x = _LEFT + (tick - low) / (high - low) * (right - _LEFT)
        out.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _TOP + (1 - tick) * (bottom - _TOP)
        out.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle = (_LEFT + right) / 2
    out.append(
        f'<text class="axis" x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(plot.x_label)}</text>'
    )
    turned = f'transform="translate(14 {(_TOP + bottom) / 2:.0f}) rotate(-90)"'
    out.append(f'<text class="axis" {turned} text-anchor="middle">{escape(plot.y_label)}</text>')
    if plot.diagonal:
        line = Curve("", np.array([low, high]), np.array([0.0, 1.0]))
        out.append(f'<polyline class="limit" points="{_points(line, (low, high))}"/>')
    return out


def _stroke(i: int) -> str:
    colour, dash = _STROKES[i % len(_STROKES)]
    return f'stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def figure(plot: Plot, *, number: int) -> str:
    """A figure with its legend; `number` tells figures of a page apart."""
    scale = (plot.x_ticks[0], plot.x_ticks[-1])
    parts = [
        f'<figure><svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="t{number} d{number}">',
        f'<title id="t{number}">{escape(plot.title)}</title><desc id="d{number}">{escape(plot.says)}</desc>',
        *_axes(plot),
        *(
            f'<polyline class="line" {_stroke(i)} points="{_points(curve, scale)}"/>'
            for i, curve in enumerate(plot.curves)
        ),
        '</svg><div><ul class="legend">',
        *(
            f'<li><svg aria-hidden="true" viewBox="0 0 34 10"><path class="line" {_stroke(i)} d="M1 5H33"/></svg>'
            f"{escape(curve.name)}</li>"
            for i, curve in enumerate(plot.curves)
        ),
    ]
    if plot.diagonal:
        parts.append(
            '<li><svg aria-hidden="true" viewBox="0 0 34 10"><path class="limit" d="M1 5H33"/></svg>exact</li>'
        )
    parts.append(f"</ul><figcaption>{escape(plot.title)}. {escape(plot.says)}</figcaption></div></figure>")
    return "".join(parts)
