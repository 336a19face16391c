"""The bench of the detector on the committed small recordings, and its peers on signals whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from typer.testing import CliRunner

from sidecar_api.blocks import Blocks
from tcd.bench import detector
from tcd.bench.detector import ablation, budget, peers, recordings, rows, validity, via
from tcd.calibration import evaluate
from tcd.calibration.evaluate import Scored
from tcd.calibration.steps import steps_of
from tcd.calibration.store import default_asset_dir, load_assets, write_manifest
from tcd.cli.bench import app
from tcd.contract import COMPONENTS
from tcd.detector.catalogue import SLICES
from tcd.errors import AssetError, ConfigError, ScoringError

SMALL = Path(__file__).resolve().parents[2] / "data" / "traces_small"


@pytest.fixture(scope="module")
def small() -> recordings.Recordings:
    return recordings.load(SMALL)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return detector.measure(SMALL, assets=default_asset_dir(), small=True)


def test_every_row_keeps_the_same_budget_by_either_reading(found: dict[str, Any]) -> None:
    assert found["headline"] == "alarms"
    names = {"all signals", "score of the answer", "entropy EWMA", "verbatim copy (token ids)", "logistic regression"}
    assert names <= set(found["rows"])
    for name, row in found["rows"].items():
        for reading in budget.READINGS:
            assert 0.0 <= row[reading]["per_1000"] <= 1.0, (name, reading)
        # fewer alarms count, so the threshold may be lower
        assert row["alarms"]["threshold"] <= row["steps"]["threshold"], name
        for kind in ("loop", "temperature", "severe", "mild"):
            for reading in budget.READINGS:
                share, low, high = row[reading][kind]["within_32"]
                assert 0.0 <= low <= share <= high <= 1.0
            assert row["alarms"][kind]["within_64"][0] >= row["steps"][kind]["within_64"][0]
    ours, chart = (found["rows"][name]["auroc"] for name in ("all signals", "entropy EWMA"))
    assert ours[1] <= ours[0] <= ours[2]
    assert ours[0] > chart[0]


def test_a_threshold_any_lower_breaks_the_budget(found: dict[str, Any], small: recordings.Recordings) -> None:
    scored = peers.chart(small, peers.CHARTS["entropy EWMA"])
    row = found["rows"]["entropy EWMA"]
    allowed = budget.healthy_tokens(small.steps) // 1000
    for reading, rearm in budget.READINGS.items():
        at = row[reading]["threshold"]
        lower = max(float(s.statistic[s.statistic < at].max()) for s in scored)
        flags = [one.statistic > lower - 1e-12 for one in scored]
        assert budget.sounded(small.steps, [one.statistic > at for one in scored], rearm) <= allowed
        assert budget.sounded(small.steps, flags, rearm) >= allowed


def test_the_report_has_every_row_and_readable_plots(found: dict[str, Any]) -> None:
    text = detector.markdown(found, images="detector-")
    for name in found["rows"]:
        assert text.count(f"| {name} |") >= 2
    assert text.index("| alarms | loop@32") < text.index("| steps | loop@32")
    drawn = detector.plots(found)
    assert set(drawn) == {"delays", "roc", "reliability"}
    for name, drawing in drawn.items():
        assert f"](detector-{name}.svg)" in text
        lines = ET.fromstring(drawing).findall("{http://www.w3.org/2000/svg}polyline")  # noqa: S314 - our own
        assert len(lines) >= 4
        assert "nan" not in drawing


def test_what_was_not_measured_is_named(found: dict[str, Any]) -> None:
    text = detector.markdown(found)
    assert "Not measured: river's detectors, components left out: --small; components left out, the wrong key" in text


def test_assets_without_a_detector_are_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, bindings=[], default=None, policies={})
    with pytest.raises(AssetError, match="no detector of signal mask 15 for the model other"):
        detector.measure(SMALL, assets=tmp_path, model="other", most=1, small=True)


def test_a_server_scores_by_given_assets_only() -> None:
    with pytest.raises(AssetError, match="name their directory with --assets"):
        detector.measure(SMALL, way="triton")
    with pytest.raises(ConfigError, match="library, triton, http are known"):
        detector.measure(SMALL, way="carrier pigeon")


def test_the_command_writes_report_numbers_and_plots(tmp_path: Path) -> None:
    options = ["--data", str(SMALL), "--assets", str(default_asset_dir()), "--small", "--most", "8"]
    result = CliRunner().invoke(app, ["detector", *options, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "8 generations of" in result.output
    assert {p.name for p in tmp_path.iterdir()} == {
        "detector.md",
        "detector.json",
        "detector-delays.svg",
        "detector-roc.svg",
        "detector-reliability.svg",
    }
    refused = CliRunner().invoke(app, ["detector", "--data", str(SMALL), "--via", "http"])
    assert refused.exit_code == 1
    assert "--assets" in refused.output


# --- counting


def test_an_alarm_holds_its_successors_back(small: recordings.Recordings) -> None:
    steps = next(s for s in small.steps if s.sequence.healthy > 120)
    flags = np.zeros(steps.sequence.steps, np.bool_)
    flags[20:60] = True
    flags[100] = True
    assert budget.sounded([steps], [flags], 0) == 41
    # at 20, at 53 = 20 + 33, at 100
    assert budget.sounded([steps], [flags], 32) == 3


def test_a_delay_counts_from_the_onset_and_may_be_endless(small: recordings.Recordings) -> None:
    steps = next(s for s in small.steps if s.sequence.kind == "temperature")
    flags = np.zeros(steps.sequence.steps, np.bool_)
    flags[: steps.sequence.onset] = True
    assert budget.delays([steps], [flags], "temperature").tolist() == [np.inf]
    flags[steps.sequence.onset + 7] = True
    assert budget.delays([steps], [flags], "temperature").tolist() == [7.0]
    cells = budget.detection([steps], [flags], 0)["temperature"]
    assert (cells["n"], cells["delay"], cells["delays"], cells["within_32"][0]) == (1, 7.0, [7], 1.0)


def test_the_interval_of_a_median_is_between_order_statistics() -> None:
    assert budget.median_interval(np.arange(5.0)) == [0.0, None]
    # of 12 values at most 2 lie below the median with probability .019, at most 3 with .073
    assert budget.median_interval(np.arange(12.0)) == [2.0, 9.0]
    assert budget.median_interval(np.full(12, np.inf)) == [None, None]
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        low, high = budget.median_interval(rng.exponential(size=15))
        covered += (low or 0.0) <= np.log(2) <= (np.inf if high is None else high)
    assert 0.95 <= covered / 2000 <= 0.98


def test_the_rate_of_false_alarms_has_an_interval_over_prompts(small: recordings.Recordings) -> None:
    flags = [np.zeros(s.sequence.steps, np.bool_) for s in small.steps]
    assert budget.rate(small.steps, flags, 0) == [0.0, 0.0, 0.0]
    flags[0][40:60] = True
    value, low, high = budget.rate(small.steps, flags, 0)
    assert value == pytest.approx(20_000 / budget.healthy_tokens(small.steps))
    # another draw of prompts may be without that one
    assert low == 0.0 < value < high


def test_auroc_is_that_of_the_calibration_with_an_interval_around_it(small: recordings.Recordings) -> None:
    scored = peers.chart(small, peers.CHARTS["entropy EWMA"])
    value, low, high = budget.auroc(scored) or [0.0] * 3
    assert value == pytest.approx(evaluate.summarise(scored)["auroc"], abs=1e-12)
    assert low < value < high
    assert budget.auroc(scored) == budget.auroc(scored)
    assert budget.auroc([one for one in scored if one.steps.sequence.kind == "healthy"]) is None


# --- peers


@pytest.mark.parametrize("name", peers.CHARTS)
def test_charts_see_a_shift_of_either_sign_and_nothing_else(name: str) -> None:
    still = np.zeros(50)
    assert peers.CHARTS[name](still).max() == 0.0
    for sign in (1.0, -1.0):
        moved = np.concatenate([np.zeros(20), np.full(30, 3.0 * sign)])
        chart = peers.CHARTS[name](moved)
        assert chart[19] == 0.0
        assert chart[-1] > 2.0


def test_the_rule_of_copies_counts_tokens_since_the_copy_began() -> None:
    fresh = np.arange(40)
    loop = np.tile(np.arange(100, 107), 4)
    tokens = np.concatenate([fresh, loop])
    run = peers.copied(tokens)
    assert run[:47].max() == 0
    assert run[47:].tolist() == list(range(1, 22))
    # a period beyond the longest is not seen
    assert peers.copied(np.tile(np.arange(97), 2)).max() == 0


def test_the_rule_of_4_grams_is_their_share_among_the_newest_32() -> None:
    fresh, loop = np.arange(64), np.tile(np.arange(100, 110), 8)
    share = peers.repeated(np.concatenate([fresh, loop]))
    # the first copy is complete with the fourth token of the second round
    assert share[: 64 + 13].max() == 0
    assert share[64 + 13] == 1 / 32
    assert share[-1] == 1.0


def test_token_rules_see_loops_and_no_more(found: dict[str, Any]) -> None:
    for name in peers.RULES:
        row = found["rows"][name]["alarms"]
        assert row["loop"]["within_64"][0] > 0.8
        assert row["temperature"]["within_64"][0] < 0.5


def test_a_regression_never_sees_the_prompts_that_it_scores(small: recordings.Recordings) -> None:
    before = peers.regression(small, 4)
    assert before is not None
    assert [id(one.steps) for one in before] == [id(s) for s in small.steps]
    held_out = evaluate.folds_of(small.prompts, 4)[0]
    # the labels of a fold's own prompts do not move its scores
    spoilt = [
        replace(s, sequence=replace(s.sequence, healthy=0, onset=-1)) if s.sequence.prompt_id in held_out else s
        for s in small.steps
    ]
    after = peers.regression(replace(small, steps=spoilt), 4)
    assert after is not None
    moved = False
    for old, new in zip(before, after, strict=True):
        if old.steps.sequence.prompt_id in held_out:
            assert old.statistic.tobytes() == new.statistic.tobytes()
        else:
            moved = moved or old.statistic.tobytes() != new.statistic.tobytes()
    assert moved


def test_a_regression_without_faults_to_learn_from_is_named(small: recordings.Recordings) -> None:
    assert peers.regression(replace(small, steps=small.steps[:1], extras=small.extras[:1]), 4) is None
    few = detector.measure(SMALL, assets=default_asset_dir(), most=4, small=True)
    assert "logistic regression" not in few["rows"]
    assert "logistic regression: a fold leaves it no faults to learn from" in few["missing"]


# --- p-values


def _through_the_library(small: recordings.Recordings, *, wrong: bool) -> list[Scored]:
    """Scored by the demo assets; wrong: as if by another model, that is less sure of its tokens."""
    under = rows.terms(load_assets(default_asset_dir()), "model0")
    out = []
    for steps in small.steps:
        sequence = steps.sequence
        if wrong:
            features = sequence.features.copy()
            features[:, -1] *= 1.6
            other = replace(sequence, trace=sequence.trace * 1.6, entropy=sequence.entropy * 1.6, features=features)
            steps = steps_of(other)  # noqa: PLW2901 - the same sequence of another model
        out.append(rows.as_scored(steps, rows.library(steps.sequence, under), under))
    return out


def test_the_wrong_key_inflates_false_alarms(small: recordings.Recordings) -> None:
    right = validity.table(_through_the_library(small, wrong=False), small, None)
    wrong = validity.table(_through_the_library(small, wrong=True), small, None)
    for which in validity.P_VALUES:
        good, bad = (table[which]["right key"] for table in (right, wrong))
        assert good["steps"] == bad["steps"] > 1000
        assert good["0.05"][1] <= 1.0
        # by more than the intervals
        assert bad["0.05"][1] > max(1.0, good["0.05"][2])
        assert good["lag_1"] > good["lag_1_blocks"] > 0.1


def test_uniform_p_values_are_reliable_and_uncorrelated(small: recordings.Recordings) -> None:
    rng = np.random.default_rng(0)
    scored = [replace(budget.bare(s, np.zeros(s.sequence.steps)), p=rng.random(s.sequence.steps)) for s in small.steps]
    row = validity.row(scored, frozenset({"healthy", "greedy", "loop", "soft"}), lambda one: one.p)
    for level in validity.LEVELS:
        value, low, high = row[str(level)]
        assert low <= value <= high
        assert value == pytest.approx(1.0, abs=0.5)
    assert abs(row["lag_1"]) < 0.1
    assert row["curve"][-1] == 1.0
    assert (np.diff(row["curve"]) >= 0).all()


def test_blocks_are_judged_as_a_shim_judges_them(small: recordings.Recordings) -> None:
    row = validity.blocks(small, frozenset({"healthy"}))
    healthy = [s.sequence.healthy for s in small.steps if s.sequence.kind == "healthy"]
    # a block needs 24 tokens before it
    assert row["steps"] == sum(max(0, n // 8 - 3) for n in healthy)
    assert abs(row["lag_1_blocks"]) < 0.3
    assert row["0.1"][1] <= 1.0 <= row["0.1"][2] + 0.5
    first = next(s.sequence for s in small.steps if s.sequence.kind == "healthy")
    state = Blocks()
    p = 1.0
    for tokens in range(8, 41, 8):
        state = state.step(tokens, first.trace[:tokens], first.entropy[:tokens])
        p = state.p
    alone = replace(small, steps=[replace(small.steps[0], sequence=replace(first, healthy=40))])
    # the same two blocks give the shim its evidence
    assert validity.blocks(alone, frozenset({"healthy"}))["steps"] == state.state.step == 2
    assert 0.0 < p <= 1.0


def test_a_wrong_key_needs_recordings_that_name_their_tasks(small: recordings.Recordings) -> None:
    assert "code" in small.tasks
    assert validity.wrong_key(replace(small, tasks=[""] * len(small.tasks))) is None


# --- ablation, servers


def test_a_component_left_out_says_nothing(small: recordings.Recordings) -> None:
    steps = small.steps[0]
    bare = ablation.without(steps, "recurrence")
    columns = SLICES[COMPONENTS.index("recurrence")]
    assert steps.raw.valid[-1, columns].all()
    assert not bare.raw.valid[:, columns].any()
    assert bare.raw.valid[:, : columns.start].tobytes() == steps.raw.valid[:, : columns.start].tobytes()
    detector_asset = next(iter(load_assets(default_asset_dir()).detectors.values()))
    reference = next(iter(load_assets(default_asset_dir()).multivariates.values()))
    noisy = replace(bare, raw=replace(bare.raw, values=bare.raw.values.copy()))
    noisy.raw.values[:, columns] = 1e6
    one, other = (evaluate.score_sequence(s, detector_asset, reference, 15).statistic for s in (bare, noisy))
    assert one.tobytes() == other.tobytes()


def test_rows_of_the_library_are_those_of_the_evaluation(small: recordings.Recordings) -> None:
    assets = load_assets(default_asset_dir())
    under = rows.terms(assets, "model0")
    asset, _ = assets.detector_match(under.key)
    reference, _ = assets.multivariate_match(under.key)
    assert asset is not None
    assert reference is not None
    for steps in small.steps[:3]:
        served = rows.as_scored(steps, rows.library(steps.sequence, under), under)
        scored = evaluate.score_sequence(steps, asset, reference, 15)
        for name in ("statistic", "p", "merged"):
            assert getattr(served, name).tobytes() == getattr(scored, name).tobytes(), name


def test_one_bit_that_differs_is_counted() -> None:
    held = via.Differences()
    want = np.array([[0.25, 1.0]])
    held.hold("P_STEP", want.copy(), want)
    held.hold("P_STEP", np.nextafter(want, 2.0), want)
    assert (held.compared, held.different) == ({"P_STEP": 4}, {"P_STEP": 2})
    with pytest.raises(ScoringError, match="came back"):
        held.hold("P_STEP", want.astype(np.float32), want)


def test_a_roc_curve_has_the_area_of_its_auroc(small: recordings.Recordings) -> None:
    rates = np.linspace(0.0, 1.0, 2001)
    for scored in (peers.chart(small, peers.CHARTS["entropy EWMA"]), peers.rule(small, peers.repeated)):
        curve = np.array(budget.roc(scored, rates))
        assert curve[-1] == 1.0
        area = ((curve[1:] + curve[:-1]) / 2).sum() / 2000
        assert area == pytest.approx((budget.auroc(scored) or [0.0])[0], abs=1e-3)
