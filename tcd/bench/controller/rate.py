"""A measured rate with its exact interval, and the bound it is held to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

CONFIDENCE: Final = 0.999


def clopper_pearson(hits: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval of a binomial rate."""
    from scipy.stats import beta

    tail = (1.0 - confidence) / 2.0
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1.0 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


@dataclass(frozen=True, slots=True)
class Rate:
    """One line of a result.

    Attributes:
        experiment: which experiment it belongs to.
        label: what was run.
        n: independent units (epochs or streams).
        rate: mean over them.
        low, high: 99.9 % interval: Clopper-Pearson for indicators, normal for means of values in [0, 1].
        bound: what it is held to.
        check: `contains` (the interval contains the bound), `at_most` (its lower end is not above the bound),
            `above` (its lower end is above: a broken controller must be seen), or `shown` (no claim is made).
        note: what a reader must know.
    """

    experiment: str
    label: str
    n: int
    rate: float
    low: float
    high: float
    bound: float
    check: str
    note: str = ""

    @classmethod
    def of_hits(
        cls, experiment: str, label: str, hits: int, n: int, *, bound: float, check: str, note: str = ""
    ) -> Rate:
        """Of `hits` in `n`."""
        low, high = clopper_pearson(hits, n)
        return cls(experiment, label, n, hits / n, low, high, bound, check, note)

    @classmethod
    def of_mean(
        cls, experiment: str, label: str, mean: float, std: float, n: int, *, bound: float, check: str, note: str = ""
    ) -> Rate:
        """Of the mean of `n` values with standard deviation `std`."""
        half = 3.2905 * std / math.sqrt(n)
        return cls(experiment, label, n, mean, max(0.0, mean - half), min(1.0, mean + half), bound, check, note)

    @property
    def ok(self) -> bool:
        """Whether it is what it is held to."""
        if self.check == "contains":
            return self.low <= self.bound <= self.high
        if self.check == "at_most":
            return self.low <= self.bound
        if self.check == "above":
            return self.low > self.bound
        return True

    def to_json(self) -> dict[str, Any]:
        """For the report."""
        return {
            "experiment": self.experiment,
            "label": self.label,
            "n": self.n,
            "rate": self.rate,
            "low": self.low,
            "high": self.high,
            "bound": self.bound,
            "check": self.check,
            "ok": self.ok,
            "note": self.note,
        }
