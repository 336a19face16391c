"""Signals of torch tensors agree with numpy's, on the CPU always and on a GPU where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tcd.calibration import default_asset_dir, load_assets
from tcd.calibration.conformal import quantise
from tcd.contract import detector_key
from tcd.multivariate import cholesky, ledoit_wolf, mahalanobis
from tcd.multivariate.device import mahalanobis as mahalanobis_of_tensors
from tcd.rows import ScoreRow, pack
from tcd.scoring import diagnose
from tcd.signals import start, step
from tcd.signals.device import hidden_signals, token_signals
from tcd.signals.hidden import features, spectrum
from tcd.signals.logits import token_signals as token_signals_of_arrays
from tcd.signals.projection import derived

ASSETS = load_assets(default_asset_dir())
KEY = detector_key("smollm2-135m", "gpu0", "chat", "en", "1.00")
WINDOWS = ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")
VOCABULARY = 49_152


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("gpu: torch finds no CUDA device")
    return str(request.param)


def _logits(rows: int, seed: int = 0, vocabulary: int = VOCABULARY) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (rows, vocabulary)).astype(np.float32)
    # from nearly certain to nearly uniform
    logits *= np.geomspace(0.05, 4.0, rows)[:, None].astype(np.float32)
    return logits, rng.integers(0, vocabulary, rows).astype(np.int32)


def test_log_probabilities_and_entropies_agree(device: str) -> None:
    logits, token = _logits(24)
    logits[3, 100:] = -np.inf
    token[3] = 7
    ours, theirs = token_signals(torch.from_numpy(logits).to(device), token), token_signals_of_arrays(logits, token)
    assert ours.good.all()
    assert theirs.good.all()
    assert np.abs(ours.log_probability - theirs.log_probability).max() < 1e-6
    assert np.abs(ours.entropy - theirs.entropy).max() < 1e-6
    assert np.abs(np.exp(ours.log_nucleus) - np.exp(theirs.log_nucleus)).max() < 1.5
    assert (ours.log_nucleus == theirs.log_nucleus).mean() > 0.9
    assert len(set(ours.log_nucleus.tolist())) > 4


def test_the_same_rows_are_bad(device: str) -> None:
    logits, token = _logits(8, vocabulary=50)
    logits[0, 3] = np.nan
    logits[1, 4] = np.inf
    logits[2] = -np.inf
    logits[3, token[3]] = -np.inf
    token[4], token[5] = -1, 50
    ours, theirs = token_signals(torch.from_numpy(logits).to(device), token), token_signals_of_arrays(logits, token)
    assert ours.good.tolist() == theirs.good.tolist() == [False] * 6 + [True] * 2
    assert (ours.log_probability[:6] == 0).all()
    assert (ours.entropy[:6] == 0).all()
    assert (ours.log_nucleus[:6] == 0).all()


@pytest.mark.parametrize("shape", [(5, 32, 576), (3, 40, 64), (4, 7, 576), (2, 32, 16), (1, 1, 8)])
def test_spectra_and_features_agree(device: str, shape: tuple[int, int, int]) -> None:
    hidden = np.random.default_rng(1).normal(0, 2, shape).astype(np.float32)
    matrix = derived(shape[2])
    sigma, row = hidden_signals(torch.from_numpy(hidden).to(device), matrix)
    expected = spectrum(hidden)
    assert sigma.shape == expected.shape
    assert np.abs(sigma - expected).max() < 1e-6 * expected.max()
    assert np.abs(row - features(hidden, matrix)).max() < 1e-10


def test_a_row_has_the_same_bits_in_any_batch(device: str) -> None:
    logits, token = _logits(17, seed=2)
    hidden = np.random.default_rng(3).normal(0, 2, (17, 32, 576)).astype(np.float32)
    tensor, states = torch.from_numpy(logits).to(device), torch.from_numpy(hidden).to(device)
    whole, spectra = token_signals(tensor, token), hidden_signals(states, derived(576))
    for rows in (slice(4, 5), slice(9, 17), slice(0, 2)):
        part, few = token_signals(tensor[rows], token[rows]), hidden_signals(states[rows], derived(576))
        assert part.log_probability.tobytes() == whole.log_probability[rows].tobytes()
        assert part.entropy.tobytes() == whole.entropy[rows].tobytes()
        assert part.log_nucleus.tobytes() == whole.log_nucleus[rows].tobytes()
        assert all(one.tobytes() == all_[rows].tobytes() for one, all_ in zip(few, spectra, strict=True))


def test_sessions_on_the_device_score_as_on_the_host(device: str) -> None:
    """96 steps of 6 sessions through `tcd_signals` on both sides, then the detector and the monitor on their windows.

    Step p-values are equal in at least 98 of 100 rows, and never differ by more than a few places of the table.
    """
    n, rng = 6, np.random.default_rng(5)
    host, guest = start(n), start(n)
    same = total = 0
    for _ in range(96):
        logits, token = _logits(n, seed=int(rng.integers(2**31)), vocabulary=400)
        hidden = rng.normal(0, 2, (n, 32, 576)).astype(np.float32)
        left = step({"LOGITS": logits, "TOKEN": token[:, None], "HIDDEN": hidden, **host}, ASSETS)
        moved = {"LOGITS": torch.from_numpy(logits).to(device), "HIDDEN": torch.from_numpy(hidden).to(device)}
        right = step({**moved, "TOKEN": token[:, None], **guest}, ASSETS)  # type: ignore[dict-item]
        host = {f"PREV_{name}": left[f"NEXT_{name}"] for name in WINDOWS}
        guest = {f"PREV_{name}": right[f"NEXT_{name}"] for name in WINDOWS}
        assert (left["NEXT_LENGTHS"] == right["NEXT_LENGTHS"]).all()
        for name in ("NEXT_TRACE", "NEXT_ENTROPY"):
            assert np.abs(left[name] - right[name]).max() < 2e-6
        base = pack([ScoreRow(key=KEY)] * n)
        scored = [
            diagnose({**base, **{k: out[f"NEXT_{k}"] for k in WINDOWS}, "SPECTRUM": out["SPECTRUM"]}, ASSETS)["P_STEP"]
            for out in (left, right)
        ]
        assert np.abs(scored[0] - scored[1]).max() < 2e-3
        same += int((scored[0] == scored[1]).sum())
        total += scored[0].size
    assert same >= 0.98 * total


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (64, 16), (9, 300)])
def test_distances_agree_after_quantisation(device: str, rows: int, width: int) -> None:
    rng = np.random.default_rng(width)
    factor, _ = cholesky(ledoit_wolf(rng.normal(0, 3, (2 * width + 2, width))).covariance)
    centred = rng.normal(0, 4, (rows, width))
    distance = mahalanobis(centred, factor)
    found = mahalanobis_of_tensors(torch.from_numpy(centred).to(device), torch.from_numpy(factor).to(device))
    assert found.device.type == device
    numbers = found.cpu().numpy()
    assert np.abs(numbers - distance).max() < 1e-9 * distance.max()
    assert (quantise(numbers) == quantise(distance)).all()
    assert mahalanobis_of_tensors(torch.zeros(0, width, device=device), torch.from_numpy(factor)).shape == (0,)
