"""The multivariate monitor's step of the ensemble: the newest feature vector to its distance and p-values.

Pure and batch-first. An absent, short or foreign feature window answers p = 1 and says why in the status.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet, MultivariateAsset
from tcd.calibration.conformal import p_value, quantise
from tcd.calibration.lookup import by_asset
from tcd.contract import MAX_FEATURE_VALUES, Length, Status
from tcd.detector.step import clean_sup
from tcd.detector.windows import BLOCK, TAIL, features_fit, masked, tail
from tcd.multivariate.distance import ewma, mahalanobis
from tcd.rowwise import Inputs, Outputs, isolated

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_FLOAT_MAX: Final = float(np.finfo(np.float32).max)
_VOID: Final = Status.NO_CALIBRATION | Status.NONFINITE | Status.BAD_INPUT | Status.UNKNOWN_MASK | Status.ABSENT


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
        mv = np.zeros((n, 4))
        mv[:, 3] = 1.0
        return cls(np.ones((n, 2)), clean_sup(sup[:, 1]), mv, np.zeros(n, np.uint64), np.zeros(n, np.int32))

    def tensors(self) -> Outputs:
        return {
            "MULTIVARIATE_P": self.p,
            "MULTIVARIATE_SUP": self.sup[:, None],
            "MV": np.clip(self.mv, -_FLOAT_MAX, _FLOAT_MAX).astype(np.float32),
            "MULTIVARIATE_ASSET": self.asset[:, None],
            "MULTIVARIATE_STATUS": self.status[:, None],
        }


def distances(asset: MultivariateAsset, flat: NDArray[np.generic], rows: I64) -> F64:
    """Quantised distances (N,) of flattened feature windows (N, W) with `rows` >= 1 valid rows each."""
    width = asset.features
    if asset.smoothing == 1.0:
        last = ((rows - 1) * width)[:, None] + np.arange(width)
        newest = flat[np.arange(flat.shape[0])[:, None], last].astype(np.float64)
        return quantise(mahalanobis(newest - asset.mean, asset.cholesky))
    depth = int(rows.max())
    windows, _ = masked(flat, rows * width, depth * width)
    recent = tail(windows.reshape(-1, depth, width), rows, TAIL)
    inside = np.arange(TAIL, 0, -1) <= rows[:, None]
    centred = (recent - asset.mean) * inside[:, :, None]
    return quantise(mahalanobis(ewma(centred, asset.smoothing), asset.cholesky))


def _group(out: _Outputs, asset: MultivariateAsset, flat: NDArray[np.generic], rows: I64, depth: I64) -> None:
    out.asset[rows] = asset.asset_id
    needed = min(BLOCK, MAX_FEATURE_VALUES // asset.features)
    warm = depth[rows] >= needed
    out.status[rows[~warm]] |= int(Status.WARMUP)
    out.mv[rows, 1] = asset.threshold
    ready = rows[warm]
    if ready.shape[0]:
        distance = distances(asset, flat[ready], depth[ready])
        p = p_value(asset.steps, distance)
        out.p[ready, 0] = p
        out.sup[ready] = np.maximum(out.sup[ready], distance)
        out.mv[ready, 0] = distance
        out.mv[ready, 2] = distance > asset.threshold
        out.mv[ready, 3] = p
    out.p[rows, 1] = p_value(asset.sessions, out.sup[rows])


def _nonfinite(features: NDArray[np.generic], counts: I64) -> NDArray[np.bool_]:
    """Rows with a NaN or infinity among their counted values."""
    width = int(counts.max(initial=0))
    wrong = ~np.isfinite(features[:, :width])
    if (counts != width).any():
        wrong &= np.arange(width) < counts[:, None]
    return np.asarray(wrong.any(axis=1))


def _step(inputs: Inputs, assets: AssetSet) -> Outputs:
    features = inputs["FEATURES"]
    lengths = inputs["LENGTHS"].astype(np.int64)
    good = features_fit(lengths[:, Length.FEATURE_ROWS], lengths[:, Length.FEATURE_COLS], features.shape[1])
    depth = np.where(good, lengths[:, Length.FEATURE_ROWS], 0)
    cols = np.where(good, lengths[:, Length.FEATURE_COLS], 0)
    nonfinite = _nonfinite(features, depth * cols)
    out = _Outputs.empty(inputs["SUP"])
    bad_sup = ~np.isfinite(inputs["SUP"][:, 1].astype(np.float64))
    out.status[~good | bad_sup] |= int(Status.BAD_INPUT)
    out.status[nonfinite] |= int(Status.NONFINITE)
    out.status[good & (depth == 0)] |= int(Status.ABSENT)
    for group in by_asset(inputs["KEY"], assets.multivariate_match):
        rows = group.rows
        if group.asset is None:
            out.status[rows] |= int(Status.NO_CALIBRATION)
            continue
        if group.fallback:
            out.status[rows] |= int(Status.FALLBACK)
        foreign = rows[(depth[rows] > 0) & (cols[rows] != group.asset.features)]
        out.status[foreign] |= int(Status.UNKNOWN_MASK)
        out.asset[foreign] = group.asset.asset_id
        _group(out, group.asset, features, rows[(out.status[rows] & int(_VOID)) == 0], depth)
    return out.tensors()


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
    return isolated(lambda part: _step(part, assets), _failed)(inputs)
