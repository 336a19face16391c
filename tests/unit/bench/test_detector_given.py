"""The bench on the given recordings: what needs a fit, which the committed ones are too few for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tcd.bench.detector import ablation, budget, recordings, validity
from tcd.calibration.evaluate import Scored


@pytest.fixture(scope="module")
def given(shared: Path) -> recordings.Recordings:
    return recordings.load(shared / "data" / "traces")


@pytest.fixture(scope="module")
def right(given: recordings.Recordings) -> list[Scored]:
    return ablation.cross_validated(given.steps, given.prompts, 3, 15)


def test_prose_calibration_on_code_inflates_and_the_right_key_does_less(
    given: recordings.Recordings, right: list[Scored]
) -> None:
    foreign = validity.wrong_key(given)
    assert foreign is not None
    tasks = dict(zip((id(s) for s in given.steps), given.tasks, strict=True))
    assert {tasks[id(one.steps)] for one in foreign} == {"code"}
    table = validity.table(right, given, foreign)
    for which in validity.P_VALUES:
        rows = table[which]
        wrong = rows["wrong key: calibrated on prose, applied to code"]
        alone = rows["right key, code alone"]
        assert wrong["steps"] == alone["steps"] > 200
        assert wrong["0.05"][1] > 1.5
        assert wrong["0.05"][0] > alone["0.05"][0]
        assert wrong["0.05"][0] > 3 * rows["right key"]["0.05"][0]


def test_without_the_surprisal_fewer_blow_ups_are_caught(given: recordings.Recordings, right: list[Scored]) -> None:
    whole = budget.row(right)
    steps = [ablation.without(s, "invertibility") for s in given.steps]
    less = budget.row(ablation.cross_validated(steps, given.prompts, 3, 15))
    for reading in budget.READINGS:
        assert less[reading]["temperature"]["within_32"][0] < whole[reading]["temperature"]["within_32"][0]
        assert less[reading]["per_1000"] <= 1.0
    assert less["auroc"][0] < whole["auroc"][0]
