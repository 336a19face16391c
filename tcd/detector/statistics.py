"""The detector's raw statistics of a batch, in the order of the catalogue.

A statistic a row cannot have (its signal is absent, its window too short) is marked invalid and later enters
as a neutral z = 0. Which ones a mask uses, and their scales, are the asset's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.detector import hidden, recurrence
from tcd.detector.catalogue import AGES, HEADLINES, INDEX, NAMES, NEEDED, NUCLEUS, SLICES, STATISTICS, Statistic, usable
from tcd.detector.levels import levels
from tcd.detector.nucleus import nucleus
from tcd.detector.windows import Counts
from tcd.native import detector as native
from tcd.native import library as kernels

__all__ = ["HEADLINES", "INDEX", "NAMES", "NUCLEUS", "SLICES", "STATISTICS", "Raw", "Statistic", "compute", "usable"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

#: No statistic needs more values than this.
_MOST: Final = int(NEEDED.max())


@dataclass(frozen=True, slots=True)
class Raw:
    """Raw statistics of a batch.

    Attributes:
        values: (N, F), finite.
        valid: (N, F), False where a row cannot have the statistic.
        age: (N,) index of the row's age, see `tcd.detector.catalogue.AGES`.
        nonfinite: (N,) rows with a NaN or infinity among their counted values, or a negative singular value.
    """

    values: F64
    valid: Bool
    nonfinite: Bool
    age: I64


def compute(
    trace: NDArray[np.generic],
    entropy: NDArray[np.generic],
    spectrum: NDArray[np.generic],
    features: NDArray[np.generic],
    counts: Counts,
) -> Raw:
    """All raw statistics of a batch.

    Args:
        trace: (N, W1) windows, any width.
        entropy: (N, W2) windows.
        spectrum: (N, W3) singular values.
        features: (N, W4) flattened feature windows.
        counts: their valid counts.
    """
    library = kernels.loaded().library
    if library is not None:
        values, wrong = native.statistics(library, (trace, entropy, spectrum, features), counts.table)
        return Raw(values, valid(counts), wrong, age(counts))
    out = np.zeros((counts.bad.shape[0], len(STATISTICS)))
    wrong = np.zeros(out.shape[0], np.bool_)
    found = levels(out, wrong, trace, entropy, counts)
    hidden.spectrum(out, wrong, spectrum, counts)
    share = hidden.features(out, wrong, features, counts)
    nucleus(out, features, counts)
    if share is not None:
        _joint(out, {name: one.share for name, one in found.items()}, share, counts)
    if wrong.any():
        out[wrong] = 0.0
    return Raw(out, valid(counts), wrong, age(counts))


def _joint(out: F64, found: dict[str, recurrence.F32], share: recurrence.F32, counts: Counts) -> None:
    """Recurrence of several signals at one lag: what repeats in all of them is a loop, not a coincidence."""
    if "entropy" not in found:
        return
    least = np.minimum(counts.rows, counts.entropy)
    share += found["entropy"]
    out[:, INDEX["recurrence_pair"]] = recurrence.joined(share, least)[:, 0]
    if "trace" in found:
        share += found["trace"]
        both = recurrence.joined(share, np.minimum(least, counts.trace))
        out[:, INDEX["recurrence_joint"]], out[:, INDEX["recurrence_joint_8"]] = both[:, 0], both[:, 1]


def age(counts: Counts) -> I64:
    """(N,): index of the age by the longest of the row's windows."""
    longest = np.maximum(np.maximum(counts.trace, counts.entropy), counts.rows)
    return np.asarray(np.searchsorted(AGES, longest, side="right"))


@lru_cache(maxsize=1024)
def _valid_row(have: tuple[int, int, int, int]) -> Bool:
    """(1, F): which statistics windows of these counts are long enough for."""
    return np.asarray(np.logical_and.reduce(np.array(have) >= NEEDED, axis=1)[None])


def valid(counts: Counts) -> Bool:
    """(N, F): which statistics each row's windows are long enough for."""
    if counts.common is not None:
        trace, entropy, spectrum, rows, _ = (min(count, _MOST) for count in counts.common)
        return _valid_row((trace, entropy, spectrum, rows)).repeat(counts.bad.shape[0], axis=0)
    return np.asarray(np.logical_and.reduce(counts.table[:, None, : NEEDED.shape[1]] >= NEEDED, axis=2))
