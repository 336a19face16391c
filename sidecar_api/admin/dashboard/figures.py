"""From what the pages read to plots. Pure."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Final

from sidecar_api.admin.dashboard.explain import Step, number, power
from sidecar_api.admin.dashboard.plots import Bar, Level, Line, Plot, Point
from tcd.ledger.search_views import Count

_SECOND: Final = 1_000_000
_STEPS: Final = (1, 5, 10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
_DAY: Final = 86_400
_MINUTE: Final = 60
#: From the mildest on; bars are stacked in this order.
ORDER: Final = ("allow", "throttle", "degrade", "ask_for_review", "escalate_to_human", "block")
#: Highest and lowest decade of evidence that is drawn.
_DECADES: Final = 24.0
#: Two-sided level of the band of Dvoretzky, Kiefer, Wolfowitz and Massart.
_BAND: Final = 0.05


def moments(since_us: int, until_us: int) -> list[tuple[float, str]]:
    """Ticks of a time axis: microseconds, and the moment in UTC."""
    span = (until_us - since_us) / _SECOND
    step = next((s for s in _STEPS if span / s <= 7), _STEPS[-1])  # noqa: PLR2004 - so many labels fit
    first = -(-since_us // (step * _SECOND)) * step * _SECOND
    form = "%d %b" if step >= _DAY else "%H:%M" if step >= _MINUTE else "%H:%M:%S"
    return [
        (float(at), dt.datetime.fromtimestamp(at / _SECOND, dt.timezone.utc).strftime(form))
        for at in range(first, until_us + 1, step * _SECOND)
    ]


def triggers(
    counts: Sequence[Count], *, since_us: int, until_us: int, bins: int, only: frozenset[str], title: str
) -> Plot:
    """Decisions per slice of time by what was enforced, those of `only`."""
    width = max(1, -(-(until_us - since_us) // bins))
    sums: dict[int, dict[str, int]] = {}
    for count in counts:
        if count.enforced in only:
            found = sums.setdefault(count.bin, {})
            found[count.enforced] = found.get(count.enforced, 0) + count.count
    bars, highest = [], 1
    for index, found in sorted(sums.items()):
        low = 0
        left = since_us + index * width
        moment = dt.datetime.fromtimestamp(left / _SECOND, dt.timezone.utc).strftime("%d %b %H:%M:%S")
        for action in ORDER:
            if action in found:
                tip = f"{found[action]} {action.replace('_', ' ')} from {moment}"
                bars.append(Bar(left, left + width, low, low + found[action], f"bar {action}", tip))
                low += found[action]
        highest = max(highest, low)
    total = sum(sum(found.values()) for found in sums.values())
    return Plot(
        title=title,
        about=f"{total} decisions in {len(sums)} of {bins} slices of time, at most {highest} in one.",
        x="time, UTC",
        y="decisions",
        x_range=(since_us, until_us),
        y_range=(0, highest * 1.08),
        counts=True,
        x_ticks=moments(since_us, until_us),
        bars=bars,
    )


def spending(steps: Sequence[Step], alpha: float) -> Plot:
    """What a tenant's budget had spent at each decision, beside its level."""
    points = [(float(step.ts_us), step.spent) for step in steps]
    since, until = _around([x for x, _ in points])
    last = points[-1][1] if points else 0.0
    return Plot(
        title="Level spent at each decision",
        about=f"{len(points)} decisions; the newest had spent {number(last)} of {number(alpha)}.",
        x="time, UTC",
        y="alpha spent",
        x_range=(since, until),
        y_range=(0, max([alpha, *(y for _, y in points)]) * 1.15),
        x_ticks=moments(int(since), int(until)),
        lines=(Line(points, "ink", steps=True),),
        levels=(Level(alpha, f"alpha {number(alpha)}", "limit"),),
    )


def wealth(steps: Sequence[Step]) -> Plot:
    """The wealth that was left at each decision."""
    points = [(float(step.ts_us), step.wealth) for step in steps]
    since, until = _around([x for x, _ in points])
    return Plot(
        title="Wealth at each decision",
        about=f"{len(points)} decisions; the newest had a wealth of {number(points[-1][1]) if points else 'nothing'}.",
        x="time, UTC",
        y="wealth",
        x_range=(since, until),
        y_range=(0, max([1e-9, *(y for _, y in points)]) * 1.15),
        x_ticks=moments(int(since), int(until)),
        lines=(Line(points, "ink", steps=True),),
    )


def _around(values: Sequence[float]) -> Point:
    if not values:
        return (0.0, float(_SECOND))
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - _SECOND, high + _SECOND)


def distribution(p: Sequence[float], floor: float) -> Plot:
    """The share of sessions with p at most u, beside what a calibration promises: at most u, but for chance."""
    ordered = sorted(p)
    count = len(ordered)
    half = math.sqrt(math.log(2 / _BAND) / (2 * count)) if count else 1.0
    points: list[Point] = [(0.0, 0.0)]
    points += [(value, (rank + 1) / count) for rank, value in enumerate(ordered)]
    points.append((1.0, 1.0))
    grid = [i / 40 for i in range(41)]
    worst = max((share - value for value, share in points), default=0.0)
    verdict = "inside the band" if worst <= half else "above the band: more small p-values than promised"
    levels = (Level(floor, f"smallest p {number(floor)}", "level", upright=True),) if floor > 0.005 else ()  # noqa: PLR2004
    return Plot(
        title="p-values of sessions beside the calibration",
        about=f"{count} sessions; the curve is {number(worst)} above the diagonal at most, the band is {number(half)} "
        f"wide: {verdict}.",
        x="u",
        y="share with p at most u",
        x_range=(0, 1),
        y_range=(0, 1),
        lines=(Line([(0.0, 0.0), (1.0, 1.0)], "promise"), Line(points, "ink", steps=True)),
        band=[(u, max(0.0, u - half), min(1.0, u + half)) for u in grid],
        levels=levels,
        height=300,
    )


def scores(values: Sequence[float], threshold: float) -> Plot:
    """How many steps have which score; calibrated, 1 - score is a p-value."""
    bins = 40
    counts = [0] * bins
    for value in values:
        counts[min(int(max(value, 0.0) * bins), bins - 1)] += 1
    highest = max([1, *counts])
    bars = [
        Bar(i / bins, (i + 1) / bins, 0, found, "bar plain", f"{found} steps with a score from {i / bins:g}")
        for i, found in enumerate(counts)
        if found
    ]
    above = sum(value >= threshold for value in values)
    return Plot(
        title="Scores of steps",
        about=f"{len(values)} steps; {above} of them at or above the newest threshold of the fast alarm, "
        f"{number(threshold)}.",
        x="score (1 - p of the step)",
        y="steps",
        x_range=(0, 1),
        y_range=(0, highest * 1.08),
        counts=True,
        bars=bars,
        levels=(Level(threshold, f"threshold {number(threshold)}", "limit", upright=True),) if above >= 0 else (),
        height=300,
    )


def evidence(steps: Sequence[Step]) -> Plot:
    """The hypothesis of a session as an e-value, step by step, beside what it takes."""
    places = [float(step.step) for step in steps]
    values = [_decade(math.log10(step.e)) if step.e > 0 else -_DECADES for step in steps]
    needed = [_decade(math.log10(step.e_needed)) for step in steps if step.level > 0]
    high = max([1.0, *values, *needed])
    low = min([0.0, *values])
    levels = [Level(needed[-1], f"needed: e-value {power(needed[-1])}", "limit")] if needed else []
    first = next((step for step in steps if step.trigger), None)
    if first is not None:
        levels.append(Level(float(first.step), f"rejected at step {first.step}", "mark", upright=True))
    said = f"{len(steps)} steps; the e-value ends at {power(values[-1])}" if steps else "no steps"
    return Plot(
        title="Evidence against the session being healthy",
        about=f"{said}, needed is {power(needed[-1])}." if needed else f"{said}; no level was reserved.",
        x="step",
        y="e-value",
        x_range=_span(places),
        y_range=(math.floor(low), math.ceil(high + 0.4)),
        log=True,
        whole=True,
        lines=(Line(list(zip(places, values, strict=True)), "ink", steps=True, dots=len(places) <= _DOTTED),),
        levels=levels,
    )


_DOTTED: Final = 60


def alarms(steps: Sequence[Step]) -> Plot:
    """The score of each step beside the threshold of the fast alarm, and what was enforced."""
    places = [(float(step.step), step.score) for step in steps]
    threshold = steps[-1].threshold if steps else 1.0
    by: dict[str, list[Point]] = {}
    for step, place in zip(steps, places, strict=True):
        by.setdefault(step.enforced, []).append(place)
    lines = [Line(places, "soft")]
    lines += [Line(by[action], action, dots=True, joined=False) for action in ORDER if action in by]
    above = sum(step.score >= step.threshold for step in steps)
    return Plot(
        title="Score of each step, and what was enforced",
        about=f"{above} of {len(steps)} steps at or above the threshold {number(threshold)}; "
        + ", ".join(f"{len(found)} {action.replace('_', ' ')}" for action, found in by.items())
        + ".",
        x="step",
        y="score",
        x_range=_span([x for x, _ in places]),
        y_range=(0, 1.1),
        whole=True,
        lines=lines,
        levels=(Level(threshold, f"threshold {number(threshold)}", "limit"),),
    )


def _span(places: Sequence[float]) -> Point:
    if not places:
        return (0.0, 1.0)
    low, high = min(places), max(places)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _decade(exponent: float) -> float:
    return min(max(exponent, -_DECADES), _DECADES)


def legend(found: Mapping[str, int]) -> list[tuple[str, int]]:
    """Actions that are there, in the order of the bars."""
    return [(action, found[action]) for action in ORDER if found.get(action)]
