"""The multivariate step: calibrated distances, threshold, trigger, key fall-back."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tcd.calibration import default_asset_dir, load_assets
from tcd.contract import MULTIVARIATE, SUP_START, Status, detector_key
from tcd.multivariate import explain, mahalanobis, score
from tcd.multivariate.step import distances
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


@pytest.mark.parametrize("smoothing", [1.0, 0.2])
def test_the_features_that_a_distance_comes_from_are_named(smoothing: float) -> None:
    assert ASSET is not None
    asset = dataclasses.replace(ASSET, smoothing=smoothing)
    rows = np.tile(asset.mean, (20, 1))
    rows[:, 5] += 60.0
    rows[:, 9] += 0.1
    top = explain(asset, rows, most=16)
    assert top[0][0] == 5
    assert top[0][1] > 0.9
    assert [share for _, share in top] == sorted((share for _, share in top), reverse=True)
    assert sum(share for _, share in top) == pytest.approx(1.0)
    assert explain(asset, rows) == top[:3]


def test_nothing_is_named_without_a_distance_or_a_reference_of_that_width() -> None:
    assert ASSET is not None
    assert explain(ASSET, np.tile(ASSET.mean, (20, 1))) == ()
    assert explain(ASSET, np.ones((20, 15))) == ()
    assert explain(ASSET, np.ones((0, 16))) == ()


def test_smoothing_sees_a_lasting_shift_that_single_vectors_hide() -> None:
    """White vectors, d = 16, shift of 1.5 standard deviations, N = 400 windows: share above the 99 % quantile.

    With a random effect per request, as real generations have, smoothing gains nothing: docs/detection.md.
    """
    assert ASSET is not None
    rng = np.random.default_rng(2)
    windows = rng.normal(size=(2, 400, 40, 16)) @ ASSET.cholesky.T + ASSET.mean
    shifted = windows[1] + 1.5 * ASSET.cholesky[:, 0]
    share = {}
    for smoothing in (1.0, 0.1):
        asset = dataclasses.replace(ASSET, smoothing=smoothing)
        healthy, late = (distances(asset, w.reshape(400, -1), np.full(400, 40)) for w in (windows[0], shifted))
        share[smoothing] = float((late > np.quantile(healthy, 0.99)).mean())
    assert share[1.0] < 0.2
    assert share[0.1] > 0.8
