"""Shrunk covariances equal scikit-learn's golden vectors; distances equal the textbook form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tcd.multivariate import cholesky, ewma, ledoit_wolf, mahalanobis, oas


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
