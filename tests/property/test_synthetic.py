"""Synthetic generations are what they say, and the ensemble does with them what it promises for any input."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tcd.calibration import default_asset_dir, load_assets
from tcd.calibration.fit import fit_directory
from tcd.calibration.options import FitOptions
from tcd.calibration.traces import Sequence, load_traces, replay
from tcd.cli.synth import command
from tcd.contract import COMPONENTS, SUP_START, Signal, Status, detector_key, unpack_status
from tcd.demo.labels import soft_loop, verbatim_loop
from tcd.demo.recording.made_up import make_part, make_plan
from tcd.demo.recording.realism import compare
from tcd.demo.recording.synthetic import Signals, Tables, blow_up, drift, healthy, loop, missing
from tcd.routing import DEFAULT_POLICY, merge
from tcd.scoring import diagnose

ASSETS = load_assets(default_asset_dir())
TABLES = Tables.shipped()
KEY = detector_key("smollm2-135m", "gpu0", "chat", "en", "1.00")
ONSET, LENGTH = 128, 256
RECURRENCE = COMPONENTS.index("recurrence")
Outputs = dict[str, NDArray[Any]]


def _sequence(signals: Signals, *, onset: int = -1) -> Sequence:
    columns = {name: values.astype(np.float32) for name, values in signals.columns().items()}
    return Sequence(
        prompt_id="synthetic",
        kind="healthy",
        trace=columns["lp"],
        entropy=columns["ent"],
        spectrum=columns["sv"],
        features=columns["feat"],
        healthy=LENGTH,
        onset=onset,
        complete=True,
    )


def _request(sequence: Sequence, first: int, last: int) -> Outputs:
    n = last - first
    return {
        **replay(sequence, first, last),
        "KEY": np.tile(np.array(KEY, np.uint64), (n, 1)),
        "POLICY": np.zeros((n, 1), np.uint64),
        "ALPHA": np.zeros((n, 1)),
        "SUP": np.full((n, 2), SUP_START),
        "BASE": np.tile(np.array([1.0, 1.0, 0.0, 0.0], np.float32), (n, 1)),
    }


def _scored(signals: Signals, first: int = 0, last: int = LENGTH) -> Outputs:
    return dict(diagnose(_request(_sequence(signals), first, last), ASSETS))


@cache
def _base(seed: int) -> Signals:
    return healthy(TABLES, np.random.default_rng(seed), LENGTH)


def test_the_same_seed_gives_the_same_generation_and_its_text_does_not_repeat() -> None:
    again = healthy(TABLES, np.random.default_rng(0), LENGTH)
    assert (again.entropy == _base(0).entropy).all()
    assert (again.features == _base(0).features).all()
    assert not (_base(1).entropy == _base(0).entropy).any()
    for seed in range(20):
        tokens = _base(seed).tokens.tolist()
        assert verbatim_loop(tokens) is None
        assert soft_loop(tokens) is None
        assert _base(seed).entropy.min() >= 0
        assert _base(seed).surprisal.min() >= 0


def test_healthy_generations_look_like_the_recorded_ones(shared: Path) -> None:
    """400 synthetic generations against the recordings: what docs/benchmarks.md states of the realism."""
    recorded = load_traces(shared / "data" / "traces").sequences
    made = compare([_sequence(healthy(TABLES, np.random.default_rng([9, i]), LENGTH)) for i in range(400)])
    for signal, real in compare(recorded).items():
        got = made[signal]
        assert abs(got.mean - real.mean) < 0.15 * real.deviation, signal
        assert abs(got.deviation / real.deviation - 1) < 0.15, signal
        assert abs(got.between - real.between) < 0.18, signal
        assert np.abs(np.subtract(got.memory, real.memory)).max() < 0.1, signal


def test_the_shipped_tables_are_those_of_the_recordings(shared: Path) -> None:
    measured = Tables.measure(load_traces(shared / "data" / "traces").sequences)
    for name in (
        "entropy",
        "surprisal",
        "nucleus",
        "feature_mean",
        "feature_factor",
        "spectrum_mean",
        "spectrum_factor",
    ):
        assert np.allclose(getattr(TABLES, name), getattr(measured, name), rtol=1e-4, atol=1e-9), name


@pytest.mark.parametrize("period", [1, 2, 5, 16, 33, 64, 96])
def test_a_loop_raises_recurrence(period: int) -> None:
    """Whatever its period: from 24 copied tokens on, recurrence is above that of the healthy twin at every step."""
    for seed in range(4):
        looped = loop(_base(seed), np.random.default_rng(seed), onset=ONSET, period=period)
        found = verbatim_loop(looped.tokens.tolist())
        assert found is not None
        assert found.period == period
        late = slice(ONSET + 24, LENGTH)
        z = _scored(looped)["COMPONENTS"][late, RECURRENCE, 2]
        twin = _scored(_base(seed))["COMPONENTS"][late, RECURRENCE, 2]
        assert (z > twin).mean() > 0.95
        assert np.median(z) > np.quantile(twin, 0.99)


def test_a_loop_cannot_begin_before_its_first_period() -> None:
    for onset, period in ((5, 6), (5, 0)):
        with pytest.raises(ValueError, match="cannot begin"):
            loop(_base(0), np.random.default_rng(0), onset=onset, period=period)


def test_nothing_changes_before_an_onset() -> None:
    rng = np.random.default_rng(3)
    faulty = (
        loop(_base(0), rng, onset=ONSET, period=9),
        drift(_base(0), TABLES, rng, onset=ONSET, strength=2.0),
        blow_up(_base(0), TABLES, rng, onset=ONSET, temperature=2.0),
    )
    clean = _scored(_base(0), 0, ONSET)
    for signals in faulty:
        scored = _scored(signals, 0, ONSET)
        assert all(clean[name].tobytes() == scored[name].tobytes() for name in clean)


def _mean_p(make: Any, strengths: tuple[float, ...], seeds: int = 24) -> list[float]:
    """Mean step p of the detector from 16 steps after the onset, by strength of the fault."""
    out = []
    for strength in strengths:
        late = [
            _scored(make(_base(seed), np.random.default_rng(seed), strength), ONSET + 16, ONSET + 64)["P_STEP"][:, 0]
            for seed in range(seeds)
        ]
        out.append(float(np.mean(late)))
    return out


def test_a_stronger_drift_has_a_smaller_p() -> None:
    means = _mean_p(lambda s, rng, k: drift(s, TABLES, rng, onset=ONSET, strength=k), (0.0, 0.5, 1.0, 2.0))
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.25 * means[0]


def test_a_hotter_blow_up_has_a_smaller_p() -> None:
    means = _mean_p(lambda s, rng, k: blow_up(s, TABLES, rng, onset=ONSET, temperature=k), (1.0, 1.3, 2.0))
    assert means == sorted(means, reverse=True)
    assert means[-1] < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_p_falls_with_the_score_and_the_running_maximum_never_falls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    signals = loop(_base(seed), rng, onset=ONSET, period=int(rng.integers(1, 40)))
    request = _request(_sequence(signals), 0, LENGTH)
    p_before, sup = np.inf, np.full((1, 2), SUP_START)
    for t in range(0, LENGTH, 4):
        row = {name: array[t : t + 1] for name, array in request.items()} | {"SUP": sup}
        out = diagnose(row, ASSETS)
        assert (out["SUP_OUT"] >= sup).all()
        assert 0.0 < out["P_VALUE"][0, 0] <= min(p_before, 1.0)
        merged = merge(out["P_STEP"][0, 0], out["P_STEP"][0, 1], DEFAULT_POLICY.weight)
        assert out["SCORE"][0, 0] == pytest.approx(1.0 - merged, abs=1e-6)
        sup, p_before = out["SUP_OUT"], float(out["P_VALUE"][0, 0])


@pytest.mark.parametrize("absent", [Signal.FEATURES, Signal.SPECTRUM | Signal.FEATURES, Signal.ENTROPY, Signal.TRACE])
def test_what_is_missing_has_no_influence(absent: Signal) -> None:
    request = _request(_sequence(_base(5)), LENGTH - 8, LENGTH)
    other = _request(_sequence(drift(_base(6), TABLES, np.random.default_rng(0), onset=0, strength=3.0)), 0, LENGTH)
    without = missing(request, absent)
    garbage = dict(without)
    for signal in Signal:
        if absent & signal and signal.name:
            width = without[signal.name].shape[1]
            garbage[signal.name] = np.ascontiguousarray(other[signal.name][-8:, :width])
    one, two = diagnose(without, ASSETS), diagnose(garbage, ASSETS)
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes(), name
    assert (one["P_STEP"] > 0).all()
    assert (one["P_STEP"] <= 1).all()
    if absent & Signal.FEATURES:
        assert (one["P_STEP"][:, 1] == 1).all()
        assert unpack_status(int(one["STATUS"][0, 0]))[1] & Status.ABSENT


def test_sessions_are_valid_where_they_are_exchangeable(tmp_path: Path) -> None:
    """Fitted on 90 healthy generations: of 200 fresh ones, no more than alpha reject, at alpha = .1 and .2.

    The bound holds on average over calibrations; here 30 sessions calibrate, whose own share at .2 has a standard
    deviation of .07. A violation by three of the joint standard deviations refutes.
    """
    command(tmp_path / "data", regimes="healthy:90,lowtemp:12,tempblow:12,corrupt:12", length=128, seed=4)
    key, least = detector_key("synthetic", "gpu0", "chat", "en", "default")[2], 8
    fit_directory(tmp_path / "data", tmp_path / "fit", key=key, level=2, options=FitOptions(least=least, masks=(15,)))
    assets = load_assets(tmp_path / "fit")
    asset, _ = assets.detector((0, 0, key))
    assert asset is not None
    sessions = asset.masks[15].sessions
    n, alphas = 200, np.array([0.1, 0.2])
    p = np.empty(n)
    for i in range(n):
        request = _request(_sequence(healthy(TABLES, np.random.default_rng([77, i]), 128)), 0, 128)
        request["KEY"] = np.tile(np.array((0, 0, key), np.uint64), (128, 1))
        top = diagnose(request, assets)["SUP_OUT"][:, 0].max()
        p[i] = (1 + (sessions >= top).sum()) / (sessions.shape[0] + 1)
    realised = (p[:, None] <= alphas).mean(axis=0)
    slack = 3.0 * np.sqrt(alphas * (1 - alphas) * (1 / n + 1 / sessions.shape[0]))
    assert (realised <= alphas + slack).all(), realised
    assert realised[1] > 0.02


def test_the_command_writes_what_the_readers_read(tmp_path: Path) -> None:
    command(tmp_path / "a", regimes="healthy:3,lowtemp:2,tempblow:2,corrupt:2", length=128, seed=1)
    command(tmp_path / "b", regimes="healthy:3,lowtemp:2,tempblow:2,corrupt:2", length=128, seed=1)
    traces = load_traces(tmp_path / "a")
    assert [s.kind for s in traces.sequences] == [*["healthy"] * 3, *["loop"] * 2, *["temperature"] * 2, *["mild"] * 2]
    assert all(0 < s.onset < 128 for s in traces.sequences if s.kind != "healthy")
    assert "synthetic" in (tmp_path / "a" / "README.md").read_text()
    for name, array in np.load(tmp_path / "a" / "traces.npz").items():
        assert (array == np.load(tmp_path / "b" / "traces.npz")[name]).all()


@pytest.mark.parametrize(
    "options",
    [{"regimes": {"shift": 1}}, {"regimes": {}}, {"length": 10}, {"strength": 0.0}, {"regimes": {"healthy": 0}}],
)
def test_bad_plans_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        make_plan(**{"regimes": {"healthy": 1}, "strength": 1.0, "length": 128, "seed": 0, **options})


def test_parts_are_seeded_one_by_one() -> None:
    plan = make_plan({"healthy": 2, "corrupt": 2}, strength=1.0, length=96, seed=3)
    (first, second), _ = make_part(TABLES, plan[0])
    assert not (first["ent"] == second["ent"]).all()
    (again, _), forced = make_part(TABLES, make_plan({"healthy": 2}, strength=2.0, length=96, seed=3)[0])
    assert (again["ent"] == first["ent"]).all()
    assert forced == [0, 0]
