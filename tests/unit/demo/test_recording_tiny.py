"""Every regime, every corruption, dropped layers and a killed recorder, with a decoder of random weights."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from tcd.calibration.traces import load_traces
from tcd.demo.llm import LanguageModel
from tcd.demo.recording.corruption import corrupt_cache, corrupted
from tcd.demo.recording.run import RecordError
from tests.conftest import ROOT
from tests.unit.demo import recorder
from tests.unit.demo.conftest import tiny_weights

Arrays = dict[str, NDArray[Any]]


def _read(out: Path) -> tuple[list[dict[str, Any]], Arrays]:
    with np.load(out / "traces.npz") as archive:
        arrays = {name: archive[name] for name in archive}
    return pq.read_table(out / "index.parquet").to_pylist(), arrays


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    assert recorder.run(out)
    return out


def test_every_regime_is_recorded_and_read_as_traces(whole: Path) -> None:
    rows, arrays = _read(whole)
    assert Counter(row["regime"] for row in rows) == recorder.REGIMES
    assert Counter(row["corruption"] for row in rows if row["corruption"]) == dict.fromkeys(recorder.CORRUPTIONS, 2)
    assert {row["task"] for row in rows} <= {task for task, _ in recorder.PROMPTS}
    assert all(np.isfinite(array.astype(np.float64)).all() for array in arrays.values())
    assert arrays["offsets"][-1] == arrays["lp"].shape[0] == sum(row["n"] for row in rows)
    traces = load_traces(whole)
    assert len(traces.sequences) == sum(recorder.REGIMES.values())
    for row, sequence in zip(rows, traces.sequences, strict=True):
        if row["corruption"]:
            assert sequence.kind == ("severe" if row["corruption"] in {"noise:0.2", "quantg:3"} else "mild")
            assert sequence.onset == row["cp"]


def test_a_fault_changes_what_follows_its_change_point_and_nothing_before(whole: Path, tmp_path: Path) -> None:
    """The same plan under another corruption has the same draws: it says the same up to the change point only."""
    rows, arrays = _read(whole)
    first = [i for i, row in enumerate(rows) if row["corruption"] == "noise:0.2" and row["cp"] >= 0]
    recorder_corruptions = ("quantg:3", *recorder.CORRUPTIONS[1:2], "noise:0.2", "kv:1")
    other = _rerun(tmp_path, recorder_corruptions)
    assert first
    for i in first:
        start, change = int(arrays["offsets"][i]), rows[i]["cp"]
        again = int(other[1]["offsets"][i])
        assert other[0][i]["corruption"] == "quantg:3"
        assert (arrays["ent"][start : start + change] == other[1]["ent"][again : again + change]).all()
        assert arrays["ent"][start + change] != other[1]["ent"][again + change]


def _rerun(out: Path, corruptions: tuple[str, ...]) -> tuple[list[dict[str, Any]], Arrays]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "CORRUPTIONS", corruptions)
        assert recorder.run(out)
    return _read(out)


@pytest.mark.parametrize("name", ["noise:0.2", "quant:4", "quantg:3"])
def test_corrupted_weights_are_copies(tiny: LanguageModel, name: str) -> None:
    before = [layer.qkv.clone() for layer in tiny.layers]
    damaged = corrupted(tiny.layers, name, seed=3)
    for old, layer, bad in zip(before, tiny.layers, damaged, strict=True):
        assert torch.equal(layer.qkv, old)
        error = (bad.qkv - old).std() / old.std()
        assert 0.02 < float(error) < 0.5
        assert torch.equal(bad.attention_norm, layer.attention_norm)
    again = corrupted(tiny.layers, name, seed=3)
    assert all(torch.equal(a.down, b.down) for a, b in zip(damaged, again, strict=True))


def test_more_strength_is_more_damage(tiny: LanguageModel) -> None:
    def error(name: str) -> float:
        return float((corrupted(tiny.layers, name, seed=1)[0].down - tiny.layers[0].down).std())

    assert error("noise:0.1") < error("noise:0.2") < error("noise:0.4")
    assert error("quant:6") < error("quant:4") < error("quant:3") < error("quantg:3")


def test_a_cache_corruption_touches_what_is_used_and_keeps_the_weights(tiny: LanguageModel) -> None:
    cache = torch.zeros(2, 2, 1, 2, 8, 8)
    cache[..., :5, :] = torch.randn(2, 2, 1, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    clean = cache.clone()
    corrupt_cache(cache, "kv:0.5", seed=1)
    assert not torch.equal(cache[..., :5, :], clean[..., :5, :])
    assert torch.equal(cache[..., 5:, :], clean[..., 5:, :])
    corrupt_cache(clean, "noise:0.5", seed=1)
    assert torch.equal(clean[..., 5:, :], cache[..., 5:, :])
    assert corrupted(tiny.layers, "kv:0.5", seed=1) is tiny.layers


def test_dropped_layers_are_another_model_of_the_same_prompts(whole: Path, tmp_path: Path) -> None:
    assert recorder.run(tmp_path, dropped=frozenset({1}))
    (rows, arrays), (deep, deep_arrays) = _read(tmp_path), _read(whole)
    assert [row["prompt_id"] for row in rows] == [row["prompt_id"] for row in deep]
    assert arrays["ent"][0] != deep_arrays["ent"][0]
    with pytest.raises(RecordError, match="other settings"):
        recorder.run(tmp_path)


@pytest.mark.parametrize("layers", [{0, 1}, {2}, {-1}])
def test_layers_that_cannot_be_dropped_are_refused(layers: set[int]) -> None:
    model = LanguageModel(tiny_weights())
    with pytest.raises(ValueError, match="layers to leave out"):
        model.drop(frozenset(layers))


def test_a_killed_recorder_goes_on_and_ends_with_the_same_recording(whole: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.demo.recorder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        process.kill()
    assert all("sequences" in line for line in said)
    assert not (tmp_path / "traces.npz").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*.json")}
    assert len(kept) >= 3
    assert recorder.run(tmp_path)
    for name, changed in kept.items():
        assert (tmp_path / "parts" / name).stat().st_mtime_ns == changed or name == "settings.json"
    (rows, arrays), (wanted, expected) = _read(tmp_path), _read(whole)
    assert rows == wanted
    assert all((arrays[name] == expected[name]).all() for name in expected)
