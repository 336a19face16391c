"""Conditional, smoothed and weighted conformal p-values."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import beta

from tcd.calibration.conditional import conditional_table, grid, smoothed_p, weighted_p
from tcd.calibration.conformal import p_value, session_p

RNG = np.random.default_rng(8)


def test_the_price_of_confidence_at_a_thousand() -> None:
    """8 times the smallest p; at k = 99, which rounds up to the grid's next place, about one and a half times."""
    table = conditional_table(1000)
    assert table[0] * 1001 == pytest.approx(8.0, abs=0.2)
    assert 1.4 < table[99] * 1001 / 100 < 1.6
    assert table[-1] == 1
    assert (np.diff(table) >= 0).all()
    marginal = np.arange(1, 1002) / 1001
    assert (table >= marginal).all()


def test_off_grid_counts_round_up() -> None:
    places = grid(200)
    share = 0.01 / len(places)
    table = conditional_table(200)
    for low, high in pairwise(places):
        assert (table[low + 1 : high + 1] == beta.ppf(1 - share, high + 1, 200 - high)).all()


def test_the_claim_given_the_set_holds() -> None:
    """N = 2,000 sets of 200 uniforms: all p-values at once super-uniform given the set in at least 1 - delta."""
    n, delta = 200, 0.1
    adjusted = conditional_table(n, delta=delta)
    sets = np.sort(RNG.uniform(size=(2000, n)), axis=1)
    # P(#{calibration >= s} <= k | set) = 1 - (k+1)-th largest
    conditional = 1.0 - sets[:, ::-1]
    broken = (conditional > adjusted[:n] + 1e-12).any(axis=1).mean()
    assert broken <= delta + 3 * np.sqrt(delta * (1 - delta) / 2000)
    marginal = (np.arange(1, n + 1)) / (n + 1)
    assert (conditional > marginal).any(axis=1).mean() > 0.9


def test_an_epoch_given_its_set_keeps_alpha_where_the_marginal_one_does_not() -> None:
    """N = 4,000 sets of two tables of 300: the chance of any trigger in an epoch, exact given the set, by union.

    Adjusted tables of one fit share delta = .05; alpha = .3, five hypotheses, both monitors at weight 1/2.
    """
    n, delta, alpha, length = 300, 0.05, 0.3, 5
    level = alpha / length
    adjusted = conditional_table(n, delta=delta / 2)
    marginal = np.arange(1, n + 2) / (n + 1)
    sets = np.sort(RNG.uniform(size=(4000, 2, n)), axis=2)
    exceeded = []
    for table in (adjusted, marginal):
        # p <= level / 2 for the counts up to k: a statistic above the (k+1)-th largest
        k = int(np.searchsorted(table, level / 2, side="right")) - 1
        assert k >= 0
        rate = (1.0 - sets[:, :, n - 1 - k]).sum(axis=1)
        exceeded.append(float((1 - (1 - rate) ** length > alpha).mean()))
    assert exceeded[0] <= delta
    assert exceeded[1] > 3 * delta


def test_lookup_uses_the_count() -> None:
    table = np.arange(10.0)
    adjusted = conditional_table(10)
    assert session_p(table, adjusted, np.array([9.5, 9.0, -1.0])).tolist() == [adjusted[0], adjusted[1], 1.0]
    assert session_p(table, None, np.array([9.5, 9.0])).tolist() == [1 / 11, 2 / 11]


def test_smoothed_is_uniform_and_between() -> None:
    table = np.sort(RNG.integers(0, 20, 500)).astype(np.float64)
    s = RNG.integers(0, 20, 20_000).astype(np.float64)
    p = smoothed_p(table, s, RNG.uniform(size=s.shape))
    assert (p <= p_value(table, s)).all()
    assert p.mean() == pytest.approx(0.5, abs=0.05)


def test_equal_weights_are_the_plain_p_value_and_bad_ones_are_refused() -> None:
    table = np.sort(RNG.normal(size=50))
    s = RNG.normal(size=30)
    assert weighted_p(table, np.full(50, 2.0), s, np.full(30, 2.0)) == pytest.approx(p_value(table, s))
    shifted = weighted_p(table, np.exp(table), np.array([1.0]), np.array([np.e]))
    assert shifted[0] > p_value(table, np.array([1.0]))[0]
    for bad in (np.zeros(50), np.full(50, np.nan), np.ones(3)):
        with pytest.raises(ValueError, match="weights"):
            weighted_p(table, bad, s, s)


@pytest.mark.parametrize(("n", "delta", "tables"), [(0, 0.1, 1), (5, 0.0, 1), (5, 1.0, 1), (5, 0.1, 0)])
def test_bad_arguments(n: int, delta: float, tables: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        conditional_table(n, delta=delta, tables=tables)
