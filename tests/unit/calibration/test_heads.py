"""Training of the heads: which faults share one, and what is left where faults are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcd.calibration.fit import fit_traces, shipped_weights, split_prompts
from tcd.calibration.heads import FEWER_GROUPS, GROUPS, Training, heads_of
from tcd.calibration.options import FitOptions
from tcd.calibration.steps import steps_of
from tcd.calibration.traces import load_traces
from tcd.detector.catalogue import NAMES
from tcd.detector.statistics import usable
from tcd.errors import AssetError

SMALL = Path(__file__).parents[2] / "data" / "traces_small"
F = len(NAMES)


def training(kinds: dict[str, int]) -> Training:
    """Steps of healthy text and of faults that show in a statistic of their own each."""
    rng = np.random.default_rng(0)
    names = [""] * 400 + [kind for kind in kinds for _ in range(100)]
    z = rng.normal(size=(len(names), F))
    for i, name in enumerate(names):
        if name:
            z[i, kinds[name]] += 4.0
    return Training(z, np.array(names), np.zeros(len(names), np.int64), np.ones(F, np.bool_))


def test_each_group_has_a_head_that_knows_only_its_own_faults() -> None:
    heads = heads_of(15, training({"severe": 0, "temperature": 20, "loop": 47}), usable(15), FitOptions())
    assert len(heads) == len(GROUPS)
    for head, own in zip(heads, (0, 20, 47), strict=True):
        others = [column for column in (0, 20, 47) if column != own]
        assert head.linear[own] > 1
        assert np.abs(head.linear[others]).max() < head.linear[own] / 4


def test_without_features_corruption_shares_a_head_with_blow_ups() -> None:
    faults = training({"severe": 0, "temperature": 20, "loop": 47})
    heads = heads_of(3, faults, usable(3), FitOptions())
    assert len(heads) == len(FEWER_GROUPS)
    assert heads[0].linear[0] > 1
    assert heads[0].linear[20] > 1
    assert not any(head.linear[~usable(3)].any() for head in heads)
    assert len(heads_of(1, faults, usable(1), FitOptions())) == 1


def test_groups_without_a_recorded_fault_have_no_head() -> None:
    assert len(heads_of(15, training({"loop": 47}), usable(15), FitOptions())) == 1
    asked = FitOptions(groups=(("loop", "severe"),))
    assert len(heads_of(15, training({"loop": 47, "severe": 1}), usable(15), asked)) == 1


def test_faults_of_no_group_and_none_at_all_leave_the_given_weights() -> None:
    for kinds in ({}, {"soft": 3}):
        with pytest.raises(AssetError, match="no faults to learn from"):
            heads_of(3, training(kinds), usable(3), FitOptions())
        given = FitOptions(weights=shipped_weights())
        assert len(heads_of(3, training(kinds), usable(3), given)) == len(shipped_weights()[3].heads)


def test_weights_of_a_fit_without_the_nucleus_leave_it_out() -> None:
    """Recordings whose last feature is no nucleus teach nothing about it."""
    sequences = [replace(s, nucleus=False) for s in load_traces(SMALL).sequences]
    steps = [steps_of(s) for s in sequences]
    split = split_prompts(sorted({s.prompt_id for s in sequences}))
    detector, _ = fit_traces(steps, split, "s", demo=True, options=FitOptions(least=2, masks=(15,)))
    nucleus = [i for i, name in enumerate(NAMES) if name.startswith("nucleus_")]
    for head in detector.masks[15].heads:
        assert not head.linear[nucleus].any()
        assert head.linear.any()
