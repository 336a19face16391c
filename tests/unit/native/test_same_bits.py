"""The compiled kernels and the numpy code give the same bits: raw statistics, and every output of the ensemble."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tcd.calibration import AssetSet, default_asset_dir, load_assets
from tcd.calibration.assets import MultivariateAsset
from tcd.calibration.traces import load_traces, replay
from tcd.contract import Length
from tcd.detector import statistics
from tcd.detector.catalogue import NAMES
from tcd.detector.statistics import Raw
from tcd.detector.windows import counts_of
from tcd.rows import ScoreRow, Tensors, pack
from tcd.scoring import diagnose
from tests.unit.detector.hostile import KEYS, LENGTHS, hostile_row, rows_of_one_size, spoilt

DATA = Path(__file__).parents[2] / "data" / "traces_small"
ASSETS = load_assets(default_asset_dir())


def compute(tensors: Tensors) -> Raw:
    trace, entropy, spectrum, features = (tensors[name] for name in ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES"))
    counts = counts_of(
        tensors["LENGTHS"],
        trace=trace.shape[1],
        entropy=entropy.shape[1],
        spectrum=spectrum.shape[1],
        features=features.shape[1],
    )
    return statistics.compute(trace, entropy, spectrum, features, counts)


def assert_same_statistics(one: Raw, other: Raw) -> None:
    assert one.nonfinite.tolist() == other.nonfinite.tolist()
    assert one.valid.tolist() == other.valid.tolist()
    assert one.age.tolist() == other.age.tolist()
    differ = one.valid & ~one.nonfinite[:, None] & (one.values != other.values)
    # a row without evidence is zero in both
    assert not one.values[one.nonfinite].any()
    assert not other.values[one.nonfinite].any()
    named = [(int(i), NAMES[f], one.values[i, f], other.values[i, f]) for i, f in np.argwhere(differ)[:8]]
    assert not named, (int(differ.sum()), named)


def assert_same_outputs(one: Tensors, other: Tensors) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        assert array.shape == other[name].shape, name
        # what the models rely on for the kernels' outputs
        assert array.dtype.kind != "f" or np.isfinite(array).all(), name
        assert array.tobytes() == np.ascontiguousarray(other[name]).tobytes(), (
            name,
            np.argwhere(array != other[name])[:5].tolist(),
            array[array != other[name]][:5],
            other[name][array != other[name]][:5],
        )


@pytest.mark.parametrize("hostility", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(6))
def test_any_row_has_the_same_statistics_and_answers(both: Any, seed: int, hostility: float) -> None:
    rng = np.random.default_rng(seed)
    tensors = pack([hostile_row(rng, hostility) for _ in range(150)])
    for mixed in (tensors, spoilt(tensors, rng)):
        assert_same_statistics(*both(lambda mixed=mixed: compute(mixed)))
        assert_same_outputs(*both(lambda mixed=mixed: diagnose(mixed, ASSETS)))


@pytest.mark.parametrize("n", LENGTHS)
def test_rows_that_share_their_counts(both: Any, n: int) -> None:
    tensors = pack(rows_of_one_size(n, 5))
    assert_same_statistics(*both(lambda: compute(tensors)))
    assert_same_outputs(*both(lambda: diagnose(tensors, ASSETS)))


def test_recorded_generations(both: Any) -> None:
    scored = 0
    for sequence in load_traces(DATA).sequences:
        t = replay(sequence, 0, sequence.steps)
        n = sequence.steps
        rest = pack([ScoreRow(key=KEYS[0], alpha=0.05, controller=True)] * n)
        tensors = {**rest, **{name: t[name] for name in ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES", "LENGTHS")}}
        assert_same_statistics(*both(lambda tensors=tensors: compute(tensors)))
        assert_same_outputs(*both(lambda tensors=tensors: diagnose(tensors, ASSETS)))
        scored += n
    assert scored > 1000


def other_assets() -> AssetSet:
    """A moving average in place of the newest vector."""
    digest, asset = next(iter(ASSETS.multivariates.items()))
    assert isinstance(asset, MultivariateAsset)
    return replace(ASSETS, multivariates={digest: replace(asset, smoothing=0.2)})


def test_a_moving_average_of_features(both: Any) -> None:
    rng = np.random.default_rng(7)
    tensors = pack([hostile_row(rng, 0.1) for _ in range(60)])
    assets = other_assets()
    assert_same_outputs(*both(lambda: diagnose(tensors, assets)))


def test_tensors_of_other_layouts(both: Any) -> None:
    rng = np.random.default_rng(8)
    tensors = pack([hostile_row(rng, 0.0) for _ in range(20)])
    strided = {name: np.repeat(array, 2, axis=1)[:, ::2] for name, array in tensors.items()}
    turned = {name: array[::-1] for name, array in tensors.items()}
    plain, _ = both(lambda: diagnose(tensors, ASSETS))
    assert_same_outputs(plain, both(lambda: diagnose(strided, ASSETS))[0])
    backwards = both(lambda: diagnose(turned, ASSETS))[0]
    assert_same_outputs(plain, {name: np.ascontiguousarray(array[::-1]) for name, array in backwards.items()})


def test_a_batch_without_rows(both: Any) -> None:
    empty = {name: array[:0] for name, array in pack([ScoreRow()]).items()}
    one, other = both(lambda: diagnose(empty, ASSETS))
    assert_same_outputs(one, other)
    assert one["STATUS"].shape == (0, 1)
    assert len(Length) == 6
