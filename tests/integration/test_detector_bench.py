"""The bench of the detector through real servers: what they answer are the library's bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tcd.bench.detector import recordings, report, via
from tcd.calibration.store import default_asset_dir
from tcd.cli.bench import app

pytestmark = pytest.mark.triton
SMALL = Path(__file__).resolve().parents[1] / "data" / "traces_small"


def test_rows_through_triton_have_the_bits_of_the_library(tmp_path: Path) -> None:
    options = ["--data", str(SMALL), "--assets", str(default_asset_dir()), "--small", "--most", "6"]
    for way in ("library", "triton"):
        result = CliRunner().invoke(app, ["detector", *options, "--via", way, "--out", str(tmp_path / way)])
        assert result.exit_code == 0, result.output
    library, served = (json.loads((tmp_path / way / "detector.json").read_text()) for way in ("library", "triton"))
    steps = sum(s.sequence.steps for s in recordings.load(SMALL, most=6).steps)
    assert served["via"]["compared"]["P_STEP"] == 2 * steps
    assert len(served["via"]["compared"]) == 12
    assert not any(served["via"]["different"].values())
    for name, row in served["rows"].items():
        assert row == library["rows"][name], name
    assert "all equal the library's bit for bit" in (tmp_path / "triton" / "detector.md").read_text()


def test_steps_through_a_shim_have_the_p_values_of_the_library() -> None:
    steps = recordings.load(SMALL, most=2).steps
    served = via.serve(steps, default_asset_dir(), "http", model="model0")
    count = sum(s.sequence.steps for s in steps)
    assert served.compared == {"SCORE": count, "COMPONENTS": 8 * count, "MV": 2 * count, "P_VALUE": count}
    assert not any(served.different.values())
    for one, score in zip(served.scored, served.score, strict=True):
        assert score.shape == one.p.shape
        # the score is FP32
        assert abs(score - (1.0 - one.merged)).max() < 1e-7
    found = {"via": {"way": "http", "compared": served.compared, "different": served.different | {"P_VALUE": 1}}}
    assert "**NOT the library's bits: {'P_VALUE': 1}**" in "".join(report._via(found["via"]))
