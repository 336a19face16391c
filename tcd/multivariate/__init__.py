"""The multivariate monitor: distance of feature vectors from a frozen, shrunk reference. Pure, batch-first numpy."""

from __future__ import annotations

from tcd.multivariate.covariance import Covariance, cholesky, ledoit_wolf, oas
from tcd.multivariate.distance import ewma, mahalanobis
from tcd.multivariate.step import score

__all__ = ["Covariance", "cholesky", "ewma", "ledoit_wolf", "mahalanobis", "oas", "score"]
