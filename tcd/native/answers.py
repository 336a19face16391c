"""Values of a server's answer held to their bounds by the compiled kernels."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np

#: Low, high, and whether only whole numbers are meant.
Column = tuple[float, float, bool]
_CALL: Final = struct.Struct("=2q")
_TENSOR: Final = struct.Struct("=5q")
_COLUMN: Final = struct.Struct("=2dq")
_KINDS: Final = {np.dtype("<f4"): 0, np.dtype("<f8"): 1, np.dtype("<i4"): 2}


class Bounded:
    """Where the tensors of an answer lie in its body, and their bounds; made once per layout."""

    def __init__(
        self, library: ctypes.CDLL, tensors: Sequence[tuple[np.dtype[np.generic], int, int, Sequence[Column]]]
    ) -> None:
        """Prepare a call.

        Args:
            library: the kernels.
            tensors: type (FP32, FP64 or INT32, little-endian), first byte, number of values, columns of a row.
        """
        self._function = library.tcd_answers
        self._columns: list[ctypes.Array[ctypes.c_char]] = []
        table = b""
        for dtype, start, count, columns in tensors:
            packed = b"".join(_COLUMN.pack(*column) for column in columns)
            self._columns.append(ctypes.create_string_buffer(packed, len(packed)))
            address = ctypes.addressof(self._columns[-1])
            table += _TENSOR.pack(_KINDS[dtype], start, count, len(columns), address)
        self._table = ctypes.create_string_buffer(table, len(table))
        self._call = _CALL.pack(len(tensors), ctypes.addressof(self._table))

    def outside(self, body: bytes) -> int | None:
        """Index of the first tensor with a value out of its bounds, None when all are within.

        `body` must be as long as the layout says.
        """
        found: int = self._function(self._call, body)
        return found - 1 if found else None
