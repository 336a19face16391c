"""Fits detector and multivariate assets from recorded generations, split by prompt.

Scales, weights, mean and covariance come from the prompts of the fit part, conformal tables and the fast-alarm
level from those of the conformal part: no prompt is in both (statistics.md §3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd import __version__
from tcd.calibration import logistic
from tcd.calibration.assets import Binding, DetectorAsset, MaskCalibration, MultivariateAsset, Provenance
from tcd.calibration.conformal import p_value, upper_quantile
from tcd.calibration.store import load_assets, write_asset, write_manifest
from tcd.calibration.traces import Sequence, Traces, load_traces, replay
from tcd.contract import Length, Signal
from tcd.detector import statistics
from tcd.detector.step import combine, standardise
from tcd.detector.windows import BLOCK, counts_of
from tcd.errors import AssetError
from tcd.multivariate import cholesky, ledoit_wolf
from tcd.multivariate.step import distances
from tcd.routing import DEFAULT_POLICY

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_CHUNK: Final = 256
_DRAFT: Final = "sha256:" + "0" * 64
ALL_MASKS: Final = tuple(range(1, 16))


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Choices of a fit.

    Attributes:
        ridge: penalty of the logistic combination.
        stride: every n-th step of a sequence trains the combination (neighbours are nearly equal).
        alarms: healthy conformal steps per false alarm; twice the budget of one in 1,000, because a level that is
            fitted on few prompts sounds more often on others.
        smoothing: r of the multivariate monitor's MEWMA, 1 = the newest row alone.
        threshold_alpha: level of the multivariate monitor's own threshold.
        thin: every n-th healthy step enters the components' tables, which need no fine tail.
        least: fewest sessions that a conformal part must have.
        first: first step after the onset at which a fault counts as visible in training.
        last: last such step.
        masks: signal masks to fit; rows of another mask answer UNKNOWN_MASK.
    """

    ridge: float = 3e-4
    stride: int = 4
    alarms: int = 2000
    smoothing: float = 1.0
    threshold_alpha: float = 0.01
    thin: int = 8
    least: int = 4
    first: int = 4
    last: int = 48
    masks: tuple[int, ...] = ALL_MASKS


@dataclass(frozen=True, slots=True)
class Steps:
    """Raw statistics of all steps of one sequence past the warm-up of the caller's windows."""

    sequence: Sequence
    raw: statistics.Raw
    windows: F64
    rows: I64


@dataclass(frozen=True, slots=True)
class Split:
    """Prompts of the parts of a fit; disjoint."""

    fit: frozenset[str]
    conformal: frozenset[str]
    held_out: frozenset[str] = field(default_factory=frozenset)


def split_prompts(prompts: Iterable[str], *, seed: int = 0, held_out: Iterable[str] = ()) -> Split:
    """Split prompts in halves by the hash of their names; those held out are in neither."""
    kept_out = frozenset(held_out)
    names = sorted(
        {p for p in prompts if p not in kept_out}, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).digest()
    )
    middle = len(names) // 2
    return Split(frozenset(names[:middle]), frozenset(names[middle:]), kept_out)


def steps_of(sequence: Sequence) -> Steps:
    """Raw statistics of every step of a sequence, made by the serving code from the windows a caller would send."""
    values, valid = [], []
    for start in range(0, sequence.steps, _CHUNK):
        tensors = replay(sequence, start, min(start + _CHUNK, sequence.steps))
        names = ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES")
        trace, entropy, spectrum, features = (tensors[name] for name in names)
        widths = {name.lower(): tensors[name].shape[1] for name in names}
        raw = statistics.compute(trace, entropy, spectrum, features, counts_of(tensors["LENGTHS"], **widths))
        values.append(raw.values)
        valid.append(raw.valid)
    everything = statistics.Raw(np.concatenate(values), np.concatenate(valid), np.zeros(sequence.steps, np.bool_))
    windows = sequence.features.astype(np.float64)
    return Steps(sequence, everything, windows, np.arange(1, sequence.steps + 1))


def _ready(steps: Steps) -> I64:
    """Indices of healthy steps after the warm-up."""
    return np.arange(min(BLOCK - 1, steps.sequence.healthy), steps.sequence.healthy)


def _stack(parts: list[Steps], chosen: list[I64]) -> statistics.Raw:
    return statistics.Raw(
        np.concatenate([s.raw.values[i] for s, i in zip(parts, chosen, strict=True)]),
        np.concatenate([s.raw.valid[i] for s, i in zip(parts, chosen, strict=True)]),
        np.zeros(sum(i.shape[0] for i in chosen), np.bool_),
    )


def _training(parts: list[Steps], options: FitOptions) -> tuple[statistics.Raw, Bool, F64]:
    """Statistics, labels and weights: healthy steps weigh a half together, kinds of faults share the other half."""
    owners: list[Steps] = []
    chosen: list[I64] = []
    kinds: list[str] = []
    for steps in parts:
        sequence = steps.sequence
        owners.append(steps)
        chosen.append(_ready(steps)[:: options.stride])
        kinds.append("")
        if sequence.onset >= 0 and sequence.kind not in {"control", "healthy", "greedy"}:
            first = max(sequence.onset + options.first, BLOCK - 1)
            owners.append(steps)
            chosen.append(np.arange(first, min(sequence.onset + options.last, sequence.steps), options.stride))
            kinds.append(sequence.kind)
    labels = np.concatenate([np.full(i.shape[0], kind) for i, kind in zip(chosen, kinds, strict=True)])
    weight = np.zeros(labels.shape[0])
    faults = sorted(set(labels.tolist()) - {""})
    for kind in ("", *faults):
        here = labels == kind
        weight[here] = 0.5 / here.sum() / (1 if kind == "" else len(faults))
    return _stack(owners, chosen), labels != "", weight


def _sizes(parts: list[Steps]) -> int:
    widths = {s.sequence.features.shape[1] for s in parts}
    if len(widths) != 1:
        msg = f"feature vectors of several widths: {sorted(widths)}"
        raise AssetError(msg)
    return int(widths.pop())


def _maxima(values: F64, owner: I64, count: int) -> F64:
    """Maximum of `values` per owner 0..count-1; owners without any value are left out. Ascending."""
    out = np.full(count, -np.inf)
    np.maximum.at(out, owner, values)
    return np.sort(out[np.isfinite(out)])


@dataclass(frozen=True, slots=True)
class _Conformal:
    """Healthy steps of the conformal part: statistics, the session each belongs to, distances."""

    raw: statistics.Raw
    session: I64
    complete: Bool
    sessions: int
    horizon: int
    distance: F64


def _conformal(parts: list[Steps], reference: MultivariateAsset) -> _Conformal:
    used = [s for s in parts if s.sequence.healthy >= BLOCK]
    chosen = [_ready(s) for s in used]
    session = np.concatenate([np.full(i.shape[0], n) for n, i in enumerate(chosen)])
    complete = np.concatenate([np.full(i.shape[0], s.sequence.complete) for s, i in zip(used, chosen, strict=True)])
    return _Conformal(
        raw=_stack(used, chosen),
        session=session,
        complete=complete,
        sessions=sum(s.sequence.complete for s in used),
        horizon=max(s.sequence.healthy for s in used),
        distance=np.concatenate([healthy_distances(s, i, reference) for s, i in zip(used, chosen, strict=True)]),
    )


def healthy_distances(steps: Steps, chosen: I64, reference: MultivariateAsset) -> F64:
    """Distances of a run of consecutive steps, made by the serving code."""
    tensors = replay(steps.sequence, int(chosen[0]), int(chosen[-1]) + 1)
    return distances(reference, tensors["FEATURES"], tensors["LENGTHS"][:, Length.FEATURE_ROWS].astype(np.int64))


def _level(merged: F64, alarms: int) -> float:
    """Largest level that sounds on at most one healthy step in `alarms`."""
    ordered = np.sort(merged)
    return float(np.nextafter(ordered[ordered.shape[0] // alarms], 0.0))


def _fit_reference(parts: list[Steps], provenance: Provenance, options: FitOptions) -> MultivariateAsset:
    rows = np.concatenate([s.windows[: s.sequence.healthy] for s in parts])
    estimate = ledoit_wolf(rows)
    factor, jitter = cholesky(estimate.covariance)
    empty = np.zeros(0)
    return MultivariateAsset(
        digest=_DRAFT,
        provenance=provenance,
        mean=estimate.mean,
        cholesky=factor,
        shrinkage=estimate.shrinkage,
        smoothing=options.smoothing,
        jitter=jitter,
        steps=empty,
        sessions=empty,
        threshold=0.0,
        threshold_alpha=options.threshold_alpha,
    )


def _with_tables(draft: MultivariateAsset, conformal: _Conformal, provenance: Provenance) -> MultivariateAsset:
    table = np.sort(conformal.distance)
    owners = int(conformal.session.max()) + 1
    whole = conformal.complete
    return MultivariateAsset(
        digest=draft.digest,
        provenance=provenance,
        mean=draft.mean,
        cholesky=draft.cholesky,
        shrinkage=draft.shrinkage,
        smoothing=draft.smoothing,
        jitter=draft.jitter,
        steps=table,
        sessions=_maxima(conformal.distance[whole], conformal.session[whole], owners),
        threshold=upper_quantile(table, draft.threshold_alpha),
        threshold_alpha=draft.threshold_alpha,
    )


def _fit_mask(
    number: int,
    draft: DetectorAsset,
    training: tuple[F64, Bool, F64],
    conformal: _Conformal,
    reference: MultivariateAsset,
    options: FitOptions,
) -> MaskCalibration:
    z, faulty, weight = training
    usable = statistics.usable(number)
    intercept, linear, quadratic = logistic.fit(z[:, usable], faulty, weight, ridge=options.ridge)
    full_linear, full_quadratic = np.zeros(z.shape[1]), np.zeros(z.shape[1])
    full_linear[usable], full_quadratic[usable] = linear, quadratic
    empty = np.zeros(0)
    bare = MaskCalibration(number, intercept, full_linear, full_quadratic, empty, empty, (), 0.0)
    everyone = np.arange(conformal.session.shape[0])
    statistic, parts = combine(bare, standardise(draft, conformal.raw, everyone))
    table = np.sort(statistic)
    merged = 2.0 * p_value(table, statistic)
    if number & int(Signal.FEATURES):
        merged = np.minimum(merged, 2.0 * p_value(reference.steps, conformal.distance))
    whole = conformal.complete
    components = []
    for columns, part in zip(statistics.SLICES, parts.T, strict=True):
        components.append(np.sort(part[:: options.thin]) if usable[columns].any() else empty)
    return MaskCalibration(
        mask=number,
        intercept=intercept,
        linear=full_linear,
        quadratic=full_quadratic,
        steps=table,
        sessions=_maxima(statistic[whole], conformal.session[whole], int(conformal.session.max()) + 1),
        components=tuple(components),
        level=_level(np.minimum(merged, 1.0), options.alarms),
    )


def fit_traces(
    steps: list[Steps],
    split: Split,
    source: str,
    *,
    demo: bool,
    options: FitOptions,
    notes: str = "",
) -> tuple[DetectorAsset, MultivariateAsset]:
    """Fit both assets from the steps of all sequences.

    Raises:
        AssetError: if a part of the split has too few healthy sessions.
    """
    fitting = [s for s in steps if s.sequence.prompt_id in split.fit]
    checking = [s for s in steps if s.sequence.prompt_id in split.conformal]
    healthy = [s for s in fitting if s.sequence.healthy >= BLOCK]
    if len(healthy) < options.least or sum(s.sequence.complete for s in checking) < options.least:
        msg = f"fewer than {options.least} healthy sessions in a part of the split"
        raise AssetError(msg)
    empty = Provenance(source, 0, 0, 0, __version__, demo, notes)
    draft_reference = _fit_reference(healthy, empty, options)
    conformal = _conformal(checking, draft_reference)
    provenance = Provenance(
        source, conformal.session.shape[0], conformal.sessions, conformal.horizon, f"tcd {__version__}", demo, notes
    )
    reference = _with_tables(draft_reference, conformal, provenance)
    scales = _stack(healthy, [_ready(s) for s in healthy])
    location, scale = logistic.robust_scale(scales.values, scales.valid)
    draft = DetectorAsset(_DRAFT, provenance, statistics.NAMES, location, scale, _sizes(steps), {})
    raw, faulty, weight = _training(fitting, options)
    training = (standardise(draft, raw, np.arange(faulty.shape[0])), faulty, weight)
    fitted = {n: _fit_mask(n, draft, training, conformal, reference, options) for n in options.masks}
    return DetectorAsset(_DRAFT, provenance, statistics.NAMES, location, scale, draft.features, fitted), reference


def fit_directory(
    data_dir: Path,
    out_dir: Path,
    *,
    key: int,
    level: int,
    default: bool = False,
    demo: bool = False,
    projection: str | None = None,
    held_out: Iterable[str] = (),
    options: FitOptions | None = None,
    traces: Traces | None = None,
) -> str:
    """Fit assets from a directory of traces and point `out_dir` at them.

    Args:
        data_dir: recorded generations, see `tcd.calibration.traces`.
        out_dir: asset directory; made if needed, its manifest is replaced.
        key: value of the detector key at `level` (`tcd.contract.detector_key(...)[level]`).
        level: level of the key that the traces stand for; a match at this level is no fall-back.
        default: whether keys that match nothing are answered by these assets too, as a fall-back.
        demo: mark the assets as a demonstration.
        projection: digest of a projection asset in `out_dir` that the features were made with.
        held_out: prompts left out of both parts, for evaluation.
        options: choices of the fit.
        traces: the traces of `data_dir`, where they are loaded already.

    Returns:
        Digest of the manifest.

    Raises:
        AssetError: if the traces cannot be read or are too few.
    """
    traces = traces or load_traces(data_dir)
    split = split_prompts(traces.prompts, held_out=held_out)
    notes = f"held out prompts: {' '.join(sorted(split.held_out))}" if split.held_out else ""
    steps = [steps_of(s) for s in traces.sequences]
    detector, reference = fit_traces(
        steps, split, traces.source, demo=demo, options=options or FitOptions(), notes=notes
    )
    digests = write_asset(out_dir, detector), write_asset(out_dir, reference)
    binding = Binding(key, level, *digests)
    manifest = write_manifest(
        out_dir,
        bindings=[binding],
        default=binding if default else None,
        policies={0: write_asset(out_dir, DEFAULT_POLICY)},
        projections=[projection] if projection else [],
    )
    load_assets(out_dir)
    return manifest


__all__ = ["FitOptions", "Split", "fit_directory", "fit_traces", "healthy_distances", "split_prompts", "steps_of"]
