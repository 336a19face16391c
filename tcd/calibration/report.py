"""The evaluation of a calibration as one self-contained HTML page: reliability, coverage, delays. Pure."""

from __future__ import annotations

import html
import json
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

_SIZE: Final = 320
_PAD: Final = 40
LEVELS: Final = (0.01, 0.05, 0.1)
_STYLE: Final = (
    "body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{border:1px solid #999;padding:.2rem .6rem;text-align:right}"
    "svg{background:#fff}"
)


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
    drawn = np.random.default_rng(0).integers(0, size.shape[0], (1000, size.shape[0]))
    for level in LEVELS:
        hits = np.array([int((p <= level).sum()) for p in p_by_session])
        ratio = hits[drawn].sum(axis=1) / np.maximum(size[drawn].sum(axis=1), 1) / level
        low, high = np.quantile(ratio, [0.025, 0.975])
        out[str(level)] = [float(hits.sum() / size.sum() / level), float(low), float(high)]
    return out


def _curve(title: str, x_label: str, curves: dict[str, tuple[F64, F64]], x_max: float, *, diagonal: bool) -> str:
    """An SVG of curves in [0, x_max] x [0, 1]."""
    colours = ("#0b5cad", "#b3401f", "#2d7d46", "#7a3fa0", "#8a6d00", "#444")

    def place(x: float, y: float) -> str:
        return f"{_PAD + x / x_max * _SIZE:.1f},{_PAD + (1 - y) * _SIZE:.1f}"

    side = _SIZE + 2 * _PAD
    parts = [f'<svg role="img" aria-label="{html.escape(title)}" width="{side + 120}" height="{side}">']
    parts.append(f'<rect x="{_PAD}" y="{_PAD}" width="{_SIZE}" height="{_SIZE}" fill="none" stroke="#999"/>')
    parts.append(f'<text x="{_PAD}" y="{_PAD - 12}">{html.escape(title)}</text>')
    parts.append(f'<text x="{_PAD}" y="{side - 10}">0 … {x_max:g} {html.escape(x_label)}</text>')
    if diagonal:
        parts.append(f'<polyline points="{place(0, 0)} {place(x_max, 1)}" fill="none" stroke="#999"/>')
    for i, (name, (x, y)) in enumerate(curves.items()):
        colour = colours[i % len(colours)]
        points = " ".join(place(float(a), float(b)) for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        label = f'x="{_PAD + _SIZE + 8}" y="{_PAD + 16 + 18 * i}" fill="{colour}"'
        parts.append(f"<text {label}>{html.escape(name)}</text>")
    return "".join(parts) + "</svg>"


def reliability(p_by_group: dict[str, list[F64]]) -> str:
    """SVG: share of p-values at most u against u, by group; under the diagonal is conservative."""
    u = np.linspace(0, 1, 101)
    curves = {}
    for name, parts in p_by_group.items():
        p = np.sort(np.concatenate([np.zeros(0), *parts]))
        if p.shape[0]:
            curves[name] = (u, np.searchsorted(p, u, side="right") / p.shape[0])
    return _curve("share of p-values at most u", "u", curves, 1.0, diagonal=True)


def delay_curves(delays: dict[str, F64], horizon: int = 128) -> str:
    """SVG: share of faults caught within a number of steps, by kind."""
    steps = np.arange(horizon + 1, dtype=np.float64)
    curves = {k: (steps, (d[None] <= steps[:, None]).mean(axis=1)) for k, d in delays.items() if d.shape[0]}
    return _curve("share caught within", "steps after the onset", curves, float(horizon), diagonal=False)


def _row(name: str, entry: dict[str, Any]) -> str:
    cells = [name, str(entry["sessions"]), str(entry["steps"]), f"{entry['ks_one_sided']:.3f}"]
    for level in LEVELS:
        found = entry.get(str(level))
        cells.append("none" if found is None else f"{found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}]")
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"


def page(found: dict[str, Any], p_by_group: dict[str, list[F64]], delays: dict[str, F64]) -> str:
    """The whole page; `found` is what `cross_validate` answers and is shown as it is."""
    head = "".join(
        f"<th>{text}</th>"
        for text in ("group", "sessions", "steps", "KS one-sided", *(f"P(p ≤ {a}) / {a}" for a in LEVELS))
    )
    rows = "".join(_row(name, coverage(parts)) for name, parts in p_by_group.items())
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>tcd calibration</title>'
        f"<style>{_STYLE}</style><h1>Calibration, on prompts the fit has not seen</h1>"
        f"<p>{html.escape(str(found['source']))}</p>"
        f"<h2>Step p-values of healthy text</h2><table><tr>{head}</tr>{rows}</table>"
        f"{reliability(p_by_group)}<h2>Detection delay of the fast alarm</h2>{delay_curves(delays)}"
        f"<h2>All numbers</h2><pre>{html.escape(json.dumps(found, indent=1))}</pre></html>"
    )
