"""The multivariate monitor: distance of feature vectors from a frozen, shrunk reference. Pure, batch-first numpy."""

from __future__ import annotations

from tcd.multivariate.covariance import Covariance, cholesky, ledoit_wolf, oas
from tcd.multivariate.distance import contributions, ewma, mahalanobis, whitener
from tcd.multivariate.step import explain, score
from tcd.multivariate.streaming import Moments

__all__ = [
    "Covariance",
    "Moments",
    "cholesky",
    "contributions",
    "ewma",
    "explain",
    "ledoit_wolf",
    "mahalanobis",
    "oas",
    "score",
    "whitener",
]
