"""What the values of an ensemble's answer may be, by tensor and column; the kernels and numpy give the same verdict.

The shim acts on these values: a server that says something else is broken, and its answer is no evidence.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.contract import DECODERS, TIERS
from tcd.native.answers import Column

#: Largest temperature, top_p or limit of tokens of a route.
ROUTE_MAX: Final = 2e7
_ANY: Final[Column] = (-sys.float_info.max, sys.float_info.max, False)
_SHARE: Final[Column] = (0.0, 1.0, False)
_FLAG: Final[Column] = (0.0, 1.0, True)
_AMOUNT: Final[Column] = (0.0, ROUTE_MAX, False)
_FINITE: Final = (_ANY,)
_BOUNDS: Final[dict[str, tuple[Column, ...]]] = {
    "SCORE": (_SHARE,),
    "P_STEP": (_SHARE,),
    "P_VALUE": (_SHARE,),
    "TRIGGER": (_FLAG,),
    "VERDICT": (_FLAG,),
    "TIER": ((0.0, len(TIERS) - 1.0, True),),
    "STATUS": ((0.0, (1 << 24) - 1.0, True),),
    # severity, p, z
    "COMPONENTS": (_SHARE, _SHARE, _ANY),
    # distance, threshold, trigger, p
    "MV": (_ANY, _ANY, _ANY, _SHARE),
    # temperature, top_p, max_tokens, decoder
    "ROUTE": (_AMOUNT, _AMOUNT, _AMOUNT, (0.0, len(DECODERS) - 1.0, True)),
}


def columns_of(name: str, dtype: np.dtype[Any]) -> tuple[Column, ...]:
    """Bounds of the columns of a tensor's rows, one for all of them where it is one; none where any value will do."""
    return _BOUNDS.get(name) or (_FINITE if dtype.kind == "f" else ())


def outside(outputs: Mapping[str, NDArray[np.generic]]) -> str | None:
    """Name of a tensor with a value out of its bounds, None when all are within."""
    for name, array in outputs.items():
        columns = columns_of(name, array.dtype)
        if columns and array.size and not _within(array.reshape(-1, len(columns)), columns):
            return name
    return None


def _within(rows: NDArray[Any], columns: tuple[Column, ...]) -> bool:
    # NaN is within no bounds; comparisons with infinities warn nobody
    for column, (low, high, whole) in zip(rows.T, columns, strict=True):
        lowest, highest = float(column.min()), float(column.max())
        if not (low <= lowest and highest <= high) or math.isnan(lowest):
            return False
        if whole and column.dtype.kind == "f" and not bool((column == np.floor(column)).all()):
            return False
    return True
