"""The multivariate monitor: distance of feature vectors from a frozen, shrunk reference. Pure, batch-first numpy."""

from __future__ import annotations

from tcd.multivariate.covariance import Covariance, cholesky, ledoit_wolf, oas, robust_centre
from tcd.multivariate.distance import contributions, ewma, mahalanobis
from tcd.multivariate.step import score
from tcd.multivariate.streaming import Moments

__all__ = [
    "Covariance",
    "Moments",
    "cholesky",
    "contributions",
    "ewma",
    "ledoit_wolf",
    "mahalanobis",
    "oas",
    "robust_centre",
    "score",
]
