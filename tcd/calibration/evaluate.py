"""What a fit does on prompts it has not seen: cross-validation over prompts, with the measures of detector.md §4."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration import report
from tcd.calibration.alarms import REARM, alarm_count
from tcd.calibration.assets import DetectorAsset, MultivariateAsset
from tcd.calibration.conformal import p_value, session_p
from tcd.calibration.fit import Split, fit_traces, healthy_distances, split_prompts
from tcd.calibration.options import FitOptions
from tcd.calibration.report import interval
from tcd.calibration.steps import Steps, steps_of
from tcd.calibration.traces import Traces
from tcd.contract import Signal
from tcd.detector.step import combine, standardise
from tcd.detector.windows import BLOCK
from tcd.routing import DEFAULT_POLICY
from tcd.routing.step import merge

F64 = NDArray[np.float64]

_FAULTS: Final = ("loop", "soft", "temperature", "severe", "mild", "shift")
#: Steps after the onset whose statistics count as positives of an AUROC.
_POSITIVE: Final = (8, 96)


@dataclass(frozen=True, slots=True)
class Scored:
    """One sequence scored by assets that have not seen its prompt.

    Attributes:
        steps: the sequence.
        statistic, p, merged: by step, the p-values of the detector and of both monitors (by the default policy).
        level: merged p at or under which the fast alarm sounds.
        session_p: of the detector, for the sequence's healthy steps.
        maximum: the statistic's maximum over these, -inf where there is none.
        hypothesis_p: of both monitors, as served: what the controller judges.
    """

    steps: Steps
    statistic: F64
    merged: F64
    level: float
    session_p: float
    p: F64
    maximum: float = -np.inf
    hypothesis_p: float = 1.0

    @property
    def alarms(self) -> NDArray[np.bool_]:
        """Steps on which the fast alarm sounds."""
        return np.asarray(self.merged <= self.level)


def auroc(positive: F64, negative: F64) -> float:
    """P(positive > negative) + P(equal) / 2; NaN when a side is empty."""
    if not positive.shape[0] or not negative.shape[0]:
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left") + np.searchsorted(ordered, positive, side="right")
    return float(below.mean() / 2 / negative.shape[0])


def score_sequence(
    steps: Steps,
    detector: DetectorAsset,
    reference: MultivariateAsset | None,
    mask: int,
    *,
    weight: float = DEFAULT_POLICY.weight,
) -> Scored:
    """Score every step of a sequence; steps in the warm-up have merged p = 1 and a statistic of -inf.

    Args:
        steps: the sequence.
        detector: the detector's asset.
        reference: the monitor's, None for none.
        mask: the signals that are used.
        weight: the detector's in the merge.

    Raises:
        KeyError: if the detector asset has no calibration for the mask.
    """
    calibration = detector.masks[mask]
    n = steps.sequence.steps
    statistic, far_p, p = np.full(n, -np.inf), np.ones(n), np.ones(n)
    healthy, monitor_p = steps.sequence.healthy, 1.0
    ready = np.arange(min(BLOCK - 1, n), n)
    if ready.shape[0]:
        statistic[ready], _ = combine(calibration, standardise(detector, steps.raw, ready))
        p[ready] = p_value(calibration.steps, statistic[ready])
        if reference is not None and mask & int(Signal.FEATURES):
            distance = healthy_distances(steps, ready, reference)
            far_p[ready] = p_value(reference.steps, distance)
            if healthy > ready[0]:
                far = distance[: healthy - ready[0]].max(keepdims=True)
                monitor_p = float(session_p(reference.sessions, reference.adjusted, far)[0])
    top = float(statistic[:healthy].max(initial=-np.inf))
    found = session_p(calibration.sessions, calibration.adjusted, np.array([top]))
    session = float(found[0]) if np.isfinite(top) else 1.0
    hypothesis = float(merge(np.array(session), np.array(monitor_p), weight))
    merged = merge(p, far_p, weight)
    return Scored(steps, statistic, merged, calibration.level, session, p, top, hypothesis)


def _delays(scored: list[Scored], kind: str) -> F64:
    """Steps from onset to the first alarm, infinity when there is none."""
    out = []
    for one in scored:
        sequence = one.steps.sequence
        if sequence.kind == kind and 0 <= sequence.onset < sequence.steps:
            after = np.flatnonzero(one.alarms[sequence.onset :])
            out.append(float(after[0]) if after.shape[0] else np.inf)
    return np.array(out)


def fault_delays(scored: list[Scored]) -> dict[str, F64]:
    """Steps from the onset to the first alarm by kind of fault, infinity for none; kinds that are there."""
    found = {kind: _delays(scored, kind) for kind in _FAULTS}
    return {kind: delays for kind, delays in found.items() if delays.shape[0]}


def _positives(scored: list[Scored], kinds: tuple[str, ...]) -> F64:
    parts = [np.zeros(0)]
    for one in scored:
        sequence = one.steps.sequence
        if sequence.kind in kinds and sequence.onset >= 0:
            first = max(sequence.onset + _POSITIVE[0], BLOCK - 1)
            parts.append(one.statistic[first : sequence.onset + _POSITIVE[1]])
    return np.concatenate(parts)


def _negatives(scored: list[Scored]) -> F64:
    return np.concatenate([np.zeros(0), *(s.statistic[BLOCK - 1 : s.steps.sequence.healthy] for s in scored)])


def _sounded(scored: list[Scored], threshold: float, rearm: int) -> int:
    """Alarms on healthy steps; one holds its successors back for `rearm` steps."""
    return sum(alarm_count(s.statistic[: s.steps.sequence.healthy] > threshold, rearm) for s in scored)


def realised(scored: list[Scored], rearm: int, *, tokens: int = 1000) -> dict[str, Any]:
    """Detection where the statistic's threshold realises one false alarm in `tokens` healthy tokens of these prompts.

    Args:
        scored: sequences whose prompts their assets have not seen.
        rearm: steps after an alarm in which no other counts; 0 counts every step above the threshold.
        tokens: healthy tokens per false alarm.

    Returns:
        `threshold`, `per_1000`, and per kind `n`, `within_32` and `within_64` as [share, low, high] (95 %
        Clopper-Pearson over generations), `delay` (median steps, None for infinite).
    """
    negatives = np.sort(_negatives(scored))
    allowed = negatives.shape[0] // tokens
    # the count falls with the threshold: bisect over the healthy statistics themselves
    low, high = 0, negatives.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if _sounded(scored, float(negatives[middle]), rearm) > allowed:
            low = middle + 1
        else:
            high = middle
    threshold = float(negatives[low])
    share = _sounded(scored, threshold, rearm) / negatives.shape[0]
    out: dict[str, Any] = {"threshold": threshold, "per_1000": 1000.0 * share}
    for kind in _FAULTS:
        delays = _delays([replace(one, merged=-one.statistic, level=-threshold - 1e-9) for one in scored], kind)
        if delays.shape[0]:
            n, median = int(delays.shape[0]), float(np.median(delays))
            out[kind] = {"n": n, "delay": median if np.isfinite(median) else None}
            for horizon in (32, 64):
                hits = int((delays <= horizon).sum())
                out[kind][f"within_{horizon}"] = [hits / n, *interval(hits, n)]
    return out


def summarise(scored: list[Scored]) -> dict[str, Any]:
    """Measures of a set of scored sequences.

    Returns:
        `alarms_per_1000` (steps) and `episodes_per_1000` (runs of alarms) on healthy steps, `healthy_steps`;
        per kind of fault `n`, `within_32`, `within_64`, `delay` (median, None for infinite), `auroc`; `auroc` of all;
        `auroc_loops_greedy`: loops against healthy steps of generations that ended up in loops or are greedy;
        `realised`: detection at one false alarm in 1,000 healthy tokens, see `realised`;
        `session_p`: share of complete healthy sessions with p at most .1 and .2.
    """
    healthy = [s.alarms[BLOCK - 1 : s.steps.sequence.healthy] for s in scored]
    count = sum(h.shape[0] for h in healthy)
    sounded = sum(int(h.sum()) for h in healthy)
    episodes = sum(int((np.diff(h.astype(np.int8), prepend=0) == 1).sum()) for h in healthy)
    negatives = _negatives(scored)
    out: dict[str, Any] = {
        "healthy_steps": count,
        "alarms_per_1000": 1000.0 * sounded / max(count, 1),
        "episodes_per_1000": 1000.0 * episodes / max(count, 1),
        "auroc": auroc(_positives(scored, _FAULTS), negatives),
    }
    looping = [s for s in scored if s.steps.sequence.kind in {"loop", "soft", "greedy"}]
    out["auroc_loops_greedy"] = auroc(_positives(scored, ("loop",)), _negatives(looping))
    for kind in _FAULTS:
        delays = _delays(scored, kind)
        if delays.shape[0]:
            median = float(np.median(delays))
            out[kind] = {
                "n": int(delays.shape[0]),
                "within_32": float((delays <= 32).mean()),  # noqa: PLR2004 - the targets' horizons
                "within_64": float((delays <= 64).mean()),  # noqa: PLR2004
                "delay": median if np.isfinite(median) else None,
                "auroc": auroc(_positives(scored, (kind,)), negatives),
            }
    out["realised"] = {
        unit: realised(scored, rearm) for unit, rearm in (("steps", 0), ("alarms", REARM)) if negatives.shape[0]
    }
    whole = np.array([s.session_p for s in scored if s.steps.sequence.complete])
    out["session_p"] = {str(a): float((whole <= a).mean()) for a in (0.1, 0.2)} if whole.shape[0] else {}
    return out


def folds_of(prompts: tuple[str, ...], folds: int) -> list[frozenset[str]]:
    """Prompts dealt into folds by the hash of their names."""
    order = sorted(prompts, key=lambda p: hashlib.sha256(f"fold:{p}".encode()).digest())
    return [frozenset(order[i::folds]) for i in range(folds)]


def evaluate_fold(
    steps: list[Steps], held_out: frozenset[str], *, mask: int, options: FitOptions | None = None
) -> list[Scored]:
    """Fit without some prompts and score exactly those.

    Raises:
        AssetError: if too few sessions are left to fit.
    """
    prompts = sorted({s.sequence.prompt_id for s in steps})
    split: Split = split_prompts(prompts, held_out=held_out)
    detector, reference = fit_traces(
        steps, split, "fold", demo=True, options=replace(options or FitOptions(), masks=(mask,))
    )
    return [score_sequence(s, detector, reference, mask) for s in steps if s.sequence.prompt_id in held_out]


def healthy_p(scored: list[Scored]) -> dict[str, list[F64]]:
    """Step p-values of healthy text by session: of generations that stay healthy, of greedy and looping ones."""
    out: dict[str, list[F64]] = {"healthy": [], "greedy or looping later": []}
    for one in scored:
        sequence = one.steps.sequence
        if sequence.healthy >= BLOCK:
            greedy = sequence.kind in {"greedy", "loop", "soft"}
            out["greedy or looping later" if greedy else "healthy"].append(one.p[BLOCK - 1 : sequence.healthy])
    return out


def cross_validate(
    traces: Traces, *, folds: int = 4, mask: int = 15, options: FitOptions | None = None
) -> tuple[dict[str, Any], str]:
    """Score every prompt with a fit that has not seen it, and summarise all of them.

    Returns:
        The numbers, and the report as an HTML page.

    Raises:
        AssetError: if the traces are too few.
    """
    steps = [steps_of(s) for s in traces.sequences]
    scored: list[Scored] = []
    for held_out in folds_of(traces.prompts, folds):
        scored.extend(evaluate_fold(steps, held_out, mask=mask, options=options))
    groups = healthy_p(scored)
    found = {"source": traces.source, "mask": mask, "folds": folds, **summarise(scored)}
    found["p_values"] = {name: report.coverage(parts) for name, parts in groups.items()}
    found = report.plain(found)
    served = np.array([s.hypothesis_p for s in scored if s.steps.sequence.complete and np.isfinite(s.maximum)])
    return found, report.page(found, groups, fault_delays(scored), {"as served": served})
