"""The report: Markdown for people, and one plot of power against false alarms per data set as SVG."""

from __future__ import annotations

from html import escape
from typing import Any, Final

from tcd.bench.sessions.rules import ABOUT, ANYTIME, ODDS, PLAIN, RATIO, SPLIT, TCD

_WIDTH: Final = 760
_HEIGHT: Final = 470
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 46, 116
_COLOUR: Final = {
    TCD: "#1f6f43",
    ODDS: "#7fb89a",
    PLAIN: "#707070",
    RATIO: "#b8860b",
    SPLIT: "#b00020",
    ANYTIME: "#5b3fa0",
}
_STEPS: Final = (0.01, 0.02, 0.05, 0.1, 0.2)


def _cell(values: list[float]) -> str:
    return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"


def _signed(values: list[float]) -> str:
    return f"{values[0]:+.3f} [{values[1]:+.3f}, {values[2]:+.3f}]"


def _cross(x: float, y: float, colour: str) -> str:
    corners = f"M{x - 5} {y - 5}L{x + 5} {y + 5}M{x - 5} {y + 5}L{x + 5} {y - 5}"
    return f'<path d="{corners}" stroke="{colour}" stroke-width="2.5" fill="none"/>'


def plot(name: str, found: dict[str, Any], rates: list[float], alpha: float) -> str:
    """Power against realised false alarms: curves of this run, its working points, and published points as crosses."""
    curves = {rule: row["curve"] for rule, row in found["rules"].items() if row["curve"] and rule in _COLOUR}
    points = [row["power"][0] for rule, row in found["rules"].items() if rule in _COLOUR]
    highest: float = max([*points, *(max(curve) for curve in curves.values()), 0.05]) * 1.05
    widest = rates[-1]

    def x(value: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * value / widest, 1)

    def y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / highest, 1)

    title = f"{name}: failing sessions caught against solved sessions disturbed"
    box = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" font-family="system-ui, sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="12" y="22" font-size="14" font-weight="600">{escape(title)}</text>',
        (
            f'<text x="12" y="39" fill="#555">mean of {found["splits"]} splits; dot: at its own threshold, with its '
            "99.9 % intervals; cross: published</text>"
        ),
    ]
    for number in range(11):
        at = widest * number / 10
        parts.append(f'<line x1="{x(at)}" x2="{x(at)}" y1="{_TOP}" y2="{y(0)}" stroke="#eee"/>')
        parts.append(f'<text x="{x(at)}" y="{y(0) + 16}" text-anchor="middle" fill="#555">{at:.2f}</text>')
    step = next((size for size in _STEPS if highest / size <= 8), _STEPS[-1])  # noqa: PLR2004 - labels must not touch
    for number in range(int(highest / step) + 1):
        at = number * step
        parts.append(f'<line x1="{x(0)}" x2="{x(widest)}" y1="{y(at)}" y2="{y(at)}" stroke="#eee"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y(at) + 4}" text-anchor="end" fill="#555">{at:.2f}</text>')
    parts += [
        f'<line x1="{x(alpha)}" x2="{x(alpha)}" y1="{_TOP}" y2="{y(0)}" stroke="#222" stroke-dasharray="4 3"/>',
        f'<text x="{x(alpha) + 4}" y="{_TOP + 12}" fill="#222">alpha</text>',
        (
            f'<text x="{x(widest / 2)}" y="{y(0) + 34}" text-anchor="middle" fill="#333">false alarms (part of the '
            "solved sessions)</text>"
        ),
        (
            f'<text x="16" y="{y(highest / 2)}" transform="rotate(-90 16 {y(highest / 2)})" text-anchor="middle" '
            'fill="#333">power</text>'
        ),
    ]
    for rule, curve in curves.items():
        path = " ".join(f"{x(rate)},{y(power)}" for rate, power in zip(rates, curve, strict=True))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{_COLOUR[rule]}" stroke-width="2"/>')
    for rule, row in found["rules"].items():
        if rule in _COLOUR:
            (at, low, high), (power, under, over) = row["false_alarm"], row["power"]
            stroke = f'stroke="{_COLOUR[rule]}" stroke-width="1.5"'
            parts += [
                f'<line x1="{x(max(low, 0.0))}" x2="{x(min(high, widest))}" y1="{y(power)}" y2="{y(power)}" {stroke}/>',
                f'<line x1="{x(at)}" x2="{x(at)}" y1="{y(max(under, 0.0))}" y2="{y(min(over, highest))}" {stroke}/>',
                f'<circle cx="{x(at)}" cy="{y(power)}" r="4" fill="{_COLOUR[rule]}"/>',
            ]
    parts += [_cross(x(row["false_alarm"]), y(row["power"]), _COLOUR[rule]) for rule, row in found["published"].items()]
    for number, rule in enumerate(_COLOUR):
        left, top = 64 + 340 * (number % 2), _HEIGHT - 58 + 18 * (number // 2)
        parts.append(f'<circle cx="{left}" cy="{top - 4}" r="4" fill="{_COLOUR[rule]}"/>')
        parts.append(f'<text x="{left + 10}" y="{top}" fill="#333">{escape(rule)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def plots(found: dict[str, Any]) -> dict[str, str]:
    """One SVG document per data set, by name."""
    return {name: plot(name, one, found["rates"], found["alpha"]) for name, one in found["sets"].items()}


def _set(name: str, one: dict[str, Any], images: str) -> list[str]:
    sizes = one["sizes"]
    lines = [
        f"## {name}",
        "",
        (
            f"{one['sessions']:,} sessions, {one['failing']:,} failed, {one['steps']:,} judged steps, at most "
            f"{one['longest']} in a session. Of each of {one['splits']} splits: {sizes['train']:,} sessions fit the "
            f"statistic, {sizes['calibration']:,} solved ones make the table, {sizes['test_solved']:,} solved and "
            f"{sizes['test_failing']:,} failing ones are the test."
        ),
        "",
    ]
    if images:
        lines += [f"![Power against false alarms, {name}]({images}{name}.svg)", ""]
    lines += [
        "| rule | false alarms | power | part seen at the trigger | tcd less it, at its own false alarms |",
        "|---|---|---|---|---|",
    ]
    for rule, row in one["rules"].items():
        gain = row.get("tcd_less_it_at_its_false_alarms")
        seen = "-" if row["seen_at_trigger"] is None else f"{row['seen_at_trigger']:.2f}"
        lines.append(
            f"| {rule} | {_cell(row['false_alarm'])} | {_cell(row['power'])} | {seen} | "
            f"{_signed(gain) if gain else ''} |"
        )
    if one["published"]:
        lines += ["", "| published | false alarms | power | tcd at these false alarms |", "|---|---|---|---|"]
        for rule, row in one["published"].items():
            there = _cell(row["tcd_power_there"])
            lines.append(f"| {rule} | {row['false_alarm']:.3f} | {row['power']:.3f} | {there} |")
    lines += ["", *_unseen(one["unseen"])]
    if "streams" in one:
        lines += ["", _streams(one["streams"])]
    return lines


def _unseen(found: dict[str, Any]) -> list[str]:
    lines = [
        (
            f"On the half that no choice has seen ({found['solved']:,} solved, {found['failing']:,} failing sessions; "
            f"fitted and calibrated on the other half, mean of {found['draws']} draws; 95 % intervals over sessions):"
        ),
        "",
        "| rule | false alarms | power | tcd less it, at its own false alarms |",
        "|---|---|---|---|",
    ]
    for rule, row in found["rules"].items():
        gain = row.get("tcd_less_it_at_its_false_alarms")
        lines.append(
            f"| {rule} | {_cell(row['false_alarm'])} | {_cell(row['power'])} | {_signed(gain) if gain else ''} |"
        )
    return lines


def _streams(found: dict[str, Any]) -> str:
    return (
        f"Through the real controller (RAI, {found['length'][0]:.0f} sessions an epoch, 8 open at once, "
        f"{found['splits']} splits of about {found['epochs'][0]:.0f} epochs): SupFDR {_cell(found['sup_fdr'])} on all "
        f"test sessions with power {_cell(found['power'])}; an epoch of solved sessions triggers with probability "
        f"{_cell(found['null_trigger'])}."
    )


def markdown(found: dict[str, Any], *, images: str = "") -> str:
    """The report; `images` is the prefix of the plots' paths, empty = none."""
    about = (
        "Written by `tcd bench sessions`. A session is a trajectory whose steps a judge has scored; a solved one is "
        f"benign. All seeds are fixed; alpha is {found['alpha']:g}. Rates are means over random splits with 99.9 % "
        "intervals of those means: they are about these sessions, and do not say how another set of sessions differs. "
        "Half of the sessions are labelled, for every rule alike: the published figures do not say how much was, and "
        "this comes closest to them."
    )
    lines = ["# The session unit on real judge trajectories", "", about, ""]
    lines.append(f"False alarms are what they are held to: **{'yes' if found['ok'] else 'NO'}**.")
    for name, one in found["sets"].items():
        lines += ["", *_set(name, one, images)]
    lines += ["", "## Held to", "", "| run | N | rate | 99.9 % interval | bound | |", "|---|---|---|---|---|---|"]
    for row in found["held_to"]:
        verdict = "ok" if row["ok"] else "**FAILED**"
        lines.append(
            f"| {row['label']} | {row['n']} | {row['rate']:.4f} | [{row['low']:.4f}, {row['high']:.4f}] | "
            f"{row['bound']:g} | {verdict} |"
        )
    lines += ["", "## The rules", "", *(f"* {rule}: {text}." for rule, text in ABOUT.items())]
    return "\n".join(lines) + "\n"
