"""The detector on recorded generations: the measures of its targets, each with its interval, beside simple peers.

Without assets every prompt is scored by a fit that has not seen it; with assets nothing is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet
from tcd.calibration.evaluate import (
    REARM,
    Scored,
    evaluate_fold,
    folds_of,
    realised,
    score_sequence,
    summarise,
)
from tcd.calibration.fit import Steps, steps_of
from tcd.calibration.report import interval
from tcd.calibration.traces import load_traces
from tcd.detector.windows import BLOCK
from tcd.errors import AssetError

F64 = NDArray[np.float64]
#: Signal masks of the ablation.
MASKS: Final = {"all signals": 15, "without features": 7, "log-probability and entropy": 3, "log-probability": 1}
_KINDS: Final = ("loop", "temperature", "severe", "mild", "shift")
_LEVELS: Final = (0.1, 0.05, 0.01)
_SMOOTHING: Final = 0.1


def _chart(values: F64) -> F64:
    """EWMA of a standardised signal, two-sided."""
    out, state = np.empty(values.shape[0]), 0.0
    for i, value in enumerate(values):
        state += _SMOOTHING * (value - state)
        out[i] = abs(state)
    return out


def _cusum(values: F64) -> F64:
    """The larger of the two one-sided CUSUMs with reference value 1/2."""
    out, up, down = np.empty(values.shape[0]), 0.0, 0.0
    for i, value in enumerate(values):
        up, down = max(0.0, up + value - 0.5), max(0.0, down - value - 0.5)
        out[i] = max(up, down)
    return out


#: Peer -> its statistic of a standardised entropy.
PEERS: Final[dict[str, Callable[[F64], F64]]] = {"entropy EWMA": _chart, "entropy CUSUM": _cusum}


def _peer(steps: Sequence[Steps], statistic: Callable[[F64], F64]) -> list[Scored]:
    healthy = np.concatenate([s.sequence.entropy[: s.sequence.healthy] for s in steps])
    mean, scale = float(healthy.mean()), float(healthy.std())
    out = []
    for s in steps:
        values = statistic((s.sequence.entropy.astype(np.float64) - mean) / scale)
        values[: BLOCK - 1] = -np.inf
        out.append(
            Scored(
                steps=s,
                statistic=values,
                merged=np.ones(values.shape[0]),
                level=0.0,
                session_p=1.0,
                p=np.ones(values.shape[0]),
            )
        )
    return out


def _validity(scored: Sequence[Scored], kinds: tuple[str, ...]) -> dict[str, Any]:
    """P(p <= a)/a of healthy steps, with the 95 % interval of a bootstrap over prompts; lag-1 correlation."""
    groups: dict[str, list[F64]] = {}
    pairs: list[F64] = []
    for one in scored:
        sequence = one.steps.sequence
        p = one.merged[BLOCK - 1 : sequence.healthy]
        if sequence.kind in kinds and p.shape[0] > 1:
            groups.setdefault(sequence.prompt_id, []).append(p)
            pairs.append(np.stack([p[:-1], p[1:]]))
    if not groups:
        return {"steps": 0}
    prompts = [np.concatenate(parts) for parts in groups.values()]
    sizes = np.array([p.shape[0] for p in prompts])
    drawn = np.random.default_rng(0).integers(len(prompts), size=(1000, len(prompts)))
    out: dict[str, Any] = {"steps": int(sizes.sum()), "prompts": len(prompts)}
    for level in _LEVELS:
        hits = np.array([(p <= level).sum() for p in prompts])
        ratios = hits[drawn].sum(1) / sizes[drawn].sum(1) / level
        out[str(level)] = [hits.sum() / sizes.sum() / level, *np.quantile(ratios, [0.025, 0.975]).tolist()]
    both = np.concatenate(pairs, axis=1)
    out["lag_1"] = float(np.corrcoef(both)[0, 1])
    return out


def _row(scored: list[Scored]) -> dict[str, Any]:
    """Detection at one realised false alarm per 1,000 healthy tokens, and AUROC."""
    summary = summarise(scored)
    return {
        "realised": realised(scored, REARM),
        "auroc": summary["auroc"],
        "auroc_loops_greedy": summary["auroc_loops_greedy"],
    }


def _as_shipped(scored: list[Scored]) -> dict[str, Any]:
    """What the fast alarm does at the level of the assets."""
    summary = summarise(scored)
    out = {name: summary[name] for name in ("healthy_steps", "alarms_per_1000", "episodes_per_1000")}
    for kind in _KINDS:
        if kind in summary:
            n = summary[kind]["n"]
            cells = {
                w: [summary[kind][w], *interval(round(summary[kind][w] * n), n)] for w in ("within_32", "within_64")
            }
            out[kind] = {"n": n, "delay": summary[kind]["delay"], **cells}
    return out


def measure(data: Path, *, assets: AssetSet | None = None, folds: int = 4, small: bool = False) -> dict[str, Any]:
    """Measure a directory of recorded generations.

    Args:
        data: the directory.
        assets: score with the first detector of these; None fits per fold, without the prompts that are scored.
        folds: of the cross-validation.
        small: only the full mask and one peer.

    Raises:
        AssetError: if the data cannot be read or are too few, or the assets have no detector.
    """
    traces = load_traces(data)
    steps = [steps_of(s) for s in traces.sequences]
    if assets is not None and not (assets.detectors and assets.multivariates):
        msg = "the assets have no detector with its reference"
        raise AssetError(msg)

    def scored(mask: int) -> list[Scored]:
        if assets is not None:
            detector, reference = next(iter(assets.detectors.values())), next(iter(assets.multivariates.values()))
            return [score_sequence(s, detector, reference, mask) for s in steps]
        parts = [evaluate_fold(steps, held_out, mask=mask) for held_out in folds_of(traces.prompts, folds)]
        return [one for part in parts for one in part]

    masks = {"all signals": 15} if small else MASKS
    found = {name: scored(mask) for name, mask in masks.items()}
    rows = {name: _row(one) for name, one in found.items()}
    peers = dict(list(PEERS.items())[:1]) if small else PEERS
    rows |= {name: _row(_peer(steps, statistic)) for name, statistic in peers.items()}
    full = found["all signals"]
    return {
        "source": traces.source,
        "sequences": len(steps),
        "prompts": len(traces.prompts),
        "scored_by": "cross-validation over prompts" if assets is None else assets.manifest_digest,
        "rows": rows,
        "fast_alarm": _as_shipped(full),
        "p_values": {
            "healthy": _validity(full, ("healthy",)),
            "greedy": _validity(full, ("greedy", "loop", "soft")),
        },
    }


def _cell(cell: list[float]) -> str:
    return f"{cell[0]:.2f} ({cell[1]:.2f}-{cell[2]:.2f})"


def markdown(found: dict[str, Any]) -> str:
    """The result as tables."""
    lines = [
        f"{found['sequences']} generations of {found['prompts']} prompts ({found['source']}).",
        f"Scored by {found['scored_by']}.",
        "",
        "At one false alarm per 1,000 healthy tokens realised on these prompts (95 % Clopper-Pearson):",
        "",
        "| | loop@32 / delay | temperature@32 / delay | severe@32, @64 / delay | mild@64 | AUROC | loops, greedy |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        kinds = row["realised"]
        cells = []
        for kind, windows in (
            ("loop", ("within_32",)),
            ("temperature", ("within_32",)),
            ("severe", ("within_32", "within_64")),
            ("mild", ("within_64",)),
        ):
            got = kinds.get(kind)
            tail = "" if got is None or kind == "mild" else f" / {'-' if got['delay'] is None else int(got['delay'])}"
            cells.append("-" if got is None else ", ".join(_cell(got[w]) for w in windows) + tail)
        lines.append(f"| {name} | {' | '.join(cells)} | {row['auroc']:.3f} | {row['auroc_loops_greedy']:.3f} |")
    alarm = found["fast_alarm"]
    lines += [
        "",
        f"The fast alarm at its own level, per 1,000 of {alarm['healthy_steps']} healthy tokens:",
        f"{alarm['episodes_per_1000']:.2f} episodes, {alarm['alarms_per_1000']:.2f} alarmed steps.",
        "",
        "| P(p ≤ a)/a of the merged step p | .1 | .05 | .01 | lag-1 | steps |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["p_values"].items():
        if row["steps"]:
            cells = [_cell(row[str(level)]) for level in _LEVELS]
            lines.append(f"| {name} | {' | '.join(cells)} | {row['lag_1']:.2f} | {row['steps']} |")
    return "\n".join(lines) + "\n"
