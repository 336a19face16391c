"""The detector's step for tensors: `tcd.detector.score` with windows on any device.

What counts, keys and running maxima say is decided on the host before the work on the device begins; which rows hold
a NaN is known on the device alone, and overrides that there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet, DetectorAsset, MaskCalibration
from tcd.calibration.lookup import Kept, by_asset
from tcd.contract import COMPONENTS, Status
from tcd.detector import statistics
from tcd.detector.catalogue import HEADLINES, SLICES
from tcd.detector.device.exact import log_sum_exp, ordered, quantise
from tcd.detector.device.statistics import compute, placed
from tcd.detector.step import VOID, Z_LIMIT, clean_sup, known_signals, signal_mask, tokens
from tcd.detector.windows import BLOCK, Counts, counts_of

I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
#: Arrays of an asset on the devices that have asked for them.
_PLACED: Kept[object, dict[Any, Any]] = Kept(lambda _: {}, most=64)


def _on(device: Any, source: object, arrays: dict[str, Any]) -> dict[str, Any]:
    """The arrays of an immutable object on a device, sent there once."""
    known = _PLACED(source)
    if device not in known:
        known[device] = {name: placed(array, device) for name, array in arrays.items() if array is not None}
    return dict(known[device])


def _weights(calibration: MaskCalibration) -> dict[str, Any]:
    tables = {f"component_{i}": table for i, table in enumerate(calibration.components)}
    heads = {"weights": np.array([(head.linear, head.quadratic) for head in calibration.heads])}
    fixed = {"steps": calibration.steps, "sessions": calibration.sessions, "adjusted": calibration.adjusted}
    return {**tables, **heads, **fixed}


def _combine(calibration: MaskCalibration, weights: Any, z: Any) -> tuple[Any, Any]:
    """`tcd.detector.step.combine`."""
    found = []
    for head, (linear, quadratic) in zip(calibration.heads, weights, strict=True):
        shares = (z * quadratic + linear) * z
        own = torch.stack([ordered(shares[:, columns], 1) for columns in SLICES], 1)
        found.append((ordered(own, 1) + head.intercept, own))
    total, parts = found[0]
    largest = total
    for logit, own in found[1:]:
        total = log_sum_exp(total, logit)
        above = logit > largest
        parts, largest = torch.where(above[:, None], own, parts), torch.where(above, logit, largest)
    return quantise(total), quantise(parts)


def _p(table: Any, statistic: Any) -> Any:
    """`tcd.calibration.conformal.p_value`."""
    n = table.shape[0]
    rank = torch.searchsorted(table, statistic.contiguous()).double() if n else torch.zeros_like(statistic)
    return ((n + 1.0) - rank) / (n + 1.0)


def _session_p(place: dict[str, Any], sup: Any) -> Any:
    """`tcd.calibration.conformal.session_p`."""
    table = place["sessions"]
    if "adjusted" not in place:
        return _p(table, sup)
    return place["adjusted"][table.shape[0] - torch.searchsorted(table, sup.contiguous())]


@dataclass(slots=True)
class _Answer:
    """Output tensors, filled part by part, beside what a row answers that has no evidence."""

    p: Any
    sup: Any
    components: Any

    @classmethod
    def empty(cls, sup: Any) -> _Answer:
        n, device = sup.shape[0], sup.device
        components = torch.zeros((n, len(COMPONENTS), 3), dtype=torch.float32, device=device)
        components[:, :, 1] = 1.0
        return cls(torch.ones((n, 2), dtype=torch.float64, device=device), sup.clone(), components)


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows of one asset and one mask that it is calibrated for; those that are `cold` are still warming up."""

    asset: DetectorAsset
    calibration: MaskCalibration
    rows: I64
    cold: Bool


def _score(out: _Answer, part: _Part, raw: Any, counts: Counts) -> None:
    """Answer the rows of one mask of an asset."""
    device, asset, calibration = raw.device, part.asset, part.calibration
    scales = _on(device, asset, {"location": asset.location, "scale": asset.scale})
    place = _on(device, calibration, _weights(calibration))
    rows, age = placed(part.rows, device), placed(statistics.age(counts)[part.rows], device)
    valid, warm = placed(statistics.valid(counts)[part.rows], device), placed(~part.cold, device)
    z = (raw[rows] - scales["location"][age]) / scales["scale"][age]
    z = torch.where(valid, z.clamp(-Z_LIMIT, Z_LIMIT), 0.0) + 0.0
    statistic, parts = _combine(calibration, place["weights"], z)
    before = out.sup[rows]
    sup = torch.where(warm, torch.maximum(before, statistic), before)
    out.sup[rows] = sup
    step = torch.where(warm, _p(place["steps"], statistic), 1.0)
    out.p[rows] = torch.stack((step, _session_p(place, sup)), 1)
    p = torch.stack([_p(place[f"component_{i}"], parts[:, i]) for i in range(len(COMPONENTS))], 1)
    headline = torch.stack([z[:, columns].amax(dim=1) for columns in HEADLINES], 1)
    found = torch.stack((1.0 - p, p, headline), 2).float()
    out.components[rows] = torch.where(warm[:, None, None], found, out.components[rows])


@dataclass(slots=True)
class _Plan:
    """What counts and keys decide.

    Attributes:
        early: (N,) status bits of a row whatever its values are.
        late: (N,) those that it has besides where its values are numbers.
        level: (N,) level of the fast alarm.
        asset: (N,) ids of the assets.
    """

    early: NDArray[np.int32]
    late: NDArray[np.int32]
    level: NDArray[np.float64]
    asset: NDArray[np.uint64]

    @classmethod
    def of(cls, counts: Counts, sup: NDArray[np.generic]) -> _Plan:
        n = counts.bad.shape[0]
        early = np.zeros(n, np.int32)
        early[counts.bad | ~np.isfinite(sup[:, 0])] |= int(Status.BAD_INPUT)
        early[(signal_mask(counts) == 0) & ~counts.bad] |= int(Status.ABSENT)
        return cls(early, np.zeros(n, np.int32), np.zeros(n), np.zeros(n, np.uint64))

    def parts(self, key: NDArray[np.generic], assets: AssetSet, counts: Counts) -> Iterator[_Part]:
        """Rows to score; the plan is complete after the last."""
        everyone, present = np.arange(self.early.shape[0]), signal_mask(counts)
        for group in by_asset(key, assets, AssetSet.detector_match):
            rows, asset = everyone[group.rows], group.asset
            if asset is None:
                self.early[rows] |= int(Status.NO_CALIBRATION)
                continue
            if group.fallback:
                self.early[rows] |= int(Status.FALLBACK)
            rows = rows[(self.early[rows] & VOID) == 0]
            mask = known_signals(asset.features, counts, present)
            cold = tokens(counts, mask) < BLOCK
            self.asset[rows] = asset.asset_id
            self.late[rows[(mask != present)[rows]]] |= int(Status.FALLBACK)
            for number in sorted(set(mask[rows].tolist())):
                same = rows[mask[rows] == number]
                calibration = asset.mask(number)
                if calibration is None:
                    self.late[same] |= int(Status.UNKNOWN_MASK)
                    continue
                self.level[same] = calibration.level
                self.late[same[cold[same]]] |= int(Status.WARMUP)
                yield _Part(asset, calibration, same, cold[same])


def score(
    trace: Any,
    entropy: Any,
    spectrum: Any,
    features: Any,
    lengths: NDArray[np.generic],
    key: NDArray[np.generic],
    sup: NDArray[np.generic],
    assets: AssetSet,
) -> dict[str, Any]:
    """Score a batch as `tcd.detector.score` does, in the same bits.

    Args:
        trace: (N, W) FP32 tensor, as the other three windows on the device that is worked on.
        entropy: (N, W) tensor.
        spectrum: (N, W) tensor.
        features: (N, W) tensor.
        lengths: (N, 6) host array.
        key: (N, 3) host array.
        sup: (N, 2) host array.
        assets: what is scored with; its tables are sent to the device once.

    Returns:
        The outputs of `tcd.contract.DETECTOR` as tensors on that device. Nothing is copied back on the way.
    """
    windows = (trace, entropy, spectrum, features)
    widths = dict(zip(("trace", "entropy", "spectrum", "features"), (w.shape[1] for w in windows), strict=True))
    counts = counts_of(lengths, **widths)
    device = trace.device
    with torch.inference_mode():
        raw, wrong = compute(windows, counts)
        plan, start = _Plan.of(counts, sup), placed(clean_sup(sup[:, 0]), device)
        out, none = _Answer.empty(start), _Answer.empty(start)
        for part in plan.parts(key, assets, counts):
            _score(out, part, raw, counts)
        early = placed(plan.early, device)
        void = wrong[:, None]
        status = torch.where(wrong, early | int(Status.NONFINITE), early | placed(plan.late, device))
        asset = torch.where(wrong, 0, placed(plan.asset.view(np.int64), device))
        return {
            "DETECTOR_P": torch.where(void, none.p, out.p),
            "DETECTOR_SUP": torch.where(wrong, none.sup, out.sup)[:, None],
            "COMPONENTS": torch.where(void[:, :, None], none.components, out.components),
            "DETECTOR_LEVEL": torch.where(wrong, 0.0, placed(plan.level, device))[:, None],
            "DETECTOR_ASSET": asset.view(torch.uint64)[:, None],
            "DETECTOR_STATUS": status[:, None],
        }
