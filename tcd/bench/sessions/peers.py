"""The rules that are printed beside us: the plain threshold, and E-valuator's two rules.

E-valuator (Sadhuka, Prinster, Fannjiang, Scalia, Regev, Wang, arXiv 2512.03109; MIT): one logistic regression per step
on all scores so far gives the ratio of the densities of failing and solved sessions. Its anytime rule compares the
ratio with 1/alpha (Ville); its split rule with a tolerance bound of the maxima of solved sessions it was not fitted on.
Written anew from the paper and the public code, without its code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tcd.bench.sessions.data import F64, Sessions

#: A step at which one label has fewer sessions gets no model: the ratio of the step before is kept.
MIN_LABEL: Final = 5
#: Confidence of the tolerance bound is 1 less this: the default of the published code.
DELTA: Final = 0.1
_CLIP: Final = 1e-6


def running_maximum(values: F64) -> F64:
    """(n, T) running maxima over steps; NaN after a session's end stays."""
    return np.where(np.isnan(values), np.nan, np.fmax.accumulate(values, axis=1))


def maxima(values: F64) -> F64:
    """(n,) largest value of each session."""
    return np.asarray(np.nanmax(values, axis=1))


def plain(sessions: Sessions) -> F64:
    """(n, T) doubt of the judge, nothing learned."""
    return np.asarray(1.0 - sessions.scores)


@dataclass(frozen=True, slots=True)
class DensityRatio:
    """Log density ratio of failing to solved sessions, step by step.

    Attributes:
        models: per step from 1, the pair of a scaler and a logistic regression; None where the labels are too few.
        prior: log-odds of failing, from all sessions.
    """

    models: tuple[tuple[Any, Any] | None, ...]
    prior: float

    def of(self, sessions: Sessions) -> F64:
        """(n, T) log ratios, NaN after the end."""
        out = np.full(sessions.scores.shape, np.nan)
        last = np.zeros(len(sessions))
        for s in range(1, sessions.scores.shape[1] + 1):
            rows = np.flatnonzero(sessions.length >= s)
            pair = self.models[s - 1] if s <= len(self.models) else None
            if pair is not None and len(rows):
                scaler, model = pair
                fails = model.predict_proba(scaler.transform(sessions.scores[rows, :s]))[:, 1]
                fails = np.clip(fails, _CLIP, 1.0 - _CLIP)
                last[rows] = np.log(fails / (1.0 - fails)) - self.prior
            out[rows, s - 1] = last[rows]
        return out


def density_ratio(train: Sessions) -> DensityRatio:
    """Fit the ratio on labelled sessions."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    models: list[tuple[Any, Any] | None] = []
    for s in range(1, train.scores.shape[1] + 1):
        rows = train.length >= s
        fails = ~train.solved[rows]
        if min(int(fails.sum()), int((~fails).sum())) < MIN_LABEL:
            models.append(None)
            continue
        scaler = StandardScaler().fit(train.scores[rows, :s])
        models.append((scaler, LogisticRegression(max_iter=200).fit(scaler.transform(train.scores[rows, :s]), fails)))
    share = float((~train.solved).mean())
    return DensityRatio(tuple(models), float(np.log(share / (1.0 - share))))


def tolerance_bound(values: F64, alpha: float, delta: float) -> float:
    """Order statistic that is above the (1 - alpha)-quantile with confidence 1 - delta; infinity if there is none."""
    from scipy.stats import binom

    ordered = np.sort(values)
    places = np.arange(1, len(ordered) + 1)
    enough = np.flatnonzero(binom.sf(places - 1, len(ordered), 1.0 - alpha) <= delta)
    return float(ordered[enough[0]]) if len(enough) else float("inf")
