"""`tcd calibrate`: shows the shipped directory, fits another, remakes the recorded projection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tcd.calibration import default_asset_dir, load_assets
from tcd.calibration.store import read_asset
from tcd.cli.calibrate import app

SMALL = Path(__file__).parents[2] / "data" / "traces_small"


def test_show_prints_every_asset() -> None:
    result = CliRunner().invoke(app, ["show"])
    assert result.exit_code == 0
    body = json.loads(result.stdout)
    assert [len(body["assets"][kind]) for kind in ("detector", "multivariate", "policy", "projection")] == [1, 1, 1, 1]
    assert body["assets"]["detector"][0]["provenance"]["demo"] is True


def test_fit_writes_a_directory_that_serves(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["fit", "--data", str(SMALL), "--out", str(tmp_path), "--model-id", "m", "--least", "2"]
    )
    assert result.exit_code == 0, result.output
    assets = load_assets(tmp_path)
    assert result.stdout.strip() == f"manifest {assets.manifest_digest}"
    assert assets.default is not None


def test_the_monitors_options_reach_its_reference(tmp_path: Path) -> None:
    arguments = ["fit", "--data", str(SMALL), "--out", str(tmp_path), "--model-id", "m", "--least", "2"]
    result = CliRunner().invoke(app, [*arguments, "--smoothing", "0.2", "--robust-centre"])
    assert result.exit_code == 0, result.output
    (robust,) = load_assets(tmp_path).multivariates.values()
    assert robust.smoothing == 0.2
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (plain,) = load_assets(tmp_path).multivariates.values()
    assert plain.smoothing == 1.0
    assert (plain.mean != robust.mean).any()


def test_the_shipped_projection_is_the_recordings(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    result = CliRunner().invoke(app, ["project", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    made = read_asset(tmp_path, result.stdout.strip())
    shipped = load_assets(default_asset_dir()).projection(576)
    assert shipped is not None
    assert made.matrix.tolist() == shipped.matrix.tolist()  # type: ignore[union-attr]
    generator = torch.Generator().manual_seed(7)
    assert torch.equal(torch.tensor(shipped.matrix.tolist()), torch.randn(576, 16, generator=generator) / 4)


def test_what_is_refused_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"session": 1, "model_id": "m", "log_prob": [-1]}\n')
    for arguments in (
        ["fit", "--data", str(tmp_path / "bad.jsonl"), "--out", str(tmp_path / "out")],
        ["evaluate", "--data", str(tmp_path / "bad.jsonl")],
        ["promote", str(tmp_path), str(tmp_path / "live")],
        ["rollback", str(tmp_path)],
        ["show", str(tmp_path)],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1, arguments
        assert result.stderr.startswith("tcd calibrate: "), arguments
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "live").exists()
