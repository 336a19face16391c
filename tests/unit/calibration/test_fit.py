"""Fitting from recorded generations: labels, splits, determinism, and detection on prompts not seen."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcd.calibration import default_asset_dir, load_assets, report
from tcd.calibration.evaluate import auroc, cross_validate, evaluate_fold, folds_of, summarise
from tcd.calibration.fit import Split, _level, fit_directory, fit_traces, split_prompts
from tcd.calibration.heads import FEWER_GROUPS
from tcd.calibration.logistic import fit, robust_scale
from tcd.calibration.options import FitOptions
from tcd.calibration.steps import steps_of
from tcd.calibration.traces import load_traces, replay
from tcd.contract import detector_key
from tcd.errors import AssetError

SMALL = Path(__file__).parents[2] / "data" / "traces_small"
KEY = detector_key("m", "g", "t", "l", "b")


def test_labels_of_the_small_set() -> None:
    sequences = load_traces(SMALL).sequences
    assert len(sequences) == 26
    assert {s.kind for s in sequences} == {"healthy", "loop", "soft", "temperature", "shift", "severe", "mild"}
    for s in sequences:
        assert 0 <= s.healthy <= s.steps
        assert s.onset < s.steps
        if s.kind in {"severe", "mild"}:
            assert s.healthy == 0  # a copy of its parent up to the change
        elif s.onset >= 0:
            assert s.healthy <= s.onset


def test_replay_is_what_a_caller_would_send() -> None:
    sequence = load_traces(SMALL).sequences[0]
    out = replay(sequence, 118, 121)
    assert out["LENGTHS"][:, :5].tolist() == [[n, n, 16, 112, 16] for n in (119, 120, 121)]
    assert out["TRACE"][1, :120].tolist() == sequence.trace[:120].tolist()
    assert not out["TRACE"][1, 120:].any()
    window = out["FEATURES"][1].reshape(-1, 16)[:112]
    assert window.tolist() == sequence.features[8:120].tolist()


def test_splits_are_disjoint_and_stable() -> None:
    prompts = [f"p{i}" for i in range(21)]
    split = split_prompts(prompts, held_out=["p3"])
    assert not split.fit & split.conformal
    assert split.fit | split.conformal | {"p3"} == set(prompts)
    assert split_prompts(reversed(prompts), held_out=["p3"]) == split
    assert split_prompts(prompts, seed=1) != split


def test_folds_cover_every_prompt_once() -> None:
    prompts = tuple(f"p{i}" for i in range(10))
    folds = folds_of(prompts, 4)
    assert sorted(p for fold in folds for p in fold) == sorted(prompts)


def test_robust_scale_ignores_invalid_entries() -> None:
    values = np.array([[1.0], [2.0], [3.0], [1e9]])
    location, scale = robust_scale(values, np.array([[True], [True], [True], [False]]))
    assert (location[0], scale[0]) == (2.0, 1.4826)


def test_the_logistic_fit_finds_signs_and_keeps_quadratics_non_negative() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 3))
    logit = 1.5 * z[:, 0] + 0.8 * z[:, 1] ** 2 - 0.9 * z[:, 2] ** 2 - 1
    faulty = rng.random(4000) < 1 / (1 + np.exp(-logit))
    intercept, linear, quadratic = fit(z, faulty, np.full(4000, 1 / 4000), ridge=1e-6)
    assert linear[0] == pytest.approx(1.4, abs=0.3)
    assert quadratic[1] > 0.5
    assert quadratic[2] == 0
    assert intercept < 0


def test_auroc() -> None:
    assert auroc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1
    assert auroc(np.array([1.0]), np.array([1.0])) == 0.5
    assert np.isnan(auroc(np.zeros(0), np.zeros(1)))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("assets")
    fit_directory(SMALL, out, key=KEY[1], level=1, demo=True, options=FitOptions(least=2, masks=(1, 15)))
    return out


def test_a_fitted_directory_serves_its_key(fitted: Path) -> None:
    assets = load_assets(fitted)
    asset, match = assets.detector_match(KEY)
    assert asset is not None
    assert (match.level, match.fallback) == (1, False)
    assert asset.provenance.demo
    assert asset.provenance.source.startswith("traces.npz sha256:")
    assert asset.provenance.horizon == 352
    assert asset.provenance.n_steps == asset.masks[15].steps.shape[0] > 500
    assert asset.provenance.n_sessions == asset.masks[15].sessions.shape[0] >= 2
    assert assets.detector(detector_key("other", "g", "t", "l", "b"))[1] == -1


def test_a_fit_is_reproducible(fitted: Path, tmp_path: Path) -> None:
    fit_directory(SMALL, tmp_path, key=KEY[1], level=1, demo=True, options=FitOptions(least=2, masks=(1, 15)))
    one, other = (load_assets(path).detector(KEY)[0] for path in (fitted, tmp_path))
    assert one is not None
    assert other is not None
    for number, mask in one.masks.items():
        for head, again in zip(mask.heads, other.masks[number].heads, strict=True):
            assert head.linear == pytest.approx(again.linear, abs=1e-6)


def test_too_few_sessions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match="healthy sessions"):
        fit_directory(SMALL, tmp_path, key=1, level=2, options=FitOptions(least=99))


def test_a_directory_without_traces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"neither index\.parquet"):
        load_traces(tmp_path)
    (tmp_path / "a.json").write_text("[]")
    np.savez(tmp_path / "a.npz", x=np.zeros(1))
    with pytest.raises(AssetError, match="not a directory of traces"):
        load_traces(tmp_path)


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Path:
    return shared / "data" / "traces"


def test_detection_on_prompts_not_seen(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All signals; loose floors under what was measured, see docs for the table."""
    traces = load_traces(recorded)
    steps = [steps_of(s) for s in traces.sequences]
    floors = {15: 0.93, 3: 0.91, 1: 0.83}
    for mask, floor in floors.items():
        scored = [one for fold in folds_of(traces.prompts, 4) for one in evaluate_fold(steps, fold, mask=mask)]
        got = summarise(scored)
        with capsys.disabled():
            sys.stdout.write(f"\nmask {mask}: {json.dumps(got)}\n")
        assert got["auroc"] > floor
        # the level is set by alarms, of which a run of steps is one
        assert got["episodes_per_1000"] < 1
        assert got["alarms_per_1000"] < 5
        at = got["realised"]["alarms"]
        assert at["per_1000"] <= 1
        assert at["loop"]["within_64"][0] >= 0.97
        assert at["temperature"]["within_32"][0] > 0.9
        if mask == 15:
            assert got["auroc_loops_greedy"] > 0.985
            assert at["loop"]["within_32"][0] > 0.93
            assert at["loop"]["delay"] <= 12
            assert at["severe"]["within_64"][0] > 0.75
        assert got["session_p"]["0.1"] <= 0.25


def test_healthy_generations_alone_take_the_given_weights() -> None:
    sequences = [s for s in load_traces(SMALL).sequences if s.kind in {"healthy", "greedy"}]
    steps = [steps_of(s) for s in sequences]
    split = Split(frozenset(s.prompt_id for s in sequences[::2]), frozenset(s.prompt_id for s in sequences[1::2]))
    split = Split(split.fit - split.conformal, split.conformal)
    options = FitOptions(least=1, masks=(3,))
    with pytest.raises(AssetError, match="no faults"):
        fit_traces(steps, split, "s", demo=True, options=options)
    shipped = load_assets(default_asset_dir()).default
    assert shipped is not None
    assert shipped.detector is not None
    weights = load_assets(default_asset_dir()).detectors[shipped.detector].masks
    detector, _ = fit_traces(steps, split, "s", demo=True, options=replace(options, weights=weights))
    assert [h.linear.tolist() for h in detector.masks[3].heads] == [h.linear.tolist() for h in weights[3].heads]
    assert len(weights[3].heads) == len(FEWER_GROUPS)
    assert detector.masks[3].steps.shape[0] > 100


def test_cross_validation_of_the_small_set_runs() -> None:
    got, page = cross_validate(load_traces(SMALL), folds=5, mask=3, options=FitOptions(least=1))
    assert got["auroc"] > 0.6
    assert got["healthy_steps"] > 1000
    entry = got["p_values"]["healthy"]
    assert entry["sessions"] >= 3
    assert entry["0.1"][1] <= entry["0.1"][0] <= entry["0.1"][2]
    assert page.count('<svg class="plot"') == 3
    assert page.count("<polyline") >= 5
    assert "http" not in page


def test_coverage_and_ks_see_p_values_that_are_too_small() -> None:
    rng = np.random.default_rng(2)
    right = [rng.uniform(size=200) for _ in range(40)]
    wrong = [p**3 for p in right]
    good, bad = report.coverage(right), report.coverage(wrong)
    assert good["0.05"][1] <= 1 <= good["0.05"][2]
    assert good["ks_one_sided"] < 0.03
    assert bad["0.05"][1] > 3
    assert bad["ks_one_sided"] > 0.3
    assert report.coverage([])["steps"] == 0


def test_training_recordings_move_the_weights_and_nothing_else() -> None:
    steps = [steps_of(s) for s in load_traces(SMALL).sequences]
    prompts = sorted({s.sequence.prompt_id for s in steps})
    mine = [s for s in steps if s.sequence.prompt_id in prompts[::2]]
    other = tuple(s for s in steps if s.sequence.prompt_id in prompts[1::2])
    split = split_prompts(prompts[::2])
    options = FitOptions(least=1, masks=(15,))
    alone, reference = fit_traces(mine, split, "s", demo=True, options=options)
    more, same = fit_traces(mine, split, "s", demo=True, options=replace(options, training=other))
    assert (alone.location == more.location).all()
    assert (alone.scale == more.scale).all()
    assert reference is not None
    assert same is not None
    assert (reference.steps == same.steps).all()
    assert (alone.masks[15].heads[0].linear != more.masks[15].heads[0].linear).any()
    with pytest.raises(AssetError, match="prompts are in the data and in the training recordings"):
        fit_traces(mine, split, "s", demo=True, options=replace(options, training=(*other, mine[0])))


def test_a_level_counts_alarms_and_not_their_length() -> None:
    p = np.full(4000, 0.5)
    # an excursion of 20 steps, one apart, and one more in the next session
    p[100:120], p[300], p[2050] = 0.001, 0.002, 0.003
    session = np.repeat([0, 1], 2000)
    level = _level(p, session, 2000)
    assert 0.002 <= level < 0.003
    assert _level(p, session, 1000) < 0.5
    assert _level(p, session, 4000) == pytest.approx(0.002)
    assert _level(p, session, 5000) < 0.001
    # two steps of one excursion that lie in two sessions are two alarms
    assert _level(p, np.repeat([0, 1], [110, 3890]), 4000) < 0.001
