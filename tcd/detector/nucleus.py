"""Levels of the last feature column: with tcd's own features the log of the nucleus size (`tcd.signals`).

A corrupted model spreads the last few per cent of its probability over more tokens before its entropy moves:
of all signals the nucleus shows weak corruption best (docs/detection.md).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.detector.catalogue import INDEX
from tcd.detector.levels import Series
from tcd.detector.windows import TAIL, Counts

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_BACK: Final = np.arange(-TAIL, 0)
#: Column of a series -> the statistics of that block: its level, and against the window's past.
SERIES: Final = (
    (0, "nucleus_4", None),
    (1, "nucleus_16", "nucleus_self"),
    (2, "nucleus_32", "nucleus_self_32"),
    (3, "nucleus_64", "nucleus_self_64"),
)


def _tail(flat: NDArray[np.generic], counts: Counts) -> F64:
    """The newest values (N, TAIL) of the last feature column, right-aligned, zeros where a row has fewer."""
    place = counts.rows[:, None] + _BACK
    missing = place < 0
    np.maximum(place, 0, out=place)
    place *= counts.cols[:, None]
    place += np.maximum(counts.cols - 1, 0)[:, None]
    out = np.take_along_axis(flat, place, axis=1).astype(np.float64)
    out[missing] = 0.0
    return out


def nucleus(out: F64, flat: NDArray[np.generic], counts: Counts) -> None:
    """Write the statistics into `out` (N, F); rows with a NaN or infinity get anything.

    Args:
        out: raw statistics.
        flat: (N, W) flattened feature windows.
        counts: their valid counts.
    """
    if not counts.rows.any():
        return
    with np.errstate(invalid="ignore"):
        series = Series.of(_tail(flat, counts), counts.rows)
        for column, level, shift in SERIES:
            out[:, INDEX[level]] = series.means[:, column]
            if shift is not None:
                out[:, INDEX[shift]] = series.shift(column)
