"""The plots of the report: detection by delay, ROC, reliability of the p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tcd.bench.detector.budget import READINGS
from tcd.bench.detector.lines import Chart, Line, document
from tcd.bench.detector.validity import GRID

TITLES: Final = {
    "delays": "Share of faults caught within so many tokens, at one false alarm per 1,000 healthy tokens",
    "roc": "ROC of single steps, 8 to 96 tokens after the onset",
    "reliability": "Reliability of p-values on healthy text",
}
#: Rows that are drawn, where they were measured.
_DRAWN: Final = (
    "all signals",
    "log-probability and entropy",
    "log-probability",
    "score of the answer",
    "logistic regression",
    "verbatim copy (token ids)",
    "entropy EWMA",
    "river Page-Hinkley",
    "river KSWIN",
)
_KINDS: Final = ("loop", "temperature", "severe", "mild")
_LONGEST: Final = 96


def _drawn(rows: Mapping[str, Any]) -> dict[str, int]:
    """Rows to draw and their styles."""
    return {name: i for i, name in enumerate(name for name in _DRAWN if name in rows)}


def _caught(found: Mapping[str, Any]) -> Sequence[tuple[float, float]]:
    """(d, share caught within d tokens), d = 0 to 96."""
    delays = found["delays"]
    return [(d, sum(one <= d for one in delays) / found["n"]) for d in range(_LONGEST + 1)]


def _delays(found: Mapping[str, Any]) -> str:
    rows, charts = found["rows"], []
    styles = _drawn(rows)
    for reading in READINGS:
        for kind in _KINDS:
            lines = [
                Line(name, style, _caught(rows[name][reading][kind]))
                for name, style in styles.items()
                if kind in rows[name].get(reading, {})
            ]
            if lines:
                n = next(rows[name][reading][kind]["n"] for name in styles if kind in rows[name].get(reading, {}))
                title = f"{kind}, budget in {reading} (n={n})"
                charts.append(
                    Chart(title=title, x="tokens after the onset", y="caught", lines=lines, x_range=(0, _LONGEST))
                )
    return document(TITLES["delays"], charts, columns=4)


def _roc(found: Mapping[str, Any]) -> str:
    rows, rates = found["rows"], found["rates"]
    lines = [
        Line(name, style, list(zip(rates, rows[name]["roc"], strict=True)))
        for name, style in _drawn(rows).items()
        if rows[name].get("roc")
    ]
    x, y = "share of healthy steps above the threshold", "share of faulty steps"
    ends, title = (rates[0], rates[-1]), "dashed: one healthy step in 1,000"
    charts = [
        Chart(title=title, x=x, y=y, lines=lines, x_range=ends, log_x=True, limit=1e-3),
        Chart(title="the same, linear", x=x, y=y, lines=lines, x_range=(0.0, 1.0)),
    ]
    return document(TITLES["roc"], charts)


def _reliability(found: Mapping[str, Any]) -> str:
    ends = (float(GRID[0]), float(GRID[-1]))
    charts = []
    for which, rows in found["p_values"].items():
        lines = [
            Line(name, style, list(zip(GRID.tolist(), row["curve"], strict=True)))
            for style, (name, row) in enumerate(rows.items())
            if row["steps"]
        ]
        charts.append(
            Chart(
                title=f"{which} p; grey: exact; above: too many",
                x="level a",
                y="P(p ≤ a)",
                lines=lines,
                x_range=ends,
                y_range=ends,
                log_x=True,
                log_y=True,
                diagonal=True,
            )
        )
    return document(TITLES["reliability"], charts, columns=3)


def plots(found: Mapping[str, Any]) -> dict[str, str]:
    """SVG documents by name."""
    return {"delays": _delays(found), "roc": _roc(found), "reliability": _reliability(found)}
