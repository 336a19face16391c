"""The detector step on made and recorded generations: severities, p-values, masks, keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcd.calibration import AssetSet, default_asset_dir, load_assets
from tcd.calibration.assets import DetectorAsset
from tcd.calibration.traces import Sequence, load_traces, replay
from tcd.contract import COMPONENTS, DETECTOR, SUP_START, Status, detector_key
from tcd.detector import score
from tcd.rowwise import Outputs

DATA = Path(__file__).parents[2] / "data" / "traces_small"
ASSETS = load_assets(default_asset_dir())
KEY = detector_key("smollm2-135m", "gpu0", "chat", "en", "default")


def steps(sequence: Sequence, start: int, stop: int, *, assets: AssetSet = ASSETS, mask: int = 15) -> Outputs:
    t = replay(sequence, start, stop)
    lengths = t["LENGTHS"] * np.array([mask & 1, mask >> 1 & 1, mask >> 2 & 1, mask >> 3 & 1, 1, 1], np.int32)
    n = stop - start
    keys = np.array([KEY] * n, np.uint64)
    return score(
        t["TRACE"], t["ENTROPY"], t["SPECTRUM"], t["FEATURES"], lengths, keys, np.full((n, 2), SUP_START), assets
    )


def recorded(kind: str) -> list[Sequence]:
    return [s for s in load_traces(DATA).sequences if s.kind == kind]


def test_outputs_are_the_contracts() -> None:
    out = steps(recorded("healthy")[0], 20, 23)
    types = {"FP32": np.float32, "FP64": np.float64, "INT32": np.int32, "UINT64": np.uint64}
    assert list(out) == [tensor.name for tensor in DETECTOR.outputs]
    for tensor in DETECTOR.outputs:
        assert out[tensor.name].dtype == types[tensor.dtype]
        assert out[tensor.name].shape == (3, *tensor.dims)


def test_warm_up_ends_with_the_sixteenth_token() -> None:
    out = steps(recorded("healthy")[0], 0, 20)
    warm = (out["DETECTOR_STATUS"][:, 0] & int(Status.WARMUP)) == 0
    assert warm.tolist() == [False] * 15 + [True] * 5
    assert (out["DETECTOR_P"][:15] == 1).all()
    assert (out["COMPONENTS"][:15, :, 1] == 1).all()


def test_a_recorded_loop_is_seen_by_recurrence() -> None:
    looped = [s for s in recorded("loop") if s.onset + 60 < s.steps]
    assert looped
    for sequence in looped:
        late = steps(sequence, sequence.onset + 40, sequence.onset + 60)
        severity = late["COMPONENTS"][:, COMPONENTS.index("recurrence"), 0]
        assert np.median(severity) > 0.9
        assert (late["DETECTOR_P"][:, 0] < 0.05).mean() > 0.5


def test_a_temperature_blow_up_is_seen_by_invertibility() -> None:
    for sequence in recorded("temperature"):
        late = steps(sequence, sequence.onset + 10, sequence.onset + 30)
        component = late["COMPONENTS"][:, COMPONENTS.index("invertibility")]
        assert np.median(component[:, 0]) > 0.95
        assert np.median(component[:, 2]) < -1.5  # the low tail is lower


@pytest.mark.parametrize("mask", [1, 2, 3, 7, 8, 15])
def test_absent_components_are_neutral(mask: int) -> None:
    out = steps(recorded("healthy")[0], 60, 64, mask=mask)
    components = out["COMPONENTS"][0]
    if mask in {1, 2, 3}:
        assert components[COMPONENTS.index("sigma_cut")].tolist() == [0, 1, 0]
    if not mask & 3:
        assert components[COMPONENTS.index("invertibility")].tolist() == [0, 1, 0]
    assert out["DETECTOR_STATUS"][0, 0] == Status.OK


def test_an_unknown_mask_is_p_one() -> None:
    asset = ASSETS.detector(KEY)[0]
    assert isinstance(asset, DetectorAsset)
    smaller = replace(asset, masks={15: asset.masks[15]})
    assets = replace(ASSETS, detectors={asset.digest: smaller})
    out = steps(recorded("healthy")[0], 60, 61, assets=assets, mask=3)
    assert out["DETECTOR_STATUS"][0, 0] == Status.UNKNOWN_MASK
    assert out["DETECTOR_P"].tolist() == [[1, 1]]
    assert steps(recorded("healthy")[0], 60, 61, assets=assets)["DETECTOR_STATUS"][0, 0] == Status.OK


def test_no_statistic_is_milder_for_being_more_extreme() -> None:
    """Quadratic weights are not negative, so both tails of a z cannot both look safer than its middle."""
    for asset in ASSETS.detectors.values():
        for mask in asset.masks.values():
            assert all((head.quadratic >= 0).all() for head in mask.heads)
