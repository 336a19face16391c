"""Shrunk covariances of a stream, exactly: sums around a fixed reference point, which can be added up.

Around 0 the sums lose every digit when the data are far from it; around a point near the data they keep them
(statistics.md §4). The estimates equal those of the whole table to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcd.multivariate.covariance import Covariance, ledoit_wolf_moments

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over n rows x of y = x - reference.

    Attributes:
        reference: (d,) the fixed point.
        n: number of rows.
        first: (d,) sum of y.
        second: (d, d) sum of y y'.
        third: (d,) sum of |y|^2 y.
        fourth: sum of |y|^4.
    """

    reference: F64
    n: int
    first: F64
    second: F64
    third: F64
    fourth: float

    @classmethod
    def start(cls, reference: F64) -> Moments:
        """No rows yet.

        Raises:
            ValueError: if the reference is not a finite vector.
        """
        point = np.array(reference, np.float64)
        if point.ndim != 1 or not point.size or not np.isfinite(point).all():
            msg = f"reference of shape {point.shape}: a finite vector expected"
            raise ValueError(msg)
        d = point.shape[0]
        return cls(point, 0, np.zeros(d), np.zeros((d, d)), np.zeros(d), 0.0)

    def add(self, rows: F64) -> Moments:
        """With the rows (m, d) of a further part of the stream.

        Raises:
            ValueError: if the rows are not finite or of another width.
        """
        data = np.asarray(rows, np.float64)
        if data.ndim != 2 or data.shape[1] != self.reference.shape[0] or not np.isfinite(data).all():  # noqa: PLR2004
            msg = f"rows of shape {data.shape}: finite (m, {self.reference.shape[0]}) expected"
            raise ValueError(msg)
        y = data - self.reference
        size = np.add.reduce(y * y, axis=1)
        return Moments(
            self.reference,
            self.n + data.shape[0],
            self.first + y.sum(axis=0),
            self.second + y.T @ y,
            self.third + size @ y,
            self.fourth + float(size @ size),
        )

    def merge(self, other: Moments) -> Moments:
        """The sums of two parts of a stream.

        Raises:
            ValueError: if they have different reference points.
        """
        if not np.array_equal(self.reference, other.reference):
            msg = "sums around different reference points cannot be added"
            raise ValueError(msg)
        return Moments(
            self.reference,
            self.n + other.n,
            self.first + other.first,
            self.second + other.second,
            self.third + other.third,
            self.fourth + other.fourth,
        )

    def ledoit_wolf(self) -> Covariance:
        """Ledoit-Wolf estimate of all rows so far.

        Raises:
            ValueError: if there are none.
        """
        if not self.n:
            msg = "no rows"
            raise ValueError(msg)
        shift = self.first / self.n
        empirical = self.second / self.n - np.outer(shift, shift)
        empirical = (empirical + empirical.T) / 2.0
        # sum of |y - m|^4, expanded
        norm = float(shift @ shift)
        trace = float(np.trace(self.second))
        quartic = (
            self.fourth
            - 4.0 * float(shift @ self.third)
            + 4.0 * float(shift @ self.second @ shift)
            + 2.0 * norm * trace
            - 3.0 * self.n * norm * norm
        )
        return ledoit_wolf_moments(self.reference + shift, empirical, quartic, self.n)
