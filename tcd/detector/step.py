"""The detector's step of the ensemble: windows to components, statistic, step p and hypothesis p.

Pure and batch-first. Nothing in a row's content raises: status bits and p = 1 answer instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet, DetectorAsset, MaskCalibration
from tcd.calibration.conformal import STATISTIC_LIMIT, p_value, quantise
from tcd.calibration.lookup import by_asset
from tcd.contract import COMPONENTS, MAX_FEATURE_VALUES, SPECTRUM_RANK, SUP_START, Signal, Status
from tcd.detector import statistics
from tcd.detector.windows import BLOCK, Counts, counts_of
from tcd.rowwise import Inputs, Outputs, isolated

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: z-scores are clamped to this magnitude.
Z_LIMIT: Final = 12.0
_NO_LEVEL: Final = 0.0
_WINDOWED: Final = np.array([int(Signal.TRACE), int(Signal.ENTROPY), int(Signal.FEATURES)])
_ENDLESS: Final = np.iinfo(np.int64).max
_STARTS: Final = np.array([columns.start for columns in statistics.SLICES])
#: Statuses after which a step has no evidence at all, not even that of earlier steps.
_VOID: Final = Status.NO_CALIBRATION | Status.NONFINITE | Status.BAD_INPUT | Status.UNKNOWN_MASK | Status.ABSENT


@dataclass(slots=True)
class _Outputs:
    """Output arrays, filled group by group; starts as "no evidence"."""

    p: F64
    sup: F64
    components: F64
    level: F64
    asset: NDArray[np.uint64]
    status: NDArray[np.int32]

    @classmethod
    def empty(cls, sup: NDArray[np.generic]) -> _Outputs:
        n = sup.shape[0]
        components = np.zeros((n, len(COMPONENTS), 3))
        components[:, :, 1] = 1.0
        return cls(
            p=np.ones((n, 2)),
            sup=clean_sup(sup[:, 0]),
            components=components,
            level=np.full(n, _NO_LEVEL),
            asset=np.zeros(n, np.uint64),
            status=np.zeros(n, np.int32),
        )

    def tensors(self) -> Outputs:
        return {
            "DETECTOR_P": self.p,
            "DETECTOR_SUP": self.sup[:, None],
            "COMPONENTS": self.components.astype(np.float32),
            "DETECTOR_LEVEL": self.level[:, None],
            "DETECTOR_ASSET": self.asset[:, None],
            "DETECTOR_STATUS": self.status[:, None],
        }


def clean_sup(sup: NDArray[np.generic]) -> F64:
    """A running maximum made finite: NaN and anything below the start count as the start."""
    values = sup.astype(np.float64)
    return np.clip(np.where(np.isnan(values), SUP_START, values), SUP_START, STATISTIC_LIMIT)


def signal_mask(counts: Counts) -> I64:
    """Signal mask of each row: the signals with a count above 0."""
    mask = (counts.trace > 0) * int(Signal.TRACE) + (counts.entropy > 0) * int(Signal.ENTROPY)
    return np.asarray(mask + (counts.spectrum > 0) * int(Signal.SPECTRUM) + (counts.rows > 0) * int(Signal.FEATURES))


def _tokens(counts: Counts, mask: I64) -> I64:
    """Tokens that every windowed signal of the mask has seen, at most what its window may hold."""
    room = MAX_FEATURE_VALUES // np.maximum(counts.cols, 1)
    # a window that holds under 16 rows is warm when it is full
    rows = np.where(counts.rows >= np.minimum(room, BLOCK), np.maximum(counts.rows, BLOCK), counts.rows)
    seen = np.stack([counts.trace, counts.entropy, rows], axis=1)
    return np.asarray(np.minimum.reduce(np.where(mask[:, None] & _WINDOWED, seen, _ENDLESS), axis=1))


def standardise(asset: DetectorAsset, raw: statistics.Raw, rows: I64) -> F64:
    """z-scores (R, F) of the chosen rows, clamped to +-12; 0 where a row cannot have the statistic."""
    z = (raw.values[rows] - asset.location) / asset.scale
    np.minimum(np.maximum(z, -Z_LIMIT, out=z), Z_LIMIT, out=z)
    z *= raw.valid[rows]
    # -0.0 becomes 0.0: the sign of a neutral z would tell what its ignored value was
    z += 0.0
    return z


def combine(mask: MaskCalibration, z: F64) -> tuple[F64, F64]:
    """The logit of (R, F) z-scores, quantised, (R,); and the components' shares of it, (R, C)."""
    shares = z * mask.linear + z * z * mask.quadratic
    parts = np.add.reduceat(shares, _STARTS, axis=1)
    return quantise(mask.intercept + np.add.reduce(parts, axis=1)), quantise(parts)


def _components(mask: MaskCalibration, z: F64, parts: F64) -> F64:
    out = np.zeros((z.shape[0], len(COMPONENTS), 3))
    for i, table in enumerate(mask.components):
        p = p_value(table, parts[:, i])
        out[:, i, 0] = 1.0 - p
        out[:, i, 1] = p
        out[:, i, 2] = np.maximum.reduce(z[:, statistics.HEADLINES[i]], axis=1)
    return out


def _group(out: _Outputs, asset: DetectorAsset, raw: statistics.Raw, rows: I64, mask: int, warm: Bool) -> None:
    calibration = asset.mask(mask)
    out.asset[rows] = asset.asset_id
    if calibration is None:
        out.status[rows] |= int(Status.UNKNOWN_MASK)
        return
    out.level[rows] = calibration.level
    ready = rows[warm]
    out.status[rows[~warm]] |= int(Status.WARMUP)
    if ready.shape[0]:
        z = standardise(asset, raw, ready)
        statistic, parts = combine(calibration, z)
        out.p[ready, 0] = p_value(calibration.steps, statistic)
        out.sup[ready] = np.maximum(out.sup[ready], statistic)
        out.components[ready] = _components(calibration, z, parts)
    out.p[rows, 1] = p_value(calibration.sessions, out.sup[rows])


def _step(inputs: Inputs, assets: AssetSet) -> Outputs:
    trace, entropy, spectrum, features = (inputs[name] for name in ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES"))
    counts = counts_of(
        inputs["LENGTHS"],
        trace=trace.shape[1],
        entropy=entropy.shape[1],
        spectrum=spectrum.shape[1],
        features=features.shape[1],
    )
    raw = statistics.compute(trace, entropy, spectrum, features, counts)
    out = _Outputs.empty(inputs["SUP"])
    present = signal_mask(counts)
    bad_sup = ~np.isfinite(inputs["SUP"][:, 0].astype(np.float64))
    out.status[counts.bad | bad_sup] |= int(Status.BAD_INPUT)
    out.status[raw.nonfinite] |= int(Status.NONFINITE)
    out.status[(present == 0) & ~counts.bad] |= int(Status.ABSENT)
    for group in by_asset(inputs["KEY"], assets.detector_match):
        rows = group.rows
        if group.asset is None:
            out.status[rows] |= int(Status.NO_CALIBRATION)
            continue
        if group.fallback:
            out.status[rows] |= int(Status.FALLBACK)
        rows = rows[(out.status[rows] & int(_VOID)) == 0]
        mask = _known_signals(out, group.asset, counts, present, rows)
        tokens = _tokens(counts, mask)[rows]
        for number in np.unique(mask[rows]):
            same = mask[rows] == number
            _group(out, group.asset, raw, rows[same], int(number), tokens[same] >= BLOCK)
    return out.tensors()


def _known_signals(out: _Outputs, asset: DetectorAsset, counts: Counts, present: I64, rows: I64) -> I64:
    """Masks without the signals whose size the asset does not know; such rows are marked FALLBACK."""
    strange = np.zeros_like(present)
    strange += np.where((counts.rows > 0) & (counts.cols != asset.features), int(Signal.FEATURES), 0)
    short = (counts.spectrum > 0) & (counts.spectrum < SPECTRUM_RANK)
    strange += np.where(short, int(Signal.SPECTRUM), 0)
    reduced = present & ~strange
    changed = rows[strange[rows] != 0]
    out.status[changed] |= int(Status.FALLBACK)
    return reduced


def _failed(inputs: Inputs) -> Outputs:
    out = _Outputs.empty(inputs["SUP"])
    out.status[:] = int(Status.FAILED)
    return out.tensors()


def score(
    trace: NDArray[np.generic],
    entropy: NDArray[np.generic],
    spectrum: NDArray[np.generic],
    features: NDArray[np.generic],
    lengths: NDArray[np.generic],
    key: NDArray[np.generic],
    sup: NDArray[np.generic],
    assets: AssetSet,
) -> Outputs:
    """Score a batch; arguments and answers are the tensors of `tcd.contract.DETECTOR`, batch first.

    The windows may be padded to any width; a row's bits depend on its own counts and values only.
    Warm-up (under 16 tokens) leaves SUP as it came, and the hypothesis p is that of SUP. A row whose content
    cannot be scored answers p = 1 and SUP as it came, and says why in DETECTOR_STATUS.
    """
    inputs = {
        "TRACE": trace,
        "ENTROPY": entropy,
        "SPECTRUM": spectrum,
        "FEATURES": features,
        "LENGTHS": lengths,
        "KEY": key,
        "SUP": sup,
    }
    return isolated(lambda part: _step(part, assets), _failed)(inputs)
