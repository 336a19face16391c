"""Singular values and projections: against numpy's SVD, and against the recording of SmolLM2-135M."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tcd.calibration import AssetSet, default_asset_dir, load_assets
from tcd.signals import raw_step, start
from tcd.signals.hidden import HIDDEN_WINDOW, features, spectrum
from tcd.signals.logits import token_signals
from tcd.signals.projection import derived, projection

DATA = Path(__file__).parents[2] / "data" / "smollm2_step.npz"
GOLDEN = ["1010000000000011", "1010100110010010"]
ASSETS = load_assets(default_asset_dir())


@pytest.mark.parametrize("shape", [(2, 32, 576), (3, 40, 20), (1, 5, 64), (2, 1, 7)])
def test_singular_values_are_those_of_the_newest_window(shape: tuple[int, int, int]) -> None:
    hidden = np.random.default_rng(1).normal(0, 3, shape).astype(np.float32)
    ours = spectrum(hidden)
    exact = np.linalg.svd(hidden[:, -HIDDEN_WINDOW:].astype(np.float64), compute_uv=False)[:, :16]
    assert ours.shape == exact.shape
    assert np.abs(ours - exact).max() < 1e-6


def test_rank_deficient_windows_are_not_negative() -> None:
    hidden = np.ones((1, 32, 576), np.float32)
    values = spectrum(hidden)
    assert (values >= 0).all()
    assert values[0, 1:].max() < 1e-3


def test_the_derived_projection_is_fixed() -> None:
    matrix = derived(576)
    assert set(np.unique(matrix)) == {-0.25, 0.25}
    signs = (matrix[:4, 0] > 0).astype(int).tolist()
    assert signs == (derived(576)[:4, 0] > 0).astype(int).tolist()
    assert abs(matrix.mean()) < 0.01
    assert not np.array_equal(derived(575), matrix[:575])
    assert not matrix.flags.writeable


def test_derived_projection_golden() -> None:
    """The first signs, so that a change of the derivation cannot go unseen."""
    bits = (derived(8)[:2] > 0).astype(int)
    assert ["".join(map(str, row)) for row in bits.tolist()] == GOLDEN


def test_the_recorded_projection_answers_for_its_width_only() -> None:
    assert not np.array_equal(projection(576, ASSETS), derived(576))
    assert projection(64, ASSETS) is derived(64)
    assert projection(576, AssetSet()) is derived(576)


def test_signals_are_those_of_the_recording() -> None:
    """Hidden states of a teacher-forced healthy generation; the recording is in FP16."""
    with np.load(DATA) as data:
        recorded = {name: data[name] for name in data.files}
    first = int(recorded["first"])
    windows = np.stack([recorded["hidden"][i : i + 32] for i in range(recorded["tok"].shape[0])])
    assert spectrum(windows) == pytest.approx(recorded["sv"].astype(np.float64), rel=1e-3)
    row = features(windows, projection(576, ASSETS))
    assert np.abs(row - recorded["feat"]).max() < 0.02
    steps = recorded["logit_steps"] - first
    out = raw_step(recorded["logits"], recorded["tok"][steps], windows[steps], start(len(steps)), ASSETS)
    assert out["NEXT_TRACE"][:, 0] == pytest.approx(recorded["lp"][steps].astype(np.float64), rel=2e-3)
    assert out["NEXT_ENTROPY"][:, 0] == pytest.approx(recorded["ent"][steps].astype(np.float64), rel=2e-3)
    assert out["SPECTRUM"] == pytest.approx(recorded["sv"][steps].astype(np.float64), rel=1e-3)
    assert np.abs(out["NEXT_FEATURES"][:, :15] - recorded["feat"][steps][:, :15]).max() < 0.02
    nucleus = token_signals(recorded["logits"], recorded["tok"][steps]).log_nucleus
    assert out["NEXT_FEATURES"][:, 15].tolist() == nucleus.astype(np.float32).tolist()
    assert out["NEXT_LENGTHS"].tolist() == [[1, 1, 16, 1, 16, 0]] * 2
