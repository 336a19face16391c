"""The evaluation of a calibration as one self-contained, accessible HTML page. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from tcd.calibration.plots import Curve, Plot, draw

F64 = NDArray[np.float64]

LEVELS: Final = (0.01, 0.05, 0.1)
_HORIZON: Final = 128
_UNLIKELY: Final = 0.01
_DRAWS: Final = 1000


def interval(hits: int, n: int) -> tuple[float, float]:
    """95 % Clopper-Pearson interval of a share."""
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def plain(value: Any) -> Any:
    """The same numbers as JSON can have them: None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def ks_one_sided(p: F64) -> float:
    """Sup over u of (share of p <= u) - u, at least 0: how far p-values are from being conservative."""
    n = p.shape[0]
    if not n:
        return 0.0
    return float(max(0.0, (np.arange(1, n + 1) / n - np.sort(p)).max()))


def coverage(p_by_session: list[F64]) -> dict[str, Any]:
    """Share of step p-values at most each level, over the level, with a 95 % bootstrap interval over sessions."""
    out: dict[str, Any] = {
        "sessions": len(p_by_session),
        "steps": int(sum(p.shape[0] for p in p_by_session)),
        "ks_one_sided": ks_one_sided(np.concatenate([np.zeros(0), *p_by_session])),
    }
    if not out["steps"]:
        return out
    size = np.array([p.shape[0] for p in p_by_session])
    drawn = np.random.default_rng(0).integers(0, size.shape[0], (_DRAWS, size.shape[0]))
    for level in LEVELS:
        hits = np.array([int((p <= level).sum()) for p in p_by_session])
        ratio = hits[drawn].sum(axis=1) / np.maximum(size[drawn].sum(axis=1), 1) / level
        low, high = np.quantile(ratio, [0.025, 0.975])
        out[str(level)] = [float(hits.sum() / size.sum() / level), float(low), float(high)]
    return out


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(c)}</td>" for c in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _ratio(entry: Mapping[str, Any], level: float) -> str:
    found = entry.get(str(level))
    return "none" if found is None else f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]"


def _percent(entry: Mapping[str, float]) -> str:
    return f"{entry['share']:.1%} [{entry['low']:.1%}, {entry['high']:.1%}]"


def _reliability(title: str, curves: Mapping[str, F64], *, number: int) -> str:
    u = np.linspace(0, 1, 201)
    lines, says = [], []
    for name, values in curves.items():
        p = np.sort(values)
        if p.shape[0]:
            lines.append(Curve(name, u, np.searchsorted(p, u, side="right") / p.shape[0]))
            says.append(f"{name}: {(p <= 0.1).mean():.1%} of {p.shape[0]} are at most 0.1")  # noqa: PLR2004
    plot = Plot(
        title=title,
        says=f"A line under the dashed one is conservative. {'; '.join(says)}.",
        x_label="u",
        y_label="share of p-values at most u",
        x_ticks=(0.0, 0.25, 0.5, 0.75, 1.0),
        curves=tuple(lines),
        diagonal=True,
    )
    return draw(plot, number=number)


def _delays(delays: Mapping[str, F64], *, number: int) -> str:
    steps = np.arange(_HORIZON + 1, dtype=np.float64)
    curves = tuple(Curve(k, steps, (d[None] <= steps[:, None]).mean(axis=1), stepped=True) for k, d in delays.items())
    says = "; ".join(f"{k}: {(d <= 32).mean():.0%} of {d.shape[0]} within 32" for k, d in delays.items())  # noqa: PLR2004
    plot = Plot(
        title="Detection delay of the fast alarm",
        says=f"Steps from the onset to the first alarm. {says}.",
        x_label="steps after the onset",
        y_label="share caught",
        x_ticks=(0.0, 32.0, 64.0, 96.0, float(_HORIZON)),
        curves=curves,
    )
    return draw(plot, number=number)


def _verdict(session: Mapping[str, Any]) -> str:
    """One sentence on whether sessions sound more often than they may."""
    if not session.get("sessions"):
        return "<p>No whole benign session was held out: nothing can be said of the hypotheses.</p>"
    at = {level: entry for level, entry in session["p_at_most"].items() if entry["n"]}
    worst = min(at.values(), key=lambda entry: float(entry["chance"]))
    right = worst["chance"] >= _UNLIKELY
    told = "no sign that sessions sound too often" if right else "sessions sound too often for a valid calibration"
    return (
        f'<p class="{"good" if right else "bad"}">{told.capitalize()}: the least likely count has a chance of '
        f"{worst['chance']:.2g} when all is right ({session['sessions']} held-out sessions, "
        f"{session['calibration_sessions']} in the smallest table).</p>"
    )


def _sessions(found: Mapping[str, Any], served: Mapping[str, F64], number: int) -> str:
    session, forms = found.get("session"), found.get("forms", {})
    if session is None:
        plot = _reliability("P-values of sessions", served, number=number)
        return f"<section><h2>Whole generations</h2>{plot}</section>"
    rows = [
        [f"p at most {level}", str(e["hits"]), str(e["n"]), _percent(e), f"{e['chance']:.2g}"]
        for level, e in session.get("p_at_most", {}).items()
    ]
    kinds = [[name, *(_percent(entry) for entry in levels.values())] for name, levels in forms.items()]
    head = ["level", "sessions", "of", "share [95 %]", "chance of so many"]
    ks = ""
    if rows:
        limit = f"chance exceeds {session['ks_limit']:.3f} once in twenty"
        ks = f"<p>One-sided KS distance {session['ks_one_sided']:.3f}; {limit}.</p>"
    return (
        f"<section><h2>Whole generations: what the trigger judges</h2>{_verdict(session)}"
        + (table("Healthy held-out generations, p-value of the hypothesis as served", head, rows) + ks if rows else "")
        + (
            table(
                "The detector's session p-value in other forms, share at most the level [95 %]",
                ["form", *next(iter(forms.values()))],
                kinds,
            )
            if forms
            else ""
        )
        + f"{_reliability('P-values of sessions', served, number=number)}</section>"
    )


def _keys(found: Mapping[str, Any]) -> str:
    entries = found.get("keys")
    if not entries:
        return ""
    rows = []
    for entry in entries:
        session = entry["session"].get("p_at_most", {}).get("0.1")
        answered = ("key and temperature", "key", "model", "everything")[entry["level"]]
        rows.append(
            [
                entry["key"],
                answered + (" (fall-back)" if entry["fallback"] else ""),
                str(entry["session"]["sessions"]),
                str(entry["steps"]["steps"]),
                f"{entry['steps']['ks_one_sided']:.3f}",
                *(_ratio(entry["steps"], level) for level in LEVELS[1:]),
                "none" if session is None else _percent(session),
            ]
        )
    head = [
        "key",
        "answered by",
        "sessions",
        "steps",
        "KS",
        *(f"P(p ≤ {a})/{a}" for a in LEVELS[1:]),
        "sessions, p ≤ 0.1",
    ]
    return f"<section><h2>By key</h2>{table('Healthy steps and sessions of each key', head, rows)}</section>"


def _within(delays: F64, horizon: int) -> str:
    hits, n = int((delays <= horizon).sum()), int(delays.shape[0])
    low, high = interval(hits, n)
    return f"{hits / n:.0%} [{low:.0%}, {high:.0%}]"


def _detection(found: Mapping[str, Any], delays: Mapping[str, F64], number: int) -> str:
    if not delays:
        none = "The held-out sessions have no labelled faults: no delay can be shown."
        return f"<section><h2>Faults</h2><p>{none}</p></section>"
    numbers = found.get("detection", found)
    rows = [
        [
            kind,
            str(numbers[kind]["n"]),
            *(_within(delays[kind], horizon) for horizon in (32, 64)),
            "none" if numbers[kind]["delay"] is None else f"{numbers[kind]['delay']:g}",
        ]
        for kind in delays
    ]
    head = ["fault", "generations", "within 32 steps [95 %]", "within 64 [95 %]", "median delay"]
    return (
        f"<section><h2>Faults</h2>{table('Labelled faults, caught by the fast alarm', head, rows)}"
        f"{_delays(delays, number=number)}</section>"
    )


@cache
def _style() -> str:
    return (files("tcd.calibration") / "report.css").read_text(encoding="utf-8")


def page(
    found: Mapping[str, Any],
    p_by_group: Mapping[str, list[F64]],
    delays: Mapping[str, F64],
    sessions: Mapping[str, F64],
) -> str:
    """The whole page.

    Args:
        found: what `cross_validate` or `heldout.evaluate` answers.
        p_by_group: step p-values of healthy text, by kind of generation and by session.
        delays: steps from onset to alarm by kind of fault.
        sessions: p-values of whole healthy generations, by form.
    """
    numbers = found.get("detection", found)
    head = ["group", "sessions", "steps", "KS one-sided", *(f"P(p ≤ {a})/{a} [95 %]" for a in LEVELS)]
    rows = []
    for name, entry in found["p_values"].items():
        cells = [str(entry["sessions"]), str(entry["steps"]), f"{entry['ks_one_sided']:.3f}"]
        rows.append([name, *cells, *(_ratio(entry, level) for level in LEVELS)])
    steps = {name: np.concatenate([np.zeros(0), *parts]) for name, parts in p_by_group.items()}
    assets = escape(str(found.get("assets", "one fit per fold")))
    demo = " These assets are a demonstration: no guarantee follows from them." if found.get("demo") else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><title>tcd calibration report</title>'
        f"<style>{_style()}</style></head><body><header><div><h1>Calibration, on sessions the fit has not seen</h1>"
        f"<p>Log: {escape(str(found['source']))}</p><p>Assets: {assets}</p>"
        "</div></header><main>"
        f"<section><h2>In short</h2><p>{numbers['healthy_steps']} healthy steps; the fast alarm sounded on "
        f"{numbers['alarms_per_1000']:.2f} of 1,000 of them, in {numbers['episodes_per_1000']:.2f} episodes.{demo}</p>"
        f"</section>{_sessions(found, sessions, 1)}{_keys(found)}"
        f"<section><h2>Single steps: what the score and the fast alarm go by</h2>"
        f"{table('Step p-values of healthy text; 1 is exact, less is conservative', head, rows)}"
        f"{_reliability('P-values of steps', steps, number=2)}</section>"
        f"{_detection(found, delays, 3)}"
        f"<section><h2>All numbers</h2><details><summary>JSON</summary><pre>{escape(json.dumps(found, indent=1))}</pre>"
        "</details></section></main></body></html>"
    )
