"""Shrunk covariances equal scikit-learn's golden vectors; distances equal the textbook form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tcd.multivariate import (
    Covariance,
    Moments,
    cholesky,
    contributions,
    ewma,
    ledoit_wolf,
    mahalanobis,
    oas,
    whitener,
)


def test_golden_covariances(shared: Path) -> None:
    cases = json.loads((shared / "vectors/statistics/eprocess_conformal_cov.json").read_text())["covariance"]["cases"]
    assert len(cases) >= 2
    checked = 0
    for case in cases:
        samples = np.array(case["X"])
        for name, estimate in (("lw", ledoit_wolf(samples)), ("oas", oas(samples))):
            assert estimate.shrinkage == pytest.approx(case[f"{name}_shrinkage"], abs=1e-10)
            if f"{name}_cov" in case:
                assert np.abs(estimate.covariance - np.array(case[f"{name}_cov"])).max() < 1e-10
                checked += 1
    assert checked


@pytest.mark.parametrize(("n", "d"), [(2, 3), (5, 1), (10, 40), (300, 16)])
def test_estimates_equal_scikit_learn(n: int, d: int) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    samples = np.random.default_rng(n).normal(1e3, 2.0, (n, d)) @ np.diag(np.linspace(0.1, 3, d))
    for ours, theirs in (
        (ledoit_wolf(samples), covariance.LedoitWolf().fit(samples)),
        (oas(samples), covariance.OAS().fit(samples)),
    ):
        assert np.abs(ours.covariance - theirs.covariance_).max() < 1e-10
        assert ours.shrinkage == pytest.approx(theirs.shrinkage_, abs=1e-10)
        assert np.abs(ours.mean - theirs.location_).max() < 1e-10


@pytest.mark.parametrize("name", ["offset", "constant", "wide", "one", "all_constant"])
def test_estimates_equal_scikit_learn_on_hard_tables(name: str) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    rng = np.random.default_rng(7)
    samples = {
        "offset": rng.normal(1e6, 1.0, (400, 8)),
        "constant": np.concatenate([rng.normal(size=(60, 3)), np.full((60, 2), 4.0)], axis=1),
        "wide": rng.normal(size=(12, 64)),
        "one": rng.normal(size=(30, 1)),
        "all_constant": np.full((9, 3), 2.5),
    }[name]
    reference = samples[0].copy()
    stream = Moments.start(reference)
    for part in np.array_split(samples, 5):
        stream = stream.add(part)
    lw, oracle = covariance.LedoitWolf().fit(samples), covariance.OAS().fit(samples)
    for ours, theirs in ((ledoit_wolf(samples), lw), (oas(samples), oracle), (stream.ledoit_wolf(), lw)):
        assert np.abs(ours.covariance - theirs.covariance_).max() < 1e-10
        assert np.abs(ours.mean - theirs.location_).max() < 1e-9


def test_sums_around_zero_would_not_do() -> None:
    """What the fixed reference point is for: the same sums around 0 are wrong at an offset of a million."""
    samples = np.random.default_rng(3).normal(1e6, 1.0, (500, 4))
    exact = ledoit_wolf(samples).covariance
    near = Moments.start(np.full(4, 1e6)).add(samples).ledoit_wolf().covariance
    far = Moments.start(np.zeros(4)).add(samples).ledoit_wolf().covariance
    assert np.abs(near - exact).max() < 1e-12
    assert not np.abs(far - exact).max() < 1e-6


def test_parts_of_a_stream_merge_and_bad_parts_are_refused() -> None:
    samples = np.random.default_rng(4).normal(size=(90, 5))
    start = Moments.start(np.zeros(5))
    both = start.add(samples[:40]).merge(start.add(samples[40:]))
    assert both.n == 90
    assert np.abs(both.ledoit_wolf().covariance - ledoit_wolf(samples).covariance).max() < 1e-12
    with pytest.raises(ValueError, match="finite"):
        start.add(np.full((2, 5), np.nan))
    with pytest.raises(ValueError, match="finite"):
        start.add(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="different reference"):
        both.merge(Moments.start(np.ones(5)))
    with pytest.raises(ValueError, match="no rows"):
        start.ledoit_wolf()
    with pytest.raises(ValueError, match="reference of shape"):
        Moments.start(np.array([np.inf]))


@pytest.mark.parametrize("estimator", [ledoit_wolf, oas])
def test_a_robust_centre_withstands_outliers(estimator: Callable[..., Covariance]) -> None:
    samples = np.random.default_rng(5).normal(size=(101, 3))
    samples[:40] += 1e9
    assert np.abs(estimator(samples, robust=True).mean).max() < 3
    assert np.abs(estimator(samples).mean).min() > 1e8


@pytest.mark.parametrize(("n", "d"), [(2, 3), (5, 1), (10, 40), (300, 16)])
def test_robust_estimates_are_scikit_learns_around_the_median(n: int, d: int) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    samples = np.random.default_rng(n).exponential(2.0, (n, d)) + 1e3
    centred = samples - np.median(samples, axis=0)
    for ours, theirs in (
        (ledoit_wolf(samples, robust=True), covariance.LedoitWolf(assume_centered=True).fit(centred)),
        (oas(samples, robust=True), covariance.OAS(assume_centered=True).fit(centred)),
    ):
        assert (ours.mean == np.median(samples, axis=0)).all()
        assert np.abs(ours.covariance - theirs.covariance_).max() < 1e-10
        assert ours.shrinkage == pytest.approx(theirs.shrinkage_, abs=1e-10)


def test_contributions_add_up_to_the_squared_distance_and_name_the_culprit() -> None:
    rng = np.random.default_rng(6)
    estimate = ledoit_wolf(rng.normal(size=(300, 6)))
    rows = rng.normal(size=(4, 6))
    rows[:, 2] += 9
    factor, _ = cholesky(estimate.covariance)
    parts = contributions(rows, whitener(factor))
    assert parts == pytest.approx(rows * np.linalg.solve(estimate.covariance, rows.T).T, rel=1e-9)
    assert parts.sum(axis=1) == pytest.approx(mahalanobis(rows, factor) ** 2, rel=1e-9)
    assert (parts.argmax(axis=1) == 2).all()


def _run_lengths(case: dict[str, float], runs: int) -> NDArray[np.float64]:
    """Steps to the first T^2 above the limit of `runs` charts on white vectors; at most 40 ARL0."""
    rng, d, r = np.random.default_rng(11), int(case["p"]), case["r"]
    state, length = np.zeros((runs, d)), np.zeros(runs)
    going = np.arange(runs)
    for step in range(1, int(40 * case["ARL0"])):
        state = r * rng.normal(size=state.shape) + (1 - r) * state
        over = np.add.reduce(state * state, axis=1) * ((2 - r) / r) > case["h4"]
        length[going[over]] = step
        going, state = going[~over], state[~over]
        if not going.size:
            break
    assert not going.size
    return length


def _limit(shared: Path, p: int, r: float) -> dict[str, float]:
    table: list[dict[str, float]] = json.loads((shared / "vectors/statistics/mewma_h.json").read_text())["h"]
    return next(c for c in table if (c["p"], c["r"], c["ARL0"]) == (p, r, 200))


def test_mewma_run_length_is_the_tables(shared: Path) -> None:
    """Seeded, N = 4,000 runs: the table's ARL0 is inside the 99.9 % interval of the mean run length."""
    length = _run_lengths(_limit(shared, 4, 0.2), 4000)
    half = 3.29 * length.std() / np.sqrt(length.size)
    assert abs(length.mean() - 200) < half
    assert half < 12


@pytest.mark.long
@pytest.mark.parametrize("r", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("p", [2, 4])
def test_mewma_run_length_within_two_percent(shared: Path, p: int, r: float) -> None:
    """Seeded, N = 100,000 runs: the 99.9 % interval is about 1 % wide, and within 2 % of the table."""
    length = _run_lengths(_limit(shared, p, r), 100_000)
    half = 3.29 * length.std() / np.sqrt(length.size)
    assert half < 0.012 * 200
    assert abs(length.mean() - 200) < 0.02 * 200


def test_samples_must_be_a_table() -> None:
    with pytest.raises(ValueError, match="samples of shape"):
        ledoit_wolf(np.zeros(3))


def test_distance_is_the_textbook_one() -> None:
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12))
    estimate = ledoit_wolf(samples)
    factor, jitter = cholesky(estimate.covariance)
    assert jitter == 0
    rows = rng.normal(size=(9, 12)) * 5
    expected = np.sqrt(np.einsum("ni,ij,nj->n", rows, np.linalg.inv(estimate.covariance), rows))
    assert mahalanobis(rows, factor) == pytest.approx(expected, rel=1e-9)


def test_more_dimensions_than_samples_need_no_jitter() -> None:
    estimate = ledoit_wolf(np.random.default_rng(2).normal(size=(8, 40)))
    assert cholesky(estimate.covariance)[1] == 0


def test_a_singular_covariance_gets_a_reported_jitter() -> None:
    factor, jitter = cholesky(np.ones((4, 4)))
    assert jitter > 0
    assert (np.diag(factor) > 0).all()


def test_an_indefinite_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="positive definite"):
        cholesky(np.diag([1.0, -1.0]))


def test_ewma_is_the_recursion(shared: Path) -> None:
    golden = json.loads((shared / "vectors/statistics/eprocess_conformal_cov.json").read_text())["mewma"]
    rows, r = np.array(golden["Y"]), golden["r"]
    factor, _ = cholesky(np.array(golden["Sigma"]))
    for t, expected in enumerate(golden["T2_asymptotic"][:40]):
        state = ewma(rows[None, : t + 1], r)
        assert mahalanobis(state, factor)[0] ** 2 == pytest.approx(expected, rel=1e-9)
