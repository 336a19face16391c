"""Fits detector and multivariate assets from recorded generations, split by prompt.

Scales, weights, mean and covariance come from the prompts of the fit part, conformal tables and the fast-alarm
level from those of the conformal part: no prompt is in both (statistics.md §3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd import __version__
from tcd.calibration.alarms import alarm_count
from tcd.calibration.assets import Binding, DetectorAsset, MaskCalibration, MultivariateAsset, Provenance
from tcd.calibration.conditional import with_confidence
from tcd.calibration.conformal import p_value, upper_quantile
from tcd.calibration.heads import Training, heads_of, more_of, training_of
from tcd.calibration.options import FitOptions
from tcd.calibration.steps import Steps, ready, scales, stack, steps_of
from tcd.calibration.store import default_asset_dir, load_assets, write_asset, write_manifest
from tcd.calibration.traces import Traces, load_traces, replay
from tcd.contract import Length, Signal
from tcd.detector import statistics
from tcd.detector.step import combine, standardise
from tcd.detector.windows import BLOCK
from tcd.errors import AssetError
from tcd.multivariate import cholesky, ledoit_wolf
from tcd.multivariate.step import distances
from tcd.routing import DEFAULT_POLICY
from tcd.routing.step import merge

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_DRAFT: Final = "sha256:" + "0" * 64
#: Largest table of steps: an alarm per 2,000 steps is then the 16th largest value.
_LARGEST_TABLE: Final = 32_768
#: Steps after an onset that train a combination with features.
_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Split:
    """Prompts of the parts of a fit; disjoint."""

    fit: frozenset[str]
    conformal: frozenset[str]
    held_out: frozenset[str] = field(default_factory=frozenset)


def split_prompts(
    prompts: Iterable[str], *, seed: int = 0, held_out: Iterable[str] = (), share: float = 2 / 3
) -> Split:
    """Split prompts by the hash of their names, `share` of them to fit; those held out are in neither part."""
    kept_out = frozenset(held_out)
    names = sorted(
        {p for p in prompts if p not in kept_out}, key=lambda p: hashlib.sha256(f"{seed}:{p}".encode()).digest()
    )
    # the slack keeps a share of 2/3 what whole numbers make of it
    middle = min(max(1, int(len(names) * share + 1e-9)), len(names) - 1) if len(names) > 1 else 0
    return Split(frozenset(names[:middle]), frozenset(names[middle:]), kept_out)


def _sizes(parts: list[Steps]) -> tuple[int, int]:
    """Width of the feature vectors, and the mask of the signals, which all sequences share."""
    widths = {s.sequence.features.shape[1] for s in parts}
    if len(widths) != 1:
        msg = f"feature vectors of several widths: {sorted(widths)}"
        raise AssetError(msg)
    masks = {s.sequence.signals for s in parts}
    if len(masks) != 1:
        names = sorted("+".join(str(s.name).lower() for s in Signal if mask & s) for mask in masks)
        msg = f"sessions that carry different signals: {', '.join(names)}; fit each set by itself"
        raise AssetError(msg)
    return int(widths.pop()), masks.pop()


def _thinned(values: F64) -> F64:
    """Every n-th value, so that a table is not larger than what its use needs."""
    return values[:: -(-values.shape[0] // _LARGEST_TABLE)] if values.shape[0] > _LARGEST_TABLE else values


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


def _conformal(parts: list[Steps], reference: MultivariateAsset | None) -> _Conformal:
    used = [s for s in parts if s.sequence.healthy >= BLOCK]
    chosen = [ready(s) for s in used]
    session = np.concatenate([np.full(i.shape[0], n) for n, i in enumerate(chosen)])
    complete = np.concatenate([np.full(i.shape[0], s.sequence.complete) for s, i in zip(used, chosen, strict=True)])
    return _Conformal(
        raw=stack(used, chosen),
        session=session,
        complete=complete,
        sessions=sum(s.sequence.complete for s in used),
        horizon=max(s.sequence.healthy for s in used),
        distance=np.zeros(session.shape[0])
        if reference is None
        else np.concatenate([healthy_distances(s, i, reference) for s, i in zip(used, chosen, strict=True)]),
    )


def healthy_distances(steps: Steps, chosen: I64, reference: MultivariateAsset) -> F64:
    """Distances of a run of consecutive steps, made by the serving code."""
    tensors = replay(steps.sequence, int(chosen[0]), int(chosen[-1]) + 1)
    return distances(reference, tensors["FEATURES"], tensors["LENGTHS"][:, Length.FEATURE_ROWS].astype(np.int64))


def _sounded(flags: Bool, session: I64) -> int:
    """Alarms among the steps of several sessions, one after the other."""
    return sum(alarm_count(part) for part in np.split(flags, np.flatnonzero(np.diff(session)) + 1))


def _level(merged: F64, session: I64, alarms: int) -> float:
    """Largest level that sounds at most once in `alarms` healthy steps.

    Args:
        merged: (n,) p-values of consecutive steps, session by session.
        session: (n,) whose they are.
        alarms: healthy steps per false alarm.
    """
    ordered, allowed = np.unique(merged), merged.shape[0] // alarms
    low, high = 0, ordered.shape[0]
    while low < high:
        middle = (low + high) // 2
        if _sounded(merged <= ordered[middle], session) > allowed:
            high = middle
        else:
            low = middle + 1
    return float(np.nextafter(ordered[low] if low < ordered.shape[0] else 1.0, 0.0))


def _fit_reference(parts: list[Steps], provenance: Provenance, options: FitOptions) -> MultivariateAsset:
    rows = np.concatenate([s.windows[: s.sequence.healthy] for s in parts])
    estimate = ledoit_wolf(rows, robust=options.robust)
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
    table = np.sort(_thinned(conformal.distance))
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
    training: Training,
    conformal: _Conformal,
    reference: MultivariateAsset | None,
    options: FitOptions,
) -> MaskCalibration:
    usable = statistics.usable(number)
    if number & int(Signal.FEATURES):
        training = training.until(_AT_ONCE)
    empty = np.zeros(0)
    bare = MaskCalibration(number, heads_of(number, training, usable, options), empty, empty, (), 0.0)
    everyone = np.arange(conformal.session.shape[0])
    statistic, parts = combine(bare, standardise(draft, conformal.raw, everyone))
    table = np.sort(_thinned(statistic))
    monitor = np.ones(statistic.shape)
    if reference is not None and number & int(Signal.FEATURES):
        monitor = p_value(reference.steps, conformal.distance)
    merged = merge(p_value(table, statistic), monitor, DEFAULT_POLICY.weight)
    whole = conformal.complete
    components = []
    for columns, part in zip(statistics.SLICES, parts.T, strict=True):
        components.append(np.sort(_thinned(part[:: options.thin])) if usable[columns].any() else empty)
    return replace(
        bare,
        steps=table,
        sessions=_maxima(statistic[whole], conformal.session[whole], int(conformal.session.max()) + 1),
        components=tuple(components),
        level=_level(merged, conformal.session, options.alarms),
    )


def fit_traces(
    steps: list[Steps],
    split: Split,
    source: str,
    *,
    demo: bool,
    options: FitOptions,
    notes: str = "",
) -> tuple[DetectorAsset, MultivariateAsset | None]:
    """Fit both assets from the steps of all sequences; no monitor where they carry no features.

    Raises:
        AssetError: if a part of the split has too few healthy sessions.
    """
    fitting = [s for s in steps if s.sequence.prompt_id in split.fit]
    checking = [s for s in steps if s.sequence.prompt_id in split.conformal]
    healthy = [s for s in fitting if s.sequence.healthy >= BLOCK]
    if len(healthy) < options.least or sum(s.sequence.complete for s in checking) < options.least:
        msg = f"fewer than {options.least} healthy sessions in a part of the split"
        raise AssetError(msg)
    features, signals = _sizes(steps)
    empty = Provenance(source, 0, 0, 0, __version__, demo, notes)
    draft_reference = _fit_reference(healthy, empty, options) if features else None
    conformal = _conformal(checking, draft_reference)
    provenance = Provenance(
        source, conformal.session.shape[0], conformal.sessions, conformal.horizon, f"tcd {__version__}", demo, notes
    )
    reference = _with_tables(draft_reference, conformal, provenance) if draft_reference is not None else None
    location, scale = scales(stack(healthy, [ready(s) for s in healthy]))
    draft = DetectorAsset(_DRAFT, provenance, statistics.NAMES, location, scale, features, {})
    training = training_of(fitting, draft, options)
    if options.training:
        training = training.with_(more_of(steps, draft, options))
    masks = [n for n in options.masks if n & signals == n]
    fitted = {n: _fit_mask(n, draft, training, conformal, reference, options) for n in masks}
    detector = replace(draft, masks=fitted)
    return with_confidence(detector, reference, options.delta) if options.delta else (detector, reference)


def shipped_weights() -> Mapping[int, MaskCalibration]:
    """The combinations that ship with the package, by mask, for recordings that hold no faults."""
    assets = load_assets(default_asset_dir())
    digest = assets.default.detector if assets.default else None
    return assets.detectors[digest].masks if digest else {}


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
    share: float = 2 / 3,
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
        share: of the other prompts, those that fit scales; the rest fills the tables.
        options: choices of the fit.
        traces: the traces of `data_dir`, where they are loaded already.

    Returns:
        Digest of the manifest.

    Raises:
        AssetError: if the traces cannot be read or are too few.
    """
    traces = traces or load_traces(data_dir)
    split = split_prompts(traces.prompts, held_out=held_out, share=share)
    notes = f"held out prompts: {' '.join(sorted(split.held_out))}" if split.held_out else ""
    steps = [steps_of(s) for s in traces.sequences]
    detector, reference = fit_traces(
        steps, split, traces.source, demo=demo, options=options or FitOptions(), notes=notes
    )
    monitor = write_asset(out_dir, reference) if reference is not None else None
    binding = Binding(key, level, write_asset(out_dir, detector), monitor)
    manifest = write_manifest(
        out_dir,
        bindings=[binding],
        default=binding if default else None,
        policies={0: write_asset(out_dir, DEFAULT_POLICY)},
        projections=[projection] if projection else [],
    )
    load_assets(out_dir)
    return manifest


__all__ = [
    "FitOptions",
    "Split",
    "fit_directory",
    "fit_traces",
    "healthy_distances",
    "shipped_weights",
    "split_prompts",
]
