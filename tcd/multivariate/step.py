"""The multivariate monitor's step of the ensemble: the newest feature vector to its distance and p-values.

Pure and batch-first. An absent, short or foreign feature window answers p = 1 and says why in the status.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet, MultivariateAsset
from tcd.calibration.conformal import p_value, quantise, session_p
from tcd.calibration.lookup import Kept, Rows, alike, by_asset, chosen
from tcd.contract import MAX_FEATURE_VALUES, Length, Status
from tcd.detector.step import clean_sup
from tcd.detector.windows import BLOCK, TAIL, features_fit, right_align, shared
from tcd.multivariate.distance import contributions, ewma, mahalanobis, whitener
from tcd.native import library as kernels
from tcd.native import multivariate as native
from tcd.rowwise import Inputs, Outputs, isolated

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_FLOAT_MAX: Final = float(np.finfo(np.float32).max)
_WARMUP, _UNKNOWN_MASK, _FALLBACK = int(Status.WARMUP), int(Status.UNKNOWN_MASK), int(Status.FALLBACK)
_BAD_INPUT, _NONFINITE, _ABSENT = int(Status.BAD_INPUT), int(Status.NONFINITE), int(Status.ABSENT)
_NO_CALIBRATION: Final = int(Status.NO_CALIBRATION)
_VOID: Final = _NO_CALIBRATION | _NONFINITE | _BAD_INPUT | _UNKNOWN_MASK | _ABSENT
_NO_DISTANCE: Final = np.array([[0.0, 0.0, 0.0, 1.0]])
_NO_P: Final = np.ones((1, 2))
#: The asset's whitening matrix, made once.
_WHITE: Final[Kept[MultivariateAsset, F64]] = Kept(lambda asset: whitener(asset.cholesky), most=32)


@dataclass(slots=True)
class _Outputs:
    """Output arrays, filled group by group; starts as "no evidence"."""

    p: F64
    sup: F64
    mv: F64
    asset: NDArray[np.uint64]
    status: NDArray[np.int32]

    @classmethod
    def empty(cls, sup: NDArray[np.generic]) -> _Outputs:
        n = sup.shape[0]
        mv = _NO_DISTANCE.repeat(n, axis=0)
        p = _NO_P.repeat(n, axis=0)
        return cls(p, clean_sup(sup[:, 1]), mv, np.zeros(n, np.uint64), np.zeros(n, np.int32))

    def tensors(self) -> Outputs:
        return {
            "MULTIVARIATE_P": self.p,
            "MULTIVARIATE_SUP": self.sup[:, None],
            "MV": np.minimum(np.maximum(self.mv, -_FLOAT_MAX), _FLOAT_MAX).astype(np.float32),
            "MULTIVARIATE_ASSET": self.asset[:, None],
            "MULTIVARIATE_STATUS": self.status[:, None],
        }


def _vectors(asset: MultivariateAsset, flat: NDArray[np.generic], rows: I64) -> F64:
    """What a distance is of, (N, d): the newest vector minus the mean, or its MEWMA."""
    width = asset.features
    common = shared(rows)
    if asset.smoothing == 1.0:
        if common is not None:
            newest = flat[:, (common - 1) * width : common * width].astype(np.float64)
        else:
            last = ((rows - 1) * width)[:, None] + np.arange(width)
            newest = flat[np.arange(flat.shape[0])[:, None], last].astype(np.float64)
        newest -= asset.mean
        return np.asarray(newest)
    recent = np.empty((flat.shape[0], TAIL * width))
    right_align(recent, flat, rows * width, None if common is None else common * width)
    inside = np.arange(TAIL, 0, -1) <= rows[:, None]
    centred = (recent.reshape(-1, TAIL, width) - asset.mean) * inside[:, :, None]
    return ewma(centred, asset.smoothing)


def distances(asset: MultivariateAsset, flat: NDArray[np.generic], rows: I64) -> F64:
    """Quantised distances (N,) of flattened feature windows (N, W) with `rows` >= 1 valid rows each."""
    return quantise(mahalanobis(_vectors(asset, flat, rows), asset.cholesky, _WHITE(asset)))


def explain(asset: MultivariateAsset, features: NDArray[np.generic], *, most: int = 3) -> tuple[tuple[int, float], ...]:
    """The features that a distance comes from.

    Args:
        asset: the reference.
        features: (R, d) feature window of one row, R >= 1, finite.
        most: features to name.

    Returns:
        (index, share of the squared distance), largest share first; shares of all features sum to 1. Nothing at
        distance 0 or where the width is not the reference's.
    """
    rows, width = features.shape
    if rows == 0 or width != asset.features:
        return ()
    vector = _vectors(asset, features.reshape(1, -1), np.array([rows]))
    parts = contributions(vector, _WHITE(asset))[0]
    total = float(parts.sum())
    if not total > 0.0:
        return ()
    order = np.argsort(-parts, kind="stable")[:most]
    return tuple((int(i), float(parts[i]) / total) for i in order)


def _group(out: _Outputs, asset: MultivariateAsset, flat: NDArray[np.generic], rows: Rows, depth: I64) -> None:
    out.asset[rows] = asset.asset_id
    cold = depth < min(BLOCK, MAX_FEATURE_VALUES // asset.features)
    ready = rows
    if cold.any():
        out.status[chosen(rows, cold)] |= _WARMUP
        ready = chosen(rows, ~cold)
    if out.sup[ready].shape[0]:
        distance = distances(asset, flat[ready], depth[ready])
        p = p_value(asset.steps, distance)
        out.p[ready, 0] = p
        out.sup[ready] = np.maximum(out.sup[ready], distance)
        out.mv[ready, 0] = distance
        out.mv[ready, 2] = distance > asset.threshold
        out.mv[ready, 3] = p
    out.mv[rows, 1] = asset.threshold
    out.p[rows, 1] = session_p(asset.sessions, asset.adjusted, out.sup[rows])


def _nonfinite(features: NDArray[np.generic], counts: I64) -> NDArray[np.bool_] | None:
    """Rows with a NaN or infinity among their counted values; None for no row."""
    width = int(counts.max(initial=0))
    finite = np.isfinite(np.add.reduce(features[:, :width], axis=1))
    if finite.all():
        return None
    out = ~finite
    # a sum may also be spoilt by padding, or overflow
    for i in np.flatnonzero(out).tolist():
        out[i] = not np.isfinite(features[i, : counts[i]]).all()
    return np.asarray(out)


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Whether rows and columns of FEATURES fit, and both, 0 where they do not; each (N,), or of one row for all."""

    good: NDArray[np.bool_]
    depth: I64
    cols: I64

    @classmethod
    def read(cls, lengths: NDArray[np.generic], width: int) -> _Shapes:
        table = lengths[:, Length.FEATURE_ROWS : Length.FEATURE_COLS + 1]
        n = table.shape[0]
        if alike(table):
            depth, cols = map(int, table[0].tolist())
            fits = bool(features_fit(depth, cols, width))
            pair = np.full((2, n), [[depth], [cols]] if fits else 0, np.int64)
            return cls(np.full(n, fits), pair[0], pair[1])
        depth_of, cols_of = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
        good = features_fit(depth_of, cols_of, width)
        return cls(good, depth_of * good, cols_of * good)


def _step(inputs: Inputs, assets: AssetSet) -> Outputs:
    features = inputs["FEATURES"]
    shapes = _Shapes.read(inputs["LENGTHS"], features.shape[1])
    depth = shapes.depth
    out = _Outputs.empty(inputs["SUP"])
    good = shapes.good & np.isfinite(inputs["SUP"][:, 1])
    if not good.all():
        out.status[~good] = _BAD_INPUT
    nonfinite = _nonfinite(features, depth * shapes.cols)
    if nonfinite is not None:
        out.status[nonfinite] |= _NONFINITE
    if not depth.all():
        out.status[shapes.good & (depth == 0)] |= _ABSENT
    void = out.status.any()
    for group in by_asset(inputs["KEY"], assets, AssetSet.multivariate_match):
        rows = group.rows
        if group.asset is None:
            out.status[rows] |= _NO_CALIBRATION
            continue
        if group.fallback:
            out.status[rows] |= _FALLBACK
        foreign = (depth > 0) & (shapes.cols != group.asset.features)
        strange = foreign.any()
        if strange:
            out.status[chosen(rows, foreign)] |= _UNKNOWN_MASK
            out.asset[chosen(rows, foreign)] = group.asset.asset_id
        if void or strange:
            rows = chosen(rows, (out.status & _VOID) == 0)
        _group(out, group.asset, features, rows, depth)
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
    features: NDArray[np.generic],
    lengths: NDArray[np.generic],
    key: NDArray[np.generic],
    sup: NDArray[np.generic],
    assets: AssetSet,
) -> Outputs:
    """Score a batch; arguments and answers are the tensors of `tcd.contract.MULTIVARIATE`, batch first.

    FEATURES may be padded to any width; a row's bits depend on its own counts and values only.
    """
    inputs = {"FEATURES": features, "LENGTHS": lengths, "KEY": key, "SUP": sup}
    return isolated(lambda part: _step(part, assets), _failed, compiled=_compiled(assets))(inputs)
