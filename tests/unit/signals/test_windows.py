"""Rolling windows: growth, limits, flags, and how a bad step is marked and recovered from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tcd.calibration import default_asset_dir, load_assets
from tcd.contract import MAX_WINDOW, SIGNALS, Length
from tcd.rows import Tensors
from tcd.signals import raw_step, start

ASSETS = load_assets(default_asset_dir())


def made(n: int = 1, *, seed: int = 0, width: int = 24) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, 50)).astype(np.float32)
    return logits, rng.integers(0, 50, n).astype(np.int32), rng.normal(size=(n, 32, width)).astype(np.float32)


def follow(out: Tensors) -> Tensors:
    names = ("TRACE", "ENTROPY", "FEATURES", "LENGTHS")
    return {f"PREV_{name}": out[f"NEXT_{name}"] for name in names}


def test_a_session_grows_step_by_step() -> None:
    previous, seen = start(2, flags=5), []
    for i in range(70):
        logits, token, hidden = made(2, seed=i)
        out = raw_step(logits, token, hidden, previous, ASSETS)
        seen.append(out["NEXT_TRACE"][:, i].copy())
        previous = follow(out)
    assert out["NEXT_LENGTHS"].tolist() == [[70, 70, 16, 70, 16, 5]] * 2
    assert out["NEXT_TRACE"].shape == (2, 256)
    assert out["NEXT_FEATURES"].shape == (2, 4096)
    assert out["NEXT_TRACE"][:, :70].tolist() == np.stack(seen, axis=1).tolist()
    assert not out["NEXT_TRACE"][:, 70:].any()
    assert not out["NEXT_FEATURES"][:, 70 * 16 :].any()


def test_full_windows_drop_their_oldest() -> None:
    previous = start(1)
    previous["PREV_TRACE"] = -np.arange(MAX_WINDOW, dtype=np.float32)[None]
    previous["PREV_ENTROPY"] = np.arange(MAX_WINDOW, dtype=np.float32)[None]
    previous["PREV_FEATURES"] = np.repeat(np.arange(112, dtype=np.float32), 16)[None]
    previous["PREV_LENGTHS"] = np.array([[MAX_WINDOW, MAX_WINDOW, 16, 112, 16, 1]], np.int32)
    out = raw_step(*made(), previous, ASSETS)
    assert out["NEXT_LENGTHS"].tolist() == [[MAX_WINDOW, MAX_WINDOW, 16, 112, 16, 1]]
    assert out["NEXT_TRACE"][0, :3].tolist() == [-1, -2, -3]
    assert out["NEXT_ENTROPY"][0, MAX_WINDOW - 2] == MAX_WINDOW - 1
    assert out["NEXT_FEATURES"][0, 0] == 1
    assert out["NEXT_FEATURES"][0, 110 * 16] == 111
    assert out["NEXT_FEATURES"].shape == (1, 4096)


def test_rows_of_different_ages_share_a_batch() -> None:
    previous = start(2)
    previous["PREV_TRACE"] = np.full((2, 64), -2.0, np.float32)
    previous["PREV_ENTROPY"] = np.full((2, 64), 2.0, np.float32)
    previous["PREV_LENGTHS"] = np.array([[0] * 6, [64, 64, 0, 0, 0, 0]], np.int32)
    out = raw_step(*made(2), previous, ASSETS)
    assert out["NEXT_LENGTHS"][:, Length.TRACE].tolist() == [1, 65]
    assert out["NEXT_TRACE"].shape == (2, 256)
    assert not out["NEXT_TRACE"][0, 1:].any()


@pytest.mark.parametrize("fault", ["logits", "token", "hidden"])
def test_a_bad_step_is_marked_and_the_next_goes_on(fault: str) -> None:
    previous = follow(raw_step(*made(seed=1), start(1), ASSETS))
    logits, token, hidden = made(seed=2)
    if fault == "logits":
        logits[0, 3] = np.nan
    elif fault == "token":
        token[0] = 50
    else:
        hidden[0, 4, 4] = np.inf
    bad = raw_step(logits, token, hidden, previous, ASSETS)
    assert bad["NEXT_LENGTHS"][0, :4].tolist() == [~1, ~1, ~0, ~1]
    assert all(np.isfinite(array).all() for array in bad.values())
    after = raw_step(*made(seed=3), follow(bad), ASSETS)
    assert after["NEXT_LENGTHS"].tolist() == [[2, 2, 16, 2, 16, 0]]
    assert after["NEXT_TRACE"][0, 0] == previous["PREV_TRACE"][0, 0]


@pytest.mark.parametrize(
    "lengths", [[65, 0, 0, 0, 0, 0], [0, 0, 0, 9, 7, 0], [0, 0, 0, 17, 16, 0], [0, 99, 0, 0, 0, 0]]
)
def test_windows_that_do_not_fit_start_anew_and_are_marked(lengths: list[int]) -> None:
    previous = {**start(1), "PREV_LENGTHS": np.array([lengths], np.int32)}
    out = raw_step(*made(), previous, ASSETS)
    assert out["NEXT_LENGTHS"][0, 0] == ~0
    assert not out["NEXT_TRACE"].any()


def test_without_hidden_states_only_tokens_count() -> None:
    logits, token, _ = made()
    out = raw_step(logits, token, np.zeros((1, 0, 0), np.float32), start(1), ASSETS)
    assert out["NEXT_LENGTHS"].tolist() == [[1, 1, 0, 0, 0, 0]]
    assert not out["SPECTRUM"].any()


def test_a_narrow_model_has_a_shorter_spectrum() -> None:
    out = raw_step(*made(width=6), start(1), ASSETS)
    assert out["NEXT_LENGTHS"][0, Length.SPECTRUM] == 6


def test_outputs_are_the_contracts() -> None:
    out = raw_step(*made(), start(1), ASSETS)
    assert list(out) == [tensor.name for tensor in SIGNALS.outputs]
