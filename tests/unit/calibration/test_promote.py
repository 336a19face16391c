"""Promotion and rollback: whole or not at all, wherever a write fails; bad recordings are refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tcd.calibration import default_asset_dir, load_assets
from tcd.calibration import promote as module
from tcd.calibration.assets import Provenance, RoutingPolicy
from tcd.calibration.promote import history, promote, rollback
from tcd.calibration.store import MANIFEST, write_asset, write_manifest
from tcd.calibration.traces import load_traces
from tcd.cli.calibrate import app
from tcd.errors import AssetError
from tcd.files import write_whole
from tcd.routing import DEFAULT_POLICY

SMALL = Path(__file__).parents[2] / "data" / "traces_small"
Arrays = dict[str, NDArray[Any]]


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    """A directory with another policy than the shipped one and no calibrations."""
    directory = tmp_path / "candidate"
    rules = DEFAULT_POLICY.tiers
    policy = RoutingPolicy("", Provenance("t", 0, 0, 0, "t", demo=False), "other", 0.25, 0.5, 1, rules)
    write_manifest(directory, bindings=[], policies={0: write_asset(directory, policy)})
    return directory


@pytest.fixture
def live(tmp_path: Path) -> Path:
    directory = tmp_path / "live"
    promote(default_asset_dir(), directory)
    return directory


def test_promote_and_roll_back(candidate: Path, live: Path) -> None:
    old = load_assets(live).manifest_digest
    assert old == load_assets(default_asset_dir()).manifest_digest
    new = CliRunner().invoke(app, ["promote", str(candidate), str(live)])
    assert new.stdout.strip() == f"manifest {load_assets(candidate).manifest_digest}"
    assert load_assets(live).routing.keys() == load_assets(candidate).routing.keys()
    assert len(history(live)) == 1
    assert CliRunner().invoke(app, ["rollback", str(live)]).stdout.strip() == f"manifest {old}"
    assert load_assets(live).manifest_digest == old
    with pytest.raises(AssetError, match="nothing to roll back"):
        rollback(live)


def test_a_rollback_goes_to_what_it_names_or_nowhere(candidate: Path, live: Path) -> None:
    old = load_assets(live).manifest_digest
    new = promote(candidate, live)
    promote(default_asset_dir(), live)

    def run(*arguments: str) -> tuple[int, str]:
        found = CliRunner().invoke(app, ["rollback", str(live), *arguments])
        return found.exit_code, found.output

    # what is in force was there before too; a step back is the other one
    assert run("--dry-run") == (0, f"{new}\n")
    for wrong in ("sha256:" + "0" * 64, old):
        code, said = run("--to", wrong)
        assert code != 0
        assert "nothing of this digest was in force before" in said
    assert load_assets(live).manifest_digest == old
    assert run("--to", new) == (0, f"manifest {new}\n")
    # asked for once more it is refused, not one more step
    assert run("--to", new)[0] != 0
    assert load_assets(live).manifest_digest == new
    assert run("--dry-run") == (0, f"{old}\n")


def test_a_rollback_after_a_promotion_that_was_cut_short_goes_to_the_set_before(candidate: Path, live: Path) -> None:
    old = load_assets(live).manifest_digest
    new = promote(candidate, live)
    # the next promotion died after it had put the manifest in force into the history
    (live / "history" / "00000002-cut.json").write_bytes((live / MANIFEST).read_bytes())
    assert load_assets(live).manifest_digest == new
    assert rollback(live) == old
    assert history(live) == []


def test_a_broken_candidate_touches_nothing(candidate: Path, live: Path) -> None:
    before = sorted(p.name for p in live.rglob("*"))
    asset = next(p for p in candidate.glob("*.json") if p.name != MANIFEST)
    asset.write_bytes(asset.read_bytes()[:-5])
    with pytest.raises(AssetError):
        promote(candidate, live)
    assert sorted(p.name for p in live.rglob("*")) == before


def test_rollback_to_lost_assets_is_refused(candidate: Path, live: Path) -> None:
    new = promote(candidate, live)
    next(live.glob("*.npz")).unlink()
    with pytest.raises(AssetError, match="missing"):
        rollback(live)
    assert load_assets(live).manifest_digest == new


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("fails", [1, 2, 3])
def test_a_crash_at_any_write_leaves_a_whole_directory(
    candidate: Path, live: Path, monkeypatch: pytest.MonkeyPatch, fails: int, *, torn: bool
) -> None:
    """The k-th write dies before its rename, with or without a torn temporary file; a later promotion succeeds."""
    old, calls = load_assets(live).manifest_digest, 0

    def write(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == fails:
            if torn:
                path.with_name(f".{path.name}.tmp").write_bytes(data[: len(data) // 2])
            msg = "the machine died"
            raise OSError(msg)
        write_whole(path, data)

    monkeypatch.setattr(module, "write_whole", write)
    with pytest.raises(OSError, match="died"):
        promote(candidate, live)
    assert load_assets(live).manifest_digest == old
    monkeypatch.undo()
    assert promote(candidate, live) == load_assets(candidate).manifest_digest


def _nan(rows: list[dict[str, Any]], arrays: Arrays) -> None:
    arrays["ent"][5] = np.nan


def _twice(rows: list[dict[str, Any]], arrays: Arrays) -> None:
    first = slice(0, int(arrays["offsets"][1]))
    for name in ("lp", "ent", "sv", "feat"):
        arrays[name] = np.concatenate([arrays[name], arrays[name][first]])
    arrays["offsets"] = np.append(arrays["offsets"], arrays["lp"].shape[0])
    rows.append(rows[0])


def _mixed(rows: list[dict[str, Any]], arrays: Arrays) -> None:
    for i, row in enumerate(rows):
        row["model"] = f"m{i % 2}"


def _empty(rows: list[dict[str, Any]], arrays: Arrays) -> None:
    rows.clear()
    arrays["offsets"] = np.zeros(1, np.int64)


def _cut(rows: list[dict[str, Any]], arrays: Arrays) -> None:
    arrays["offsets"][-1] += 3


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_nan, "ent: a NaN or infinity"),
        (_twice, "same session"),
        (_mixed, "several models: m0, m1"),
        (_empty, "no sequences"),
        (_cut, "offsets"),
    ],
)
def test_bad_recordings_are_refused_with_the_reason(
    tmp_path: Path, spoil: Callable[[list[dict[str, Any]], Arrays], None], reason: str
) -> None:
    rows = json.loads((SMALL / "traces.json").read_text())
    with np.load(SMALL / "traces.npz") as archive:
        arrays: Arrays = {name: archive[name] for name in archive}
    spoil(rows, arrays)
    (tmp_path / "traces.json").write_text(json.dumps(rows))
    np.savez(tmp_path / "traces.npz", **arrays)
    with pytest.raises(AssetError, match=reason):
        load_traces(tmp_path)


def test_corrupt_files_are_refused(tmp_path: Path) -> None:
    shutil.copytree(SMALL, tmp_path / "d")
    path = tmp_path / "d" / "traces.npz"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(AssetError, match="not a directory of traces"):
        load_traces(tmp_path / "d")
    shutil.copytree(SMALL, tmp_path / "e")
    (tmp_path / "e" / "index.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(AssetError, match="not a directory of traces"):
        load_traces(tmp_path / "e")
