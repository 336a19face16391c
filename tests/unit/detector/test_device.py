"""The detector of torch tensors has numpy's bits: on the CPU always, on a GPU where there is one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tcd import exact
from tcd.calibration import AssetSet, default_asset_dir, load_assets
from tcd.calibration.assets import DetectorAsset
from tcd.calibration.traces import load_traces, replay
from tcd.contract import DETECTOR, SUP_START
from tcd.detector import score as score_of_arrays
from tcd.detector import statistics
from tcd.detector.catalogue import NAMES
from tcd.detector.device import exact as exact_of_tensors
from tcd.detector.device import score
from tcd.detector.device.statistics import compute
from tcd.detector.windows import counts_of
from tcd.rows import ScoreRow, Tensors, pack
from tests.unit.detector.hostile import KEYS, LENGTHS, hostile_row, rows_of_one_size, spoilt

DATA = Path(__file__).parents[2] / "data" / "traces_small"
ASSETS = load_assets(default_asset_dir())
WINDOWS = ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES")
CONTROL = ("LENGTHS", "KEY", "SUP")


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("gpu: torch finds no CUDA device")
    return str(request.param)


def on(device: str, tensors: Tensors) -> list[Any]:
    return [torch.from_numpy(np.ascontiguousarray(tensors[name])).to(device) for name in WINDOWS]


def answers(device: str, tensors: Tensors, assets: AssetSet = ASSETS) -> dict[str, Any]:
    trace, entropy, spectrum, features = on(device, tensors)
    lengths, key, sup = (tensors[name] for name in CONTROL)
    return score(trace, entropy, spectrum, features, lengths, key, sup, assets)


def assert_same_answers(device: str, tensors: Tensors, assets: AssetSet = ASSETS) -> Tensors:
    trace, entropy, spectrum, features, lengths, key, sup = (tensors[name] for name in (*WINDOWS, *CONTROL))
    # numpy says what hostile rows do to it
    with np.errstate(all="ignore"):
        expected = score_of_arrays(trace, entropy, spectrum, features, lengths, key, sup, assets)
    found = answers(device, tensors, assets)
    assert list(found) == list(expected)
    for name, tensor in found.items():
        assert tensor.device.type == device
        array = tensor.cpu().numpy()
        assert (array.dtype, array.shape) == (expected[name].dtype, expected[name].shape), name
        assert array.tobytes() == np.ascontiguousarray(expected[name]).tobytes(), (
            name,
            np.argwhere(array != expected[name])[:5].tolist(),
        )
    return expected


def assert_same_statistics(device: str, tensors: Tensors) -> None:
    windows = [tensors[name] for name in WINDOWS]
    widths = {name.lower(): window.shape[1] for name, window in zip(WINDOWS, windows, strict=True)}
    counts = counts_of(tensors["LENGTHS"], **widths)
    with np.errstate(all="ignore"):
        raw = statistics.compute(windows[0], windows[1], windows[2], windows[3], counts)
    values, wrong = (found.cpu().numpy() for found in compute(on(device, tensors), counts))
    assert wrong.tolist() == raw.nonfinite.tolist()
    assert not values[wrong].any()
    differ = raw.valid & ~wrong[:, None] & (values != raw.values)
    assert not differ.any(), sorted({NAMES[f] for _, f in np.argwhere(differ)})


@pytest.mark.parametrize("hostility", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(4))
def test_any_row_has_the_same_statistics_and_answers(device: str, seed: int, hostility: float) -> None:
    rng = np.random.default_rng(100 + seed)
    tensors = pack([hostile_row(rng, hostility) for _ in range(80)])
    for mixed in (tensors, spoilt(tensors, rng)):
        assert_same_statistics(device, mixed)
        assert_same_answers(device, mixed)


@pytest.mark.parametrize("n", LENGTHS)
def test_rows_that_share_their_counts(device: str, n: int) -> None:
    tensors = pack(rows_of_one_size(n, 3))
    assert_same_answers(device, tensors)


def test_recorded_generations(device: str) -> None:
    scored = 0
    for sequence in load_traces(DATA).sequences[::3]:
        sent = replay(sequence, 0, sequence.steps)
        rest = pack([ScoreRow(key=KEYS[0])] * sequence.steps)
        found = assert_same_answers(device, {**rest, **{name: sent[name] for name in (*WINDOWS, "LENGTHS")}})
        scored += int((np.asarray(found["DETECTOR_P"], np.float64)[:, 0] < 1).sum())
    assert scored > 300


def test_a_row_has_the_same_bits_in_any_batch(device: str) -> None:
    rng = np.random.default_rng(9)
    tensors = pack([hostile_row(rng, 0.1) for _ in range(24)])
    whole = answers(device, tensors)
    for rows in (slice(3, 4), slice(10, 24)):
        part = {name: array[rows] for name, array in tensors.items()}
        alone = answers(device, part)
        for name, tensor in alone.items():
            assert tensor.cpu().numpy().tobytes() == whole[name][rows].cpu().numpy().tobytes(), name


def test_p_values_that_hold_given_the_calibration(device: str) -> None:
    """Tables of adjusted p-values, one head alone, four heads."""
    digest, asset = next(iter(ASSETS.detectors.items()))
    assert isinstance(asset, DetectorAsset)
    masks = {
        number: replace(
            mask,
            heads=((mask.heads * 4)[: 1 if number % 2 else 4]),
            adjusted=np.minimum(1.0, np.arange(1, mask.sessions.shape[0] + 2) * 2 / (mask.sessions.shape[0] + 1)),
        )
        for number, mask in asset.masks.items()
    }
    assets = replace(ASSETS, detectors={digest: replace(asset, masks=masks, delta=0.1)})
    rng = np.random.default_rng(11)
    found = assert_same_answers(device, pack([hostile_row(rng, 0.0) for _ in range(60)]), assets)
    assert len(set(found["DETECTOR_P"][:, 1].tolist())) > 3


def test_nothing_is_copied_back_on_the_way() -> None:
    """Tensors without values: whatever looked at one to go on would raise."""
    rng = np.random.default_rng(12)
    tensors = pack([hostile_row(rng, 0.2) for _ in range(20)])
    found = answers("meta", tensors)
    for tensor in DETECTOR.outputs:
        assert found[tensor.name].device.type == "meta"
        assert found[tensor.name].shape == (20, *tensor.dims)
    with pytest.raises(RuntimeError):
        found["DETECTOR_P"][0, 0].item()


def test_torch_is_loaded_by_those_alone_who_ask() -> None:
    code = "import sys, tcd.detector, tcd.scoring; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout.strip() == b"False"


def test_roots_logarithms_and_exponentials_are_numpys(device: str) -> None:
    rng = np.random.default_rng(13)
    values = np.exp(rng.uniform(-200, 200, 100_000))
    values[:4] = 0.0, 1.0, 4.0, np.finfo(np.float64).max
    there = torch.from_numpy(values).to(device)
    assert exact_of_tensors.sqrt(there).cpu().numpy().tobytes() == np.sqrt(values).tobytes()
    narrow = np.abs(rng.standard_cauchy(100_000)).astype(np.float32)
    assert exact_of_tensors.sqrt32(torch.from_numpy(narrow).to(device)).cpu().numpy().tobytes() == (
        np.sqrt(narrow).tobytes()
    )
    assert exact_of_tensors.log(there[1:]).cpu().numpy().tobytes() == exact.log(values[1:]).tobytes()
    below = -np.abs(rng.standard_cauchy(100_000)) * 10
    assert (
        exact_of_tensors.exp(torch.from_numpy(below).to(device)).cpu().numpy().tobytes() == exact.exp(below).tobytes()
    )


def test_a_batch_without_rows(device: str) -> None:
    empty = {name: array[:0] for name, array in pack([ScoreRow(sup=(SUP_START, SUP_START))]).items()}
    found = answers(device, empty)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {
        tensor.name: (0, *tensor.dims) for tensor in DETECTOR.outputs
    }
