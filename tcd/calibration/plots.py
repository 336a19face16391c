"""Curves as inline SVG: no script, no font, no network; a title and a description for screen readers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.svg import Frame, figure, legend, polyline, share, stroke, text

F64 = NDArray[np.float64]

_FRAME: Final = Frame(width=460, height=380, left=52, right=14, top=12, bottom=46)


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


def _places(curve: Curve, low: float, high: float) -> list[tuple[float, float]]:
    x, y = curve.x, curve.y
    if curve.stepped and x.shape[0]:
        x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
    shares = zip(x.tolist(), y.tolist(), strict=True)
    return [(_FRAME.across(share(a, low, high)), _FRAME.down(share(b, 0.0, 1.0))) for a, b in shares]


def _axes(plot: Plot) -> list[str]:
    low, high = plot.x_ticks[0], plot.x_ticks[-1]
    out = []
    for tick in plot.x_ticks:
        at = share(tick, low, high)
        out.append(_FRAME.upright("grid", at))
        out.append(text("tick", _FRAME.across(at), _FRAME.height - _FRAME.bottom + 16, f"{tick:g}", "middle"))
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.append(_FRAME.level("grid", tick))
        out.append(text("tick", _FRAME.left - 8, _FRAME.down(tick) + 4, f"{tick:g}", "end"))
    out += _FRAME.names(plot.x_label, plot.y_label)
    if plot.diagonal:
        out.append(polyline("limit", _places(Curve("", np.array([low, high]), np.array([0.0, 1.0])), low, high)))
    return out


def draw(plot: Plot, *, number: int) -> str:
    """A figure with its legend; `number` tells figures of a page apart."""
    low, high = plot.x_ticks[0], plot.x_ticks[-1]
    lines = [polyline("line", _places(curve, low, high), stroke(i)) for i, curve in enumerate(plot.curves)]
    keys = legend([curve.name for curve in plot.curves], [("exact", "limit")] if plot.diagonal else [])
    return figure(number, plot.title, plot.says, [*_axes(plot), *lines], (_FRAME.width, _FRAME.height), keys)
