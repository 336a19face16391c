"""The bench of the session unit: guarantees that a split could refute, statistics with known answers, bad files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

from tcd.bench.sessions import features, learned, measure, peers, report, rules, splits, stopping, stream
from tcd.bench.sessions.data import COLUMNS, Sessions, load, load_all, of_rows, synthetic
from tcd.cli.main import app
from tcd.errors import AssetError


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return synthetic(1000, 1)


@pytest.fixture(scope="module")
def found(sessions: Sessions) -> dict[str, Any]:
    return measure.measure([sessions], small=True)


def _write(path: Path, sessions: Sessions) -> Path:
    lines = [",".join(COLUMNS)]
    for i in range(len(sessions)):
        lines += [
            f"{i},{s + 1},{sessions.scores[i, s]:.6f},{int(sessions.solved[i])}" for s in range(sessions.length[i])
        ]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(lines) + "\n")
    return path


# -- data ------------------------------------------------------------------------------------------------


def test_a_file_reads_back(tmp_path: Path, sessions: Sessions) -> None:
    read = load(_write(tmp_path / "made.csv.gz", sessions))
    assert read.name == "made"
    np.testing.assert_array_equal(read.length, sessions.length)
    np.testing.assert_array_equal(read.solved, sessions.solved)
    np.testing.assert_allclose(read.scores, sessions.scores, atol=1e-6)


ROWS = [(i, s, 0.5, i % 2) for i in range(120) for s in (1, 2)]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([(0, 2, 0.5, 1), *ROWS[1:]], "in order"),
        ([*ROWS, *ROWS[:2]], "occurs twice"),
        ([*ROWS[:-1], (119, 2, 1.5, 1)], r"in \[0, 1\]"),
        ([*ROWS[:-1], (119, 2, float("nan"), 1)], r"in \[0, 1\]"),
        ([*ROWS[:-1], (119, 2, 0.5, 0)], "the same in all steps"),
        ([(t, s, p, 1) for t, s, p, _ in ROWS], "of each label"),
        ([], "of each label"),
    ],
)
def test_rows_that_are_no_sessions_are_refused(rows: list[tuple[int, int, float, int]], reason: str) -> None:
    with pytest.raises(AssetError, match=reason):
        of_rows("bad", rows)


@pytest.mark.parametrize(
    "content",
    [b"traj,step\n0,1\n", b"", b"\x1f\x8bnot gzip at all", b"traj,num_steps,judge_probability,solved\n0,one,0.5,1\n"],
)
def test_files_that_are_no_data_set_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / ("bad.csv.gz" if content.startswith(b"\x1f") else "bad.csv")
    path.write_bytes(content)
    with pytest.raises(AssetError, match=r"bad"):
        load(path)


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"no \.csv"):
        load_all(tmp_path)


# -- statistics ------------------------------------------------------------------------------------------


def test_features_of_a_prefix_do_not_depend_on_what_comes_later(sessions: Sessions) -> None:
    full = features.prefixes(sessions)
    cut = Sessions("cut", sessions.scores[:, :4], np.minimum(sessions.length, 4), sessions.solved)
    early = features.prefixes(cut)
    kept = full.step < 4
    np.testing.assert_array_equal(full.values[kept], early.values)
    np.testing.assert_array_equal(full.session[kept], early.session)


def test_the_learned_statistic_does_not_see_the_future_or_the_label(sessions: Sessions) -> None:
    fitted = learned.fit(sessions.take(np.arange(600)), alpha=0.05, seed=0)
    test = sessions.take(np.arange(600, 1000))
    values = fitted.of(test)
    cut = Sessions("cut", test.scores[:, :5], np.minimum(test.length, 5), ~test.solved)
    np.testing.assert_allclose(fitted.of(cut), values[:, :5], rtol=0.0, atol=1e-9)
    np.testing.assert_array_equal(np.isnan(values), np.isnan(test.scores))


def test_sessions_longer_than_any_in_training_have_a_statistic() -> None:
    fitted = learned.fit(synthetic(400, 3, steps=5), alpha=0.05, seed=0)
    longer = synthetic(400, 4, steps=9)
    np.testing.assert_array_equal(np.isnan(fitted.of(longer)), np.isnan(longer.scores))


def test_waiting_is_worth_nothing_at_the_last_step_and_delays_a_trigger_before_it() -> None:
    # the first step says nothing, the second tells: with even odds at the first it is best to wait
    n = 2000
    fails = np.random.default_rng(0).random(n) < 0.5
    odds = np.stack([np.zeros(n), np.where(fails, 4.0, -4.0)], axis=1)
    scores = np.stack([np.full(n, 0.5), np.where(fails, 0.1, 0.9)], axis=1)
    two = Sessions("two", scores, np.full(n, 2), ~fails)
    policy, triggered = stopping.backward(odds, two, 0.5, 0.0)
    np.testing.assert_array_equal(triggered, fails)
    value = policy.of(odds, two)
    assert (value[:, 0] < 0).all()
    np.testing.assert_allclose(value[:, 1], odds[:, 1] - np.log(0.5))


def test_the_tolerance_bound_is_the_published_order_statistic() -> None:
    values = np.arange(100.0)
    bound = peers.tolerance_bound(values, 0.05, 0.1)
    place = next(k for k in range(1, 101) if binom.sf(k - 1, 100, 0.95) <= 0.1)
    assert bound == values[place - 1]
    assert peers.tolerance_bound(values[:20], 0.05, 0.1) == np.inf


def test_the_density_ratio_finds_gaussian_log_ratios() -> None:
    rng = np.random.default_rng(5)
    solved = rng.random(6000) < 0.5
    scores = (0.5 + 0.05 * rng.standard_normal(6000) - 0.05 * ~solved)[:, None]
    one = Sessions("one", scores, np.ones(6000, np.int64), solved)
    ratio = peers.density_ratio(one).of(one)[:, 0]
    exact = (0.475 - scores[:, 0]) / 0.05
    assert np.abs(ratio - exact).mean() < 0.1


def test_power_at_a_rate_splits_ties_in_proportion() -> None:
    benign = np.array([0.0, 0.0, 1.0, 1.0])
    failing = np.array([1.0, 1.0, 1.0, 0.0])
    np.testing.assert_allclose(splits.power_at(benign, failing, (0.0, 0.25, 0.5, 0.75)), [0.0, 0.375, 0.75, 0.875])


# -- splits, p-values and streams ------------------------------------------------------------------------


def test_parts_of_a_split_are_disjoint_and_failing_sessions_never_calibrate(sessions: Sessions) -> None:
    part = splits.split(sessions, 3)
    assert len(np.unique(np.concatenate([part.train, part.calibration, part.test]))) == len(sessions)
    assert sessions.solved[part.calibration].all()
    np.testing.assert_array_equal(np.sort(part.labelled), np.union1d(part.train, part.calibration))
    design, unseen = measure.unseen_half(len(sessions))
    held_out = splits.split(sessions, 3, pool=design, test=unseen)
    assert not np.intersect1d(held_out.test, held_out.labelled).size


def test_p_values_fall_within_a_session_and_are_super_uniform_over_splits(sessions: Sessions) -> None:
    rates = []
    for seed in range(60):
        part = splits.split(sessions, seed)
        table = splits.table_of(peers.plain(sessions.take(part.calibration)))
        p = splits.session_p(table, peers.plain(sessions.take(part.test)))
        steps = np.diff(p, axis=1)
        assert (steps[~np.isnan(steps)] <= 0.0).all()
        last = np.nanmin(p, axis=1)[sessions.solved[part.test]]
        rates.append([(last <= level).mean() / level for level in (0.1, 0.05)])
    mean, error = np.mean(rates, axis=0), np.std(rates, axis=0) / 60**0.5
    # 99.9 % normal interval of the mean over independent splits
    assert (mean - 3.29 * error <= 1.0).all()
    assert (mean + 3.29 * error >= 0.85).all()


def test_streams_through_the_controller_hold_supfdr_and_a_broken_calibration_does_not() -> None:
    rng = np.random.default_rng(11)
    p = np.sort(rng.random((4000, 3)), axis=1)[:, ::-1]
    valid = np.minimum(1.0, 3.0 * p)
    benign = np.ones(4000, np.bool_)

    def rate(values: np.ndarray[Any, Any]) -> float:
        epochs = stream.play(values, benign, alpha=0.05, length=10)
        assert len(epochs) == 400
        return float(np.mean([epoch.sup_fdp for epoch in epochs]))

    # binomial, N = 400, 99.9 %: at most 36; minima of three uniforms are three times too small
    assert rate(valid) <= 36 / 400
    assert rate(p) > 36 / 400


def test_a_session_is_rejected_once_and_raises_the_levels_of_later_ones() -> None:
    p = np.array([[0.001, 0.0001], [0.008, np.nan], [0.9, np.nan], [0.9, np.nan], [0.9, np.nan]])
    benign = np.array([False, False, True, True, True])
    (one,) = stream.play(p, benign, alpha=0.02, length=5, concurrency=1)
    # level of the second: 2 * .02/5 = .008
    assert (one.caught, one.false_alarms, one.failing, one.sup_fdp) == (2, 0, 2, 0.0)
    (other,) = stream.play(p, benign, alpha=0.02, length=5, concurrency=5)
    assert other.caught == 1, "levels reserved before the rejection stay"


def test_the_length_of_an_epoch_is_what_the_table_carries() -> None:
    assert stream.length_for(999, 0.05) == 10
    assert stream.length_for(50, 0.05) == 1


# -- the whole bench -------------------------------------------------------------------------------------


def test_the_bench_holds_alpha_and_beats_the_plain_threshold_where_the_age_matters(found: dict[str, Any]) -> None:
    assert found["ok"]
    (one,) = found["sets"].values()
    assert set(one["rules"]) == set(rules.ABOUT)
    for row in one["rules"].values():
        assert row["false_alarm"][1] <= row["false_alarm"][0] <= row["false_alarm"][2]
    assert one["rules"][rules.TCD]["power"][0] > 0.4
    assert one["rules"][rules.ANYTIME]["false_alarm"][0] < 0.05
    assert one["streams"]["sup_fdr"][1] <= 0.05


def test_a_table_that_is_too_low_is_seen(sessions: Sessions) -> None:
    # as when the statistic was fitted on the sessions of its own table
    rates = []
    for seed in range(6):
        part = splits.split(sessions, seed)
        test = sessions.take(part.test)
        table = splits.table_of(peers.plain(sessions.take(part.calibration)) - 0.2)
        p = splits.session_p(table, peers.plain(test))
        rates.append(float((np.nanmin(p, axis=1)[test.solved] <= 0.05).mean()))
    assert not measure._mean("false alarms", "leak", np.array(rates)).ok


def test_the_report_shows_every_rule_and_the_published_points(found: dict[str, Any]) -> None:
    (one,) = found["sets"].values()
    as_math = {**found, "sets": {"math": {**one, "published": _as_published()}}}
    text = report.markdown(as_math, images="sessions-")
    for rule in rules.ABOUT:
        assert f"| {rule} |" in text
    assert "![Power against false alarms, math](sessions-math.svg)" in text
    drawing = report.plots(as_math)["math"]
    assert drawing.count("<path") == 3
    assert drawing.count("<polyline") == 4


def _as_published() -> dict[str, Any]:
    return {
        rule: {"false_alarm": rate, "power": power, "tcd_power_there": [0.2, 0.1, 0.3]}
        for rule, (rate, power) in measure.PUBLISHED["math"].items()
    }


def test_the_command_writes_the_report_and_refuses_bad_data(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    runner = CliRunner()
    assert runner.invoke(app, ["bench", "sessions", "--data", str(data)]).exit_code == 1
    _write(data / "made.csv.gz", synthetic(500, 2))
    out = tmp_path / "out"
    ran = runner.invoke(app, ["bench", "sessions", "--data", str(data), "--small", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    assert sorted(path.name for path in out.iterdir()) == ["sessions-made.svg", "sessions.json", "sessions.md"]
    assert json.loads((out / "sessions.json").read_text())["ok"] is True


def test_the_real_trajectories(shared: Path) -> None:
    """Six splits each: alpha holds, and a learned statistic catches more than a plain threshold."""
    found = measure.measure(shared / "data" / "judge_trajectories", small=True)
    assert found["ok"]
    assert set(found["sets"]) == {"gsm8k", "math"}
    for one in found["sets"].values():
        gain = one["rules"][rules.PLAIN]["tcd_less_it_at_its_false_alarms"]
        assert gain[1] > 0.0
        # E-valuator's rules are reproduced: within .02 of the published points
        for rule in (rules.SPLIT, rules.ANYTIME):
            row = one["rules"][rule]
            assert abs(row["false_alarm"][0] - one["published"][rule]["false_alarm"]) < 0.02
            assert abs(row["power"][0] - one["published"][rule]["power"]) < 0.02
