"""The detector's step of the ensemble: windows to components, statistic, step p and hypothesis p.

Pure and batch-first. Nothing in a row's content raises: status bits and p = 1 answer instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet, DetectorAsset, Head, MaskCalibration
from tcd.calibration.conformal import STATISTIC_LIMIT, quantise, session_p
from tcd.calibration.lookup import Kept, Rows, by_asset, chosen
from tcd.contract import COMPONENTS, MAX_FEATURE_VALUES, SPECTRUM_RANK, SUP_START, Length, Signal, Status
from tcd.detector import statistics
from tcd.detector.windows import BLOCK, Counts, counts_of
from tcd.exact import log_sum_exp, ordered
from tcd.native import detector as native
from tcd.native import library as kernels
from tcd.rowwise import Inputs, Outputs, isolated

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: z-scores are clamped to this magnitude.
Z_LIMIT: Final = 6.0
_TRACE, _ENTROPY, _SPECTRUM, _FEATURES = (int(signal) for signal in Signal)
_ENDLESS: Final = np.iinfo(np.int64).max
_WARMUP, _UNKNOWN_MASK, _FALLBACK = int(Status.WARMUP), int(Status.UNKNOWN_MASK), int(Status.FALLBACK)
_BAD_INPUT, _NONFINITE, _ABSENT = int(Status.BAD_INPUT), int(Status.NONFINITE), int(Status.ABSENT)
_NO_CALIBRATION: Final = int(Status.NO_CALIBRATION)
#: Statuses after which a step has no evidence at all, not even that of earlier steps.
VOID: Final = _NO_CALIBRATION | _NONFINITE | _BAD_INPUT | _UNKNOWN_MASK | _ABSENT
_NO_P: Final = np.ones((1, 2))
_NO_COMPONENTS: Final = np.tile(np.array([0, 1, 0], np.float32), (1, len(COMPONENTS), 1))
_ZERO: Final = np.zeros(1)


@dataclass(slots=True)
class _Outputs:
    """Output arrays, filled group by group; starts as "no evidence"."""

    p: F64
    sup: F64
    components: NDArray[np.float32]
    level: F64
    asset: NDArray[np.uint64]
    status: NDArray[np.int32]

    @classmethod
    def empty(cls, sup: NDArray[np.generic]) -> _Outputs:
        n = sup.shape[0]
        return cls(
            p=_NO_P.repeat(n, axis=0),
            sup=clean_sup(sup[:, 0]),
            components=_NO_COMPONENTS.repeat(n, axis=0),
            level=np.zeros(n),
            asset=np.zeros(n, np.uint64),
            status=np.zeros(n, np.int32),
        )

    def tensors(self) -> Outputs:
        return {
            "DETECTOR_P": self.p,
            "DETECTOR_SUP": self.sup[:, None],
            "COMPONENTS": self.components,
            "DETECTOR_LEVEL": self.level[:, None],
            "DETECTOR_ASSET": self.asset[:, None],
            "DETECTOR_STATUS": self.status[:, None],
        }


def clean_sup(sup: NDArray[np.generic]) -> F64:
    """A running maximum made finite: NaN and anything below the start count as the start."""
    # fmax prefers a number to a NaN
    return np.asarray(np.minimum(np.fmax(sup.astype(np.float64), SUP_START), STATISTIC_LIMIT)) + 0.0


def signal_mask(counts: Counts) -> I64:
    """Signal mask of each row: the signals with a count above 0."""
    mask = (counts.trace > 0) * _TRACE + (counts.entropy > 0) * _ENTROPY
    return np.asarray(mask + (counts.spectrum > 0) * _SPECTRUM + (counts.rows > 0) * _FEATURES)


def known_signals(features: int, counts: Counts, present: I64) -> I64:
    """Masks without the signals whose size an asset for `features` columns does not know."""
    foreign = (counts.rows > 0) & (counts.cols != features)
    short = (counts.spectrum > 0) & (counts.spectrum < SPECTRUM_RANK)
    return np.asarray(present - foreign * _FEATURES - short * _SPECTRUM)


def tokens(counts: Counts, mask: I64) -> I64:
    """Tokens that every windowed signal of the mask has seen, at most what its window may hold."""
    # a window that holds under 16 rows is warm when it is full
    full = counts.rows >= np.minimum(MAX_FEATURE_VALUES // np.maximum(counts.cols, 1), BLOCK)
    rows = np.where(full, np.maximum(counts.rows, BLOCK), counts.rows)
    least = np.where(mask & _TRACE, counts.trace, _ENDLESS)
    least = np.minimum(least, np.where(mask & _ENTROPY, counts.entropy, _ENDLESS))
    return np.asarray(np.minimum(least, np.where(mask & _FEATURES, rows, _ENDLESS)))


def standardise(asset: DetectorAsset, raw: statistics.Raw, rows: Rows) -> F64:
    """z-scores (R, F) of the chosen rows, clamped to +-6; 0 where a row cannot have the statistic."""
    age = raw.age[rows]
    z = raw.values[rows] - asset.location[age]
    z /= asset.scale[age]
    np.minimum(np.maximum(z, -Z_LIMIT, out=z), Z_LIMIT, out=z)
    z *= raw.valid[rows]
    # -0.0 becomes 0.0: the sign of a neutral z would tell what its ignored value was
    z += _ZERO
    return np.asarray(z)


def combine(mask: MaskCalibration, z: F64) -> tuple[F64, F64]:
    """The statistic of (R, F) z-scores, quantised, (R,); and the components' shares of it, (R, C).

    The statistic is the log of the sum of all heads' odds, the shares are those of the head with the largest.
    """
    first, *others = (_head(head, z) for head in mask.heads)
    parts, largest = first, first[:, 0]
    total = largest
    for other in others:
        total = log_sum_exp(total, other[:, 0])
        above = other[:, 0] > largest
        parts, largest = np.where(above[:, None], other, parts), np.where(above, other[:, 0], largest)
    parts[:, 0] = total
    parts = quantise(parts)
    return parts[:, 0], parts[:, 1:]


def _head(head: Head, z: F64) -> F64:
    """Logit (column 0) and the components' shares of it; (R, 1 + C)."""
    shares = z * head.quadratic
    shares += head.linear
    shares *= z
    parts = np.empty((z.shape[0], 1 + len(COMPONENTS)))
    for i, columns in enumerate(statistics.SLICES):
        parts[:, 1 + i] = ordered(shares[:, columns], axis=1)
    parts[:, 0] = ordered(parts[:, 1:], axis=1) + head.intercept
    return parts


def _tables(mask: MaskCalibration) -> tuple[tuple[F64, ...], F64]:
    """Tables of the step, the components and the session, and what their p-values are shares of."""
    tables = (mask.steps, *mask.components, mask.sessions)
    return tables, np.array([table.shape[0] + 1.0 for table in tables])


_TABLES: Final = Kept(_tables)


def _score(out: _Outputs, calibration: MaskCalibration, asset: DetectorAsset, raw: statistics.Raw, rows: Rows) -> None:
    """Answer rows that are warm."""
    z = standardise(asset, raw, rows)
    statistic, parts = combine(calibration, z)
    sup = np.maximum(out.sup[rows], statistic)
    out.sup[rows] = sup
    tables, sizes = _TABLES(calibration)
    rank = np.zeros((z.shape[0], len(tables)))
    values = (statistic, *parts.T, sup)
    for i, table in enumerate(tables):
        if table.shape[0]:
            rank[:, i] = table.searchsorted(values[i])
    p = np.subtract(sizes, rank, out=rank)
    p /= sizes
    if calibration.adjusted is not None:
        p[:, -1] = session_p(calibration.sessions, calibration.adjusted, sup)
    out.p[rows] = p[:, :: len(tables) - 1]
    components = np.empty((z.shape[0], *_NO_COMPONENTS.shape[1:]))
    components[:, :, 1] = p[:, 1:-1]
    np.subtract(1.0, p[:, 1:-1], out=components[:, :, 0])
    for i, columns in enumerate(statistics.HEADLINES):
        headline = z[:, columns]
        components[:, i, 2] = headline[:, 0] if headline.shape[1] == 1 else np.maximum.reduce(headline, axis=1)
    out.components[rows] = components


@lru_cache(maxsize=4096)
def _sight(common: tuple[int, int, int, int, int], features: int) -> tuple[int, int, bool]:
    """Signal mask of a row, what an asset for this feature width knows of it, whether that is still warming up."""
    counts = Counts(np.array([common]), np.zeros(1, np.bool_))
    present = signal_mask(counts)
    mask = known_signals(features, counts, present)
    return int(present[0]), int(mask[0]), bool(tokens(counts, mask)[0] < BLOCK)


def _by_mask(
    out: _Outputs, asset: DetectorAsset, counts: Counts, rows: Rows
) -> Iterator[tuple[int, Rows, Bool | bool]]:
    """Split rows by the mask that the asset knows of them: the mask, its rows, which rows of the batch are cold.

    Rows that lose a signal are marked FALLBACK.
    """
    if counts.common is not None:
        # nothing is decided by more tokens than a block
        trace, entropy, spectrum, depth, cols = counts.common
        present, number, cold = _sight(
            (min(trace, BLOCK), min(entropy, BLOCK), min(spectrum, BLOCK), min(depth, BLOCK), cols), asset.features
        )
        if present != number:
            out.status[rows] |= _FALLBACK
        if out.sup[rows].shape[0]:
            yield number, rows, cold
        return
    all_present = signal_mask(counts)
    mask = known_signals(asset.features, counts, all_present)
    reduced = mask != all_present
    if reduced.any():
        out.status[chosen(rows, reduced)] |= _FALLBACK
    young = tokens(counts, mask) < BLOCK
    for number in sorted(set(mask[rows].tolist())):
        yield number, chosen(rows, mask == number), young


def _group(out: _Outputs, asset: DetectorAsset, counts: Counts, raw: statistics.Raw, rows: Rows) -> None:
    """Answer rows of one asset whose content can be scored, mask by mask."""
    out.asset[rows] = asset.asset_id
    for number, same, cold in _by_mask(out, asset, counts, rows):
        calibration = asset.mask(number)
        if calibration is None:
            out.status[same] |= _UNKNOWN_MASK
            continue
        out.level[same] = calibration.level
        if not np.any(cold):
            _score(out, calibration, asset, raw, same)
            continue
        young = np.logical_or(cold, np.zeros(out.sup.shape, np.bool_))
        out.status[chosen(same, young)] |= _WARMUP
        ready = chosen(same, ~young)
        out.p[same, 1] = session_p(calibration.sessions, calibration.adjusted, out.sup[same])
        if out.sup[ready].shape[0]:
            _score(out, calibration, asset, raw, ready)


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
    good = np.isfinite(inputs["SUP"][:, 0])
    good &= ~counts.bad
    if not good.all():
        out.status[~good] = _BAD_INPUT
    if raw.nonfinite.any():
        out.status[raw.nonfinite] |= _NONFINITE
    if counts.common is None or not any(counts.common[: Length.FEATURE_COLS]):
        out.status[(signal_mask(counts) == 0) & ~counts.bad] |= _ABSENT
    void = out.status.any()
    for group in by_asset(inputs["KEY"], assets, AssetSet.detector_match):
        rows = group.rows
        if group.asset is None:
            out.status[rows] |= _NO_CALIBRATION
            continue
        if group.fallback:
            out.status[rows] |= _FALLBACK
        if void:
            rows = chosen(rows, (out.status & VOID) == 0)
        _group(out, group.asset, counts, raw, rows)
    return out.tensors()


def _compiled(assets: AssetSet) -> Callable[[Inputs], Outputs] | None:
    """The step by the compiled kernels, the same bits; None where there are none."""
    library = kernels.loaded().library
    return None if library is None else lambda inputs: native.score(library, inputs, assets)


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
    return isolated(lambda part: _step(part, assets), _failed, compiled=_compiled(assets))(inputs)
