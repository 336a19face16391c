"""Log-odds that a session will fail, from its prefix: a ridge logistic regression over all prefixes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from tcd.bench.sessions.data import F64, Bool, Index
from tcd.bench.sessions.features import Prefixes

#: Inverse of the ridge penalty, as scikit-learn counts it.
C: Final = 0.03
_CLIP: Final = 3.0


@dataclass(frozen=True, slots=True)
class Odds:
    """A fitted model.

    Attributes:
        centre, scale: (F,) of the features.
        coefficients: of the design's columns.
        intercept: log-odds at zero.
        steps: later steps share the level of this one.
    """

    centre: F64
    scale: F64
    coefficients: F64
    intercept: float
    steps: int

    def of(self, prefixes: Prefixes) -> F64:
        """(rows,) log-odds of the prefixes."""
        return np.asarray(design(prefixes, self.centre, self.scale, self.steps) @ self.coefficients + self.intercept)


def scaling(prefixes: Prefixes) -> tuple[F64, F64]:
    """Mean and standard deviation per feature; a constant one has scale 1."""
    scale = prefixes.values.std(axis=0)
    return prefixes.values.mean(axis=0), np.where(scale > 0.0, scale, 1.0)


def design(prefixes: Prefixes, centre: F64, scale: F64, steps: int) -> F64:
    """Features, their squares, their products with the step, and a level for each step."""
    z = (prefixes.values - centre) / scale
    level = np.eye(steps)[np.minimum(prefixes.step, steps - 1)]
    return np.concatenate([z, np.clip(z, -_CLIP, _CLIP) ** 2 / _CLIP, z[:, 1:] * z[:, :1], level], axis=1)


def fit_design(x: F64, fails: Bool, weight: F64) -> tuple[F64, float]:
    """Coefficients and intercept of a weighted fit."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, solver="newton-cholesky", max_iter=50, tol=1e-4)
    model.fit(x, fails, sample_weight=weight / weight.mean())
    return np.asarray(model.coef_[0], np.float64), float(model.intercept_[0])


def fit_whole(prefixes: Prefixes, fails: Bool, weight: F64) -> Odds:
    """The model of all prefixes; arguments as of `fit`."""
    steps = prefixes.shape[1]
    centre, scale = scaling(prefixes)
    x = design(prefixes, centre, scale, steps)
    return Odds(centre, scale, *fit_design(x, fails[prefixes.session], weight), steps)


def fit(prefixes: Prefixes, fails: Bool, weight: F64, fold: Index) -> tuple[Odds, F64]:
    """The model of all prefixes, and the log-odds of each prefix by a model that has not seen its session.

    Args:
        prefixes: of the training sessions.
        fails: (n,) whether a session fails.
        weight: (rows,) of the prefixes.
        fold: (n,) fold of each session; at least two folds.
    """
    steps = prefixes.shape[1]
    centre, scale = scaling(prefixes)
    x, y = design(prefixes, centre, scale, steps), fails[prefixes.session]
    of_row = fold[prefixes.session]
    crossed = np.empty(len(y))
    for held_out in np.unique(fold):
        out = of_row == held_out
        coefficients, intercept = fit_design(x[~out], y[~out], weight[~out])
        crossed[out] = x[out] @ coefficients + intercept
    coefficients, intercept = fit_design(x, y, weight)
    return Odds(centre, scale, coefficients, intercept, steps), crossed
