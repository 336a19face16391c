"""Conformal p-values against golden vectors, and the fixed point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tcd.calibration.conformal import STATISTIC_LIMIT, p_value, quantise, upper_quantile


def test_golden_p_values(shared: Path) -> None:
    golden = json.loads((shared / "vectors/statistics/eprocess_conformal_cov.json").read_text())["conformal"]
    table = np.sort(np.array(golden["cal"], np.float64))
    assert p_value(table, np.array(golden["test"])).tolist() == golden["p_conservative"]


def test_an_empty_table_is_p_one() -> None:
    assert p_value(np.zeros(0), np.array([1e9, -1e9])).tolist() == [1, 1]


def test_ties_count_as_at_least() -> None:
    assert p_value(np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0]))[0] == 4 / 5


def test_p_values_are_super_uniform() -> None:
    rng = np.random.default_rng(0)
    hits = [p_value(np.sort(rng.normal(size=99)), rng.normal(size=1))[0] <= 0.1 for _ in range(4000)]
    assert np.mean(hits) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.1, 0.5])
def test_values_above_the_quantile_have_a_p_at_most_alpha(alpha: float) -> None:
    table = np.sort(quantise(np.random.default_rng(1).normal(size=999)))
    threshold = upper_quantile(table, alpha)
    assert p_value(table, np.array([np.nextafter(threshold, 1e9)]))[0] <= alpha
    if threshold > table[0]:
        assert p_value(table, np.array([threshold - 2**-19]))[0] > alpha - 1e-12


def test_no_quantile_from_too_small_a_table() -> None:
    assert upper_quantile(np.arange(5.0), 0.01) == STATISTIC_LIMIT


def test_quantised_values_are_on_the_lattice_and_finite() -> None:
    values = np.array([0.1, -1e300, 1e300, -(2.0**-30), 3.0])
    out = quantise(values)
    assert (out * 2**20 == np.rint(out * 2**20)).all()
    assert np.abs(out).max() == STATISTIC_LIMIT
    assert not np.signbit(out[3])
    assert out[4] == 3.0
