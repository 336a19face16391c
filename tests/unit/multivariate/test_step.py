"""The multivariate step: calibrated distances, threshold, trigger, key fall-back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tcd.calibration import default_asset_dir, load_assets
from tcd.contract import MULTIVARIATE, SUP_START, Status, detector_key
from tcd.multivariate import mahalanobis, score
from tcd.rowwise import Outputs

ASSETS = load_assets(default_asset_dir())
KEY = detector_key("smollm2-135m", "gpu0", "chat", "en", "default")
ASSET = ASSETS.multivariate(KEY)[0]


def run(rows: NDArray[Any], key: tuple[int, int, int] = KEY) -> Outputs:
    lengths = np.array([[0, 0, 0, *rows.shape, 0]], np.int32)
    flat = rows.reshape(1, -1).astype(np.float32)
    return score(flat, lengths, np.array([key], np.uint64), np.full((1, 2), SUP_START), ASSETS)


def test_the_newest_row_is_what_counts() -> None:
    assert ASSET is not None
    rows = np.tile(ASSET.mean, (20, 1)).astype(np.float32)
    rows[-1] += np.float32(3.0)
    out = run(rows)
    expected = mahalanobis(rows[-1:].astype(np.float64) - ASSET.mean, ASSET.cholesky)[0]
    assert out["MV"][0, 0] == pytest.approx(expected, rel=1e-6)
    assert out["MULTIVARIATE_SUP"][0, 0] == pytest.approx(expected, abs=1e-6)
    assert out["MULTIVARIATE_STATUS"][0, 0] == Status.OK
    assert out["MULTIVARIATE_ASSET"][0, 0] == ASSET.asset_id


def test_a_far_vector_triggers_and_a_typical_one_does_not() -> None:
    assert ASSET is not None
    near = np.tile(ASSET.mean, (20, 1))
    assert run(near)["MV"][0, 2] == 0
    assert run(near)["MULTIVARIATE_P"][0, 0] == 1
    far = near + 100.0
    out = run(far)
    assert out["MV"][0, 2] == 1
    assert out["MULTIVARIATE_P"][0, 0] == 1 / (ASSET.steps.shape[0] + 1)
    assert out["MULTIVARIATE_P"][0, 1] == 1 / (ASSET.sessions.shape[0] + 1)


def test_the_threshold_is_the_quantile_of_its_level() -> None:
    assert ASSET is not None
    above = (ASSET.steps > ASSET.threshold).mean()
    assert above <= ASSET.threshold_alpha
    assert above > ASSET.threshold_alpha - 2 / ASSET.steps.shape[0]


def test_an_unknown_key_is_answered_as_a_fall_back() -> None:
    assert ASSET is not None
    out = run(np.tile(ASSET.mean, (20, 1)), detector_key("other", "gpu0", "chat", "en", "default"))
    assert out["MULTIVARIATE_STATUS"][0, 0] == Status.FALLBACK


def test_warm_up_and_absence() -> None:
    assert ASSET is not None
    assert run(np.tile(ASSET.mean, (15, 1)))["MULTIVARIATE_STATUS"][0, 0] == Status.WARMUP
    out = run(np.zeros((0, 16)))
    assert out["MULTIVARIATE_STATUS"][0, 0] == Status.ABSENT
    assert out["MULTIVARIATE_P"].tolist() == [[1, 1]]
    assert out["MV"].tolist() == [[0, 0, 0, 1]]


def test_outputs_are_the_contracts() -> None:
    out = run(np.zeros((20, 16)))
    assert list(out) == [tensor.name for tensor in MULTIVARIATE.outputs]
