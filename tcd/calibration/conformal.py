"""Conformal p-values from sorted tables, and the fixed point in which statistics are compared.

Pure and batch-first: elementwise operations and `searchsorted` only, so that a row's bits depend on the row.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Steps of the fixed point: statistics are rounded to 2^-20 before any comparison.
QUANTUM: Final = 2.0**20
#: Statistics are clamped to this magnitude, so that they stay finite and above SUP_START.
STATISTIC_LIMIT: Final = 1e12


def quantise(values: F64) -> F64:
    """Round to multiples of 2^-20, clamped to +-1e12, without a negative zero; any shape."""
    out = np.maximum(np.minimum(values, STATISTIC_LIMIT), -STATISTIC_LIMIT)
    out *= QUANTUM
    np.rint(out, out=out)
    # a power of two: exact, as a division is
    out *= 1.0 / QUANTUM
    out += 0.0
    return np.asarray(out)


def p_value(table: F64, statistic: F64) -> F64:
    """Conservative conformal p-values `(1 + #{calibration >= s}) / (n + 1)`.

    Args:
        table: (n,) calibration statistics, ascending. An empty table gives p = 1.
        statistic: any shape.

    Returns:
        p-values of the statistic's shape, in (0, 1].

    Source: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005, §2.2.
    """
    n = table.shape[0]
    return np.asarray((n + 1 - table.searchsorted(statistic)) / (n + 1.0))


def session_p(table: F64, adjusted: F64 | None, statistic: F64) -> F64:
    """p-values of hypotheses: those of `p_value`, or `adjusted[#{calibration >= s}]` where the asset has such a table.

    Args:
        table: (n,) calibration maxima, ascending.
        adjusted: (n + 1,) p-values by count (`tcd.calibration.conditional`); None for marginal ones.
        statistic: any shape.
    """
    if adjusted is None:
        return p_value(table, statistic)
    return np.asarray(adjusted[table.shape[0] - table.searchsorted(statistic)])


def smallest_p(table: F64, adjusted: F64 | None) -> float:
    """The smallest value that `session_p` can give: its resolution."""
    return 1.0 / (table.shape[0] + 1) if adjusted is None else float(adjusted[0])


def upper_quantile(table: F64, alpha: float) -> float:
    """Smallest calibration value `t` with `p_value(table, s) <= alpha` for every `s > t`; +1e12 when there is none."""
    n = table.shape[0]
    allowed = int(np.floor(alpha * (n + 1.0) + 1e-9)) - 1
    if allowed < 0 or n == 0:
        return STATISTIC_LIMIT
    return float(table[max(0, n - 1 - min(allowed, n - 1))])
