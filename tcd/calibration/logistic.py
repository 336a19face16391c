"""Ridge logistic regression on z and z squared whose quadratic weights are never negative.

Non-negative quadratic weights keep the statistic from ever rating an extreme value as safer than a typical one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]


def robust_scale(values: F64, valid: Bool) -> tuple[F64, F64]:
    """Median and 1.4826 MAD per column over the valid entries of (n, F) values; a scale is at least 1e-6."""
    columns = values.shape[1]
    location, scale = np.zeros(columns), np.ones(columns)
    for i in range(columns):
        column = values[valid[:, i], i]
        if column.shape[0]:
            location[i] = np.median(column)
            scale[i] = max(1.4826 * float(np.median(np.abs(column - location[i]))), 1e-6)
    return location, scale


def fit(z: F64, faulty: Bool, weight: F64, *, ridge: float) -> tuple[float, F64, F64]:
    """Fit the logit of `faulty` as intercept + z'a + (z^2)'b with b >= 0.

    Args:
        z: (n, F) standardised statistics.
        faulty: (n,) labels.
        weight: (n,) weights, summing to 1.
        ridge: penalty on the squares of a and of 4 b (z^2 varies about four times as much).

    Returns:
        intercept, a (F,), b (F,).
    """
    columns = z.shape[1]
    design = np.concatenate([z, z * z / 4.0], axis=1)
    sign = np.where(faulty, 1.0, -1.0)

    def loss(theta: F64) -> tuple[float, F64]:
        margin = sign * (theta[0] + design @ theta[1:])
        value = float((weight * np.logaddexp(0.0, -margin)).sum() + ridge * (theta[1:] ** 2).sum())
        slope = -weight * sign / (1.0 + np.exp(np.clip(margin, -700, 700)))
        gradient = np.concatenate([[slope.sum()], design.T @ slope + 2.0 * ridge * theta[1:]])
        return value, gradient

    bounds = [(None, None)] * (1 + columns) + [(0.0, None)] * columns
    start = np.zeros(1 + 2 * columns)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500})
    theta = np.asarray(found.x, np.float64)
    return float(theta[0]), theta[1 : 1 + columns], theta[1 + columns :] / 4.0
