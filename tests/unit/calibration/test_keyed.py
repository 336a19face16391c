"""One fit of a log with several keys: each key its own assets, coarser ones for the rest, the claim that follows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sidecar_api.pins import Shape, resolve
from tcd.calibration import load_assets
from tcd.calibration.evaluate import score_sequence
from tcd.calibration.fit import shipped_weights
from tcd.calibration.keyed import Asked, KeyedFit, fit_keys, of_key
from tcd.calibration.log import load
from tcd.calibration.options import FitOptions
from tcd.calibration.steps import steps_of
from tcd.calibration.traces import Key, Sequence, Traces
from tcd.cli.calibrate import app
from tcd.contract import SUP_START, Status, detector_key, temperature_bucket, unpack_status
from tcd.errors import AssetError
from tcd.routing import DEFAULT_POLICY
from tcd.rows import ScoreRow
from tcd.scoring import LibraryScorer
from tests.unit.calibration.made import STEPS, sequence

OPTIONS = FitOptions(weights=shipped_weights(), masks=(1, 3))


def log_of(counts: dict[tuple[str, str, float], int], seed: int = 0) -> Traces:
    """Sessions by (model, task, temperature); hotter ones are more surprising."""
    rng = np.random.default_rng(seed)
    sequences = []
    for (model, task, temperature), count in counts.items():
        key = Key(model, "gpu0", task, "en", temperature_bucket(temperature))
        scale = 1.0 + 2.0 * temperature + (task == "code")
        sequences += [sequence(rng, f"{model}-{task}-{temperature}-{i}", key, scale) for i in range(count)]
    return Traces(tuple(sequences), "made up sha256:0")


COUNTS = {("m", "chat", 0.25): 60, ("m", "chat", 1.0): 60, ("m", "code", 1.0): 60, ("m", "code", 0.5): 6}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyedFit, Path]:
    out = tmp_path_factory.mktemp("keyed")
    return fit_keys(log_of(COUNTS), out, options=OPTIONS), out


def status_of(path: Path, sequence: Sequence, key: tuple[int, int, int]) -> tuple[Status, int, float]:
    """Status and asset of the detector, and the p of the hypothesis, at the last step of a session."""
    assets = load_assets(path)
    scorer = LibraryScorer(assets)
    sup = (SUP_START, SUP_START)
    for t in range(16, STEPS):
        row = ScoreRow(
            trace=sequence.trace[:t],
            entropy=sequence.entropy[:t],
            spectrum=np.zeros(0, np.float32),
            features=np.zeros((0, 0), np.float32),
            key=key,
            alpha=0.0,
            sup=sup,
            base=(1.0, 1.0, 0.0, 0.0),
        )
        result = scorer.score_rows([row])[0]
        sup = result.sup
    return unpack_status(result.status)[0], result.assets[0], result.p_value


def test_each_key_with_enough_sessions_has_assets_of_its_own(fitted: tuple[KeyedFit, Path]) -> None:
    found, path = fitted
    names = {one.key: one for one in found.fitted}
    assert {key for key, one in names.items() if one.exact} == {
        ("m", "gpu0", "chat", "en", "0.25"),
        ("m", "gpu0", "chat", "en", "1.00"),
        ("m", "gpu0", "code", "en", "1.00"),
    }
    assert set(names) >= {("m", "gpu0", "chat", "en"), ("m", "gpu0", "code", "en"), ("m",), ()}
    assert list(found.under) == [("m", "gpu0", "code", "en", "0.50")]
    assert all(one.sessions >= 16 for one in found.fitted)
    # one model: its assets are those of everything
    assert names["m",].binding.detector == names[()].binding.detector
    assets = load_assets(path)
    assert len(assets.detectors) == 6
    assert not assets.multivariates
    assert {mask for d in assets.detectors.values() for mask in d.masks} == {1, 3}


def test_a_key_with_a_temperature_gets_its_own_and_an_under_sampled_one_a_fall_back(
    fitted: tuple[KeyedFit, Path],
) -> None:
    found, path = fitted
    own = {one.key: one.binding.detector for one in found.fitted}
    rng = np.random.default_rng(9)
    assets = load_assets(path)
    for model, task, temperature, expected, fallback in (
        ("m", "chat", 0.3, ("m", "gpu0", "chat", "en", "0.25"), False),
        ("m", "chat", 1.0, ("m", "gpu0", "chat", "en", "1.00"), False),
        ("m", "code", 0.5, ("m", "gpu0", "code", "en"), True),
        ("m", "code", None, ("m", "gpu0", "code", "en"), True),
        ("m", "poetry", 1.0, ("m",), True),
        ("other", "chat", 1.0, (), True),
    ):
        names = Key(model, "gpu0", task, "en", temperature_bucket(temperature))
        new = sequence(rng, "new", names, 3.0)
        status, asset, p = status_of(path, new, detector_key(*names))
        assert bool(status & Status.FALLBACK) is fallback, names
        digest = own[expected]
        assert digest is not None
        assert asset == int(digest[7:23], 16), names
        assert 0 < p <= 1
        reasons = resolve(assets, detector_key(*names), Shape(3, 0, short=False), alpha=0.05).reasons
        assert ("fallback" in reasons) is fallback


@pytest.mark.parametrize("logs", [4, pytest.param(60, marks=pytest.mark.long)])
def test_the_right_key_is_calibrated_and_the_wrong_one_is_not(tmp_path: Path, logs: int) -> None:
    """N = 4 (60) logs x 80 new sessions of a hot key: P(p <= .2) under its own table, and under a cold key's.

    Given one set of 40 sessions the rate has a standard deviation of .06, and .045 from 80 new ones: .075 together.
    """
    hot, cold = Key("m", "gpu0", "chat", "en", "1.00"), Key("m", "gpu0", "chat", "en", "0.00")
    rates: dict[Key, list[float]] = {hot: [], cold: []}
    for seed in range(logs):
        log = log_of({("m", "chat", 1.0): 60, ("m", "chat", 0.06): 60}, seed=seed)
        fit_keys(log, tmp_path / str(seed), options=replace(OPTIONS, masks=(3,)))
        assets = load_assets(tmp_path / str(seed))
        rng = np.random.default_rng(seed + 100)
        new = [steps_of(sequence(rng, "new", hot, 3.0)) for _ in range(80)]
        for key, found in rates.items():
            asset = assets.detectors[assets.bindings[key.value(0)].detector]  # type: ignore[index]
            found.append(sum(score_sequence(one, asset, None, 3).session_p <= 0.2 for one in new) / 80)
    assert sum(rates[hot]) / logs <= 0.2 + 3 * 0.075 / logs**0.5
    assert sum(rates[cold]) / logs >= 0.5


def test_calibrating_per_model_makes_the_model_exact(tmp_path: Path) -> None:
    found = fit_keys(log_of({("m", "chat", 1.0): 40, ("n", "chat", 1.0): 40}), tmp_path, level=2, options=OPTIONS)
    assert [(one.key, one.exact) for one in found.fitted] == [(("m",), True), (("n",), True), ((), False)]
    assets = load_assets(tmp_path)
    assert not assets.detector_match(detector_key("m", "g", "t", "l", "b"))[1].fallback
    assert assets.detector_match(detector_key("x", "g", "t", "l", "b"))[1].fallback


def test_delta_is_shared_by_all_assets_of_a_fit(tmp_path: Path) -> None:
    found = fit_keys(
        log_of({("m", "chat", 1.0): 60, ("m", "code", 1.0): 60}), tmp_path, options=replace(OPTIONS, delta=0.01)
    )
    assets = load_assets(tmp_path)
    assert assets.confidence == 0.99
    assert {round(a.delta, 9) for a in assets.detectors.values()} == {round(0.01 / 3, 9)}
    key = detector_key("m", "gpu0", "chat", "en", "1.00")
    pins = resolve(assets, key, Shape(3, 0, short=False), alpha=0.05)
    assert (pins.confidence, pins.reasons) == (0.99, ("calibration too small",))
    (own,) = [one for one in found.fitted if one.level == 0 and one.key[2] == "chat"]
    assert pins.p_floor == min(1.0, own.p_floor / DEFAULT_POLICY.weight)


def test_a_log_in_which_no_key_has_enough_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="no key has 16 healthy conformal sessions, the best has 6 of 9"):
        fit_keys(log_of({("m", "chat", 1.0): 9}), tmp_path, options=OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_sessions_with_different_signals_are_refused(tmp_path: Path) -> None:
    traces = log_of({("m", "chat", 1.0): 40})
    bare = replace(traces.sequences[0], entropy=np.zeros(0, np.float32))
    with pytest.raises(AssetError, match=r"different signals: trace, trace\+entropy"):
        fit_keys(Traces((bare, *traces.sequences[1:]), "x"), tmp_path, options=OPTIONS)


def test_labelled_faults_teach_weights_that_all_keys_share(tmp_path: Path) -> None:
    traces = log_of({("m", "chat", 1.0): 60, ("m", "chat", 0.25): 60})
    hot = []
    for i, one in enumerate(traces.sequences):
        if i % 5:
            hot.append(one)
        else:
            trace = one.trace.copy()
            trace[20:] *= 4
            hot.append(replace(one, trace=trace, kind="temperature", healthy=20, onset=20, complete=False))
    fit_keys(Traces(tuple(hot), "x"), tmp_path, options=replace(OPTIONS, weights={}))
    heads = {a.masks[3].heads[0].linear.tobytes() for a in load_assets(tmp_path).detectors.values()}
    assert len(heads) == 1
    assert heads != {shipped_weights()[3].heads[0].linear.tobytes()}


def write_log(path: Path, traces: Traces, change: Callable[[dict[str, Any]], None] = lambda _: None) -> Path:
    with path.open("w") as file:
        for one in traces.sequences:
            assert one.key is not None
            row = {
                "session": one.session,
                **{name: getattr(one.key, name) for name in ("model_id", "gpu_id", "task", "lang")},
                "temperature": float(one.key.bucket),
                "log_prob": one.trace.tolist(),
                "entropy": one.entropy.tolist(),
            }
            change(row)
            file.write(json.dumps(row) + "\n")
    return path


def test_the_command_fits_a_log_by_key_or_one_key_of_it(tmp_path: Path) -> None:
    log = write_log(tmp_path / "a.jsonl", log_of({("m", "chat", 1.0): 40, ("m", "code", 1.0): 40}))
    result = CliRunner().invoke(app, ["fit", "--data", str(log), "--out", str(tmp_path / "a"), "--conditional", "0.01"])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assets = load_assets(tmp_path / "a")
    assert lines[0] == f"manifest {assets.manifest_digest}"
    assert any(line.startswith("m/gpu0/code/en/1.00: ") for line in lines)
    assert assets.confidence == 0.99
    assert next(iter(assets.detectors.values())).provenance.source.startswith("a.jsonl sha256:")
    one = CliRunner().invoke(
        app, ["fit", "--data", str(log), "--out", str(tmp_path / "b"), "--model-id", "m", "--no-default"]
    )
    assert one.exit_code == 0, one.output
    assets = load_assets(tmp_path / "b")
    assert not assets.detector_match(detector_key("m", "g", "t", "l", "b"))[1].fallback
    assert assets.default is None


def test_mixed_keys_where_one_is_asked_are_refused(tmp_path: Path) -> None:
    traces = load(write_log(tmp_path / "a.jsonl", log_of({("m", "chat", 1.0): 2, ("n", "chat", 1.0): 2})))
    with pytest.raises(AssetError, match=r"mixed keys: session 'n-chat-1\.0-0' has model_id 'n', not 'm'"):
        of_key(traces, Asked(model_id="m"))
    assert of_key(traces, Asked(task="chat")) is traces
    with pytest.raises(AssetError, match=r"has bucket '1\.00', not '0\.50'"):
        of_key(traces, Asked(bucket="0.50"))
