"""Scales and their ticks."""

from __future__ import annotations

import math


def share(value: float, low: float, high: float, *, log: bool = False) -> float:
    """Where a value lies from `low` to `high`, 0 to 1 and never outside; both are positive where `log`."""
    if log:
        low, high, value = 0.0, math.log(high / low), math.log(max(value, low) / low)
    return min(max((value - low) / ((high - low) or 1.0), 0.0), 1.0)


def decades(low: float, high: float) -> list[float]:
    """The powers of ten from `low` to `high`."""
    return [10.0**e for e in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]


def ticks(low: float, high: float, *, about: int = 5, whole: bool = False) -> list[float]:
    """So many round numbers from `low` to `high`, about; whole ones where `whole`."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    raw = span / about
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * times for times in (1, 2, 2.5, 5, 10) if unit * times >= raw * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) + 0.0 for n in range(first, math.floor(high / step + 1e-9) + 1)]


def round_up(most: float) -> float:
    """The next number that is 1, 2 or 5 times a power of ten."""
    if most <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(most))
    return next(unit * k for k in (1.0, 2.0, 5.0, 10.0) if unit * k >= most * (1 - 1e-12))
