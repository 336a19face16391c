"""Lattice points of witness segments by the compiled kernels."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.native.layout import address

_CALL: Final = struct.Struct("=3q")


def quantised(
    library: ctypes.CDLL, signals: Sequence[NDArray[np.float32]]
) -> tuple[tuple[float, ...], list[NDArray[Any]]]:
    """Lowest and highest value of each signal, one after the other, and the lattice points of each.

    Args:
        library: the kernels.
        signals: contiguous FP32 arrays of any shape, none empty.

    Raises:
        ValueError: a value is not finite, or an array is of another layout.
    """
    count = len(signals)
    total = sum(signal.size for signal in signals)
    points = np.empty(total, np.uint32)
    begin, start = address(points), 0
    places: list[int] = []
    parts: list[NDArray[Any]] = []
    for signal in signals:
        if signal.dtype != np.float32 or not signal.flags.c_contiguous or not signal.size:
            msg = "a signal is contiguous FP32 and not empty"
            raise ValueError(msg)
        end = start + signal.size
        places += (address(signal), signal.size, begin + 4 * start)
        parts.append(points[start:end])
        start = end
    table = (ctypes.c_int64 * len(places))(*places)
    ranges = (ctypes.c_double * (2 * count))()
    if library.tcd_lattice(_CALL.pack(count, ctypes.addressof(table), ctypes.addressof(ranges))):
        msg = "a witness value is not finite"
        raise ValueError(msg)
    return tuple(ranges), parts
