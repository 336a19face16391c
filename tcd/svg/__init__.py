"""What all our drawings are made of: scales, ticks and elements as text. No script, no font, no network. Pure.

Of the libraries that draw SVG those that draw charts bring numpy's friends or a script, and those that only write
elements have no axes; what is here is less than either, and the same bytes on every machine.
"""

from __future__ import annotations

from tcd.svg.elements import line, points, polyline, stroke, tag, text
from tcd.svg.figures import Frame, figure, legend
from tcd.svg.scales import decades, round_up, share, ticks

__all__ = [
    "Frame",
    "decades",
    "figure",
    "legend",
    "line",
    "points",
    "polyline",
    "round_up",
    "share",
    "stroke",
    "tag",
    "text",
    "ticks",
]
