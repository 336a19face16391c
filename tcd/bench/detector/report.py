"""The result as Markdown: the table of the targets by both readings of the budget, and what stands behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tcd.bench.detector.budget import READINGS
from tcd.bench.detector.plots import TITLES, plots
from tcd.bench.detector.validity import LEVELS

__all__ = ["markdown", "plots"]

#: Columns: kind, horizons, whether the median delay is shown.
_COLUMNS: Final = (
    ("loop", (32,), True),
    ("temperature", (32,), True),
    ("severe", (32, 64), True),
    ("mild", (64,), False),
)
_HEAD: Final = "loop@32 / delay | temperature@32 / delay | severe@32, @64 / delay | mild@64"
#: What the detector is held to, and what it is after.
_TARGETS: Final = (
    "| *required* | 0.93 / 15 | 1.00 / 5 | 0.81, 0.92 / 19 | 0.61 | 1.00 | 0.920 | 0.965 |",
    "| *aim* | 0.97 / 12 | 1.00 / 3 | 0.90, 0.98 / 11 | 0.75 | 1.00 | 0.945 | 0.985 |",
)
_READINGS: Final = (
    "*Alarms*, the headline: after an alarm the next 32 steps raise no other. The targets count false alarms, and only "
    "so has a threshold the same budget as a detector that starts afresh after an alarm, as river's do. *Steps*, the "
    "stricter reading: every healthy step on which the alarm sounds counts. It is that of the fast alarm's own level, "
    "a quantile of the step score; river's detectors, silent after an alarm, pay nothing for it."
)
_CELLS: Final = (
    "At one false alarm per 1,000 healthy tokens realised on these prompts. Shares with 95 % Clopper-Pearson over "
    "generations; median delay in tokens with its 95 % interval between order statistics; AUROC with the 95 % interval "
    "of a bootstrap over prompts, positives 8 to 96 steps after the onset."
)
_SWEEP: Final = (
    "Each at the most sensitive setting of its sweep that keeps the budget on these recordings, on the signal and "
    "with the second parameter that serve it best here, a choice that no user could make beforehand:"
)
_VALIDITY: Final = (
    "P(p ≤ a)/a, 95 % bootstrap over prompts: step p of the detector and of both monitors merged; p of blocks of 8 "
    "tokens against the generation's own past, the evidence of the unit `block`, by the package's one table. Lag-1: "
    "correlation of neighbouring steps, and of neighbouring blocks (for steps: of those that end them)."
)


def _cell(cell: Sequence[float] | None, digits: int = 2) -> str:
    if cell is None:
        return "-"
    value, low, high = (f"{part:.{digits}f}" for part in cell)
    return f"{value} ({low}-{high})"


def _steps(delay: float | None) -> str:
    return "∞" if delay is None else f"{delay:g}"


def _cells(found: Mapping[str, Any]) -> list[str]:
    out = []
    for kind, horizons, timed in _COLUMNS:
        got = found.get(kind)
        if got is None:
            out.append("-")
            continue
        text = ", ".join(_cell(got[f"within_{horizon}"]) for horizon in horizons)
        low, high = (_steps(end) for end in got["delay_interval"])
        out.append(f"{text} / {_steps(got['delay'])} ({low}-{high})" if timed else text)
    return out


def _table(rows: Mapping[str, Any], reading: str) -> list[str]:
    lines = [
        f"| {reading} | {_HEAD} | false alarms per 1,000 | AUROC | loops, greedy |",
        "|---|---|---|---|---|---|---|---|",
        *_TARGETS,
    ]
    for name, row in rows.items():
        found = row.get(reading)
        if found is None:
            lines.append(f"| {name} | no setting keeps the budget |" + " |" * 6)
            continue
        cells = [*_cells(found), f"{found['per_1000']:.2f}"]
        cells += [_cell(row[which], 3) for which in ("auroc", "auroc_loops_greedy")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _tables(rows: Mapping[str, Any]) -> list[str]:
    """One table per reading, the headline first."""
    parts = [[*_table(rows, reading), ""] for reading in READINGS]
    return [line for part in parts for line in part][:-1]


def _settings(rows: Mapping[str, Any], shipped: Mapping[str, Any]) -> list[str]:
    """How river's detectors were set, and what they do as they are shipped."""
    if not shipped:
        return []
    lines = [
        "",
        "## River's detectors",
        "",
        _SWEEP,
        "",
    ]
    for name in shipped:
        chosen = {reading: rows[name][reading]["setting"] for reading in READINGS if reading in rows[name]}
        lines.append(f"* {name}: " + "; ".join(f"{reading}: {setting}" for reading, setting in chosen.items()))
    lines += [
        "",
        "As shipped, with their defaults, on the entropy in nats (no budget):",
        "",
        f"| | false alarms per 1,000 | {_HEAD} |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in shipped.items():
        lines.append(f"| {name} | {found['per_1000']:.2f} | {' | '.join(_cells(found))} |")
    return lines


def _p_values(tables: Mapping[str, Any]) -> list[str]:
    lines = [
        "",
        "## P-values on healthy text",
        "",
        _VALIDITY,
        "",
        "| p | text | .1 | .05 | .01 | lag-1 steps | lag-1 blocks | sessions, values |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for which, rows in tables.items():
        for name, row in rows.items():
            if not row["steps"]:
                continue
            cells = [_cell(row[str(level)]) for level in LEVELS]
            cells += ["-" if row[lag] is None else f"{row[lag]:.2f}" for lag in ("lag_1", "lag_1_blocks")]
            lines.append(f"| {which} | {name} | {' | '.join(cells)} | {row['sessions']}, {row['steps']} |")
    return lines


def _via(via: Mapping[str, Any]) -> list[str]:
    if not via["compared"]:
        return []
    where = {"triton": "tcd_diagnose in a real Triton", "http": "POST /diagnose of `tcd serve`, one session each"}
    parts = ", ".join(f"{name} {count:,}" for name, count in via["compared"].items())
    wrong = {name: count for name, count in via["different"].items() if count}
    verdict = "all equal the library's bit for bit" if not wrong else f"**NOT the library's bits: {wrong}**"
    return ["", f"Scored through {where[via['way']]}. Values compared: {parts}; {verdict}."]


def markdown(found: Mapping[str, Any], *, images: str = "") -> str:
    """The report.

    Args:
        found: what `measure` answers.
        images: prefix of the plots' paths; empty leaves them out.
    """
    lines = [
        "# The detector on recorded generations",
        "",
        f"{found['sequences']} generations of {found['prompts']} prompts ({found['source']}).",
        f"Scored by {found['scored_by']}; peers that learn: by the same {found['folds']} folds over prompts.",
        *_via(found["via"]),
        "",
        _CELLS,
        "",
        _READINGS,
        "",
        *_tables(found["rows"]),
    ]
    if images:
        lines += ["", *(f"![{title}]({images}{name}.svg)" for name, title in TITLES.items())]
    alarm = found["fast_alarm"]
    rates = alarm["rates"]
    told = "Given with the assets" if found["via"]["given"] else "Set without sight of these prompts"
    lines += [
        "",
        "## The fast alarm at its own level",
        "",
        f"{told}. Per 1,000 of {alarm['healthy_tokens']} healthy tokens:",
        f"{_cell(rates['steps'])} steps, {_cell(rates['alarms'])} alarms; 95 % bootstrap over prompts.",
        "",
        f"| {_HEAD} |",
        "|---|---|---|---|",
        f"| {' | '.join(_cells(alarm['steps']))} |",
    ]
    if found["components"]:
        everything = {"all signals": found["rows"]["all signals"], **found["components"]}
        lines += ["", "## One component left out", "", *_tables(everything)]
    lines += _settings(found["rows"], found["shipped"])
    lines += _p_values(found["p_values"])
    if found["missing"]:
        lines += ["", "Not measured: " + "; ".join(found["missing"]) + "."]
    return "\n".join(lines) + "\n"
