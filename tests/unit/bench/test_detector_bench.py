"""The bench of the detector on the committed small recordings, and its peers on signals whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tcd.bench import detector
from tcd.calibration.assets import AssetSet
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.errors import AssetError

SMALL = Path(__file__).resolve().parents[2] / "data" / "traces_small"


def test_fixed_assets_are_measured_with_an_interval_in_every_cell() -> None:
    found = detector.measure(SMALL, assets=load_assets(default_asset_dir()), small=True)
    row = found["rows"]["all signals"]["realised"]
    kinds = [kind for kind in ("loop", "temperature", "severe", "mild") if kind in row]
    assert kinds
    for kind in kinds:
        share, low, high = row[kind]["within_32"]
        assert 0.0 <= low <= share <= high <= 1.0
    assert row["per_1000"] <= 1.0
    peer = found["rows"]["entropy EWMA"]
    assert found["rows"]["all signals"]["auroc"] > peer["auroc"]
    text = detector.markdown(found)
    assert "| all signals |" in text
    assert "| entropy EWMA |" in text


def test_assets_without_a_detector_are_refused() -> None:
    with pytest.raises(AssetError, match="no detector"):
        detector.measure(SMALL, assets=AssetSet(), small=True)


@pytest.mark.parametrize("name", detector.PEERS)
def test_peers_see_a_shift_of_either_sign_and_nothing_else(name: str) -> None:
    still = np.zeros(50)
    assert detector.PEERS[name](still).max() == 0.0
    for sign in (1.0, -1.0):
        moved = np.concatenate([np.zeros(20), np.full(30, 3.0 * sign)])
        chart = detector.PEERS[name](moved)
        assert chart[19] == 0.0
        assert chart[-1] > 2.0
