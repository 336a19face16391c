"""The claim in force and the resolution of a calibration."""

from __future__ import annotations

import pytest

from tcd.risk_av import check_epoch_length, epoch_length_auto, guarantee, merged_p_floor, sessions_needed

CAL = "sha256:" + "ab" * 32


def test_guarantee_strings() -> None:
    base = f"supfdr<=0.05|unit=session|epoch=3|calibration={CAL}"
    make = {"alpha": 0.05, "unit": "session", "epoch": 3, "calibration": CAL}
    assert guarantee(**make, mode="prds") == base + "|prds|marginal"  # type: ignore[arg-type]
    assert guarantee(**make, mode="csu", confidence=0.99) == base + "|csu|confidence=0.99"  # type: ignore[arg-type]
    assert guarantee(**make, mode="model_based") == base + "|model_based"  # type: ignore[arg-type]
    assert guarantee(**make, mode="prds", reasons=["fallback", "warm-up"]) == "none (fallback; warm-up)"  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "confidence"), [("csu", None), ("prds", 0.99), ("csu", 1.0)])
def test_a_confidence_belongs_to_csu_alone(mode: str, confidence: float | None) -> None:
    with pytest.raises(ValueError, match="confidence"):
        guarantee(alpha=0.05, unit="session", epoch=1, calibration=CAL, mode=mode, confidence=confidence)  # type: ignore[arg-type]


def test_epoch_lengths_of_the_design() -> None:
    floor = 1 / 1001
    merged = merged_p_floor(detector=floor, multivariate=floor)
    assert epoch_length_auto(0.05, floor) == 10
    assert epoch_length_auto(0.05, 1 / 1000) == 10
    assert epoch_length_auto(0.05, merged) == 5
    assert epoch_length_auto(0.05, 8.0 * floor) == 1
    assert epoch_length_auto(0.05, 1 / 50) == 0


def test_a_monitor_without_weight_is_left_out_of_the_floor() -> None:
    assert merged_p_floor(detector=0.001, multivariate=0.1, weight=1.0) == 0.001
    assert merged_p_floor(detector=0.001, multivariate=0.1, weight=0.0) == 0.1
    assert merged_p_floor(detector=None, multivariate=0.4) == 0.8
    assert merged_p_floor(detector=None, multivariate=None) == 1.0


def test_a_longer_epoch_is_refused_with_the_sessions_it_needs() -> None:
    check_epoch_length(10, 0.05, 1 / 1001)
    check_epoch_length(1, 0.05, 0.5)
    assert sessions_needed(10, 0.05) == 999
    assert sessions_needed(5, 0.05, weight=0.5) == 999
    with pytest.raises(ValueError, match=r"1099 for one monitor"):
        check_epoch_length(11, 0.05, 1 / 1001)
