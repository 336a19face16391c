"""The structures of `tcd/native/*.h` and `*.c` as ctypes, and arrays as the addresses that they hold.

A structure keeps no array alive: whoever fills one holds its arrays until the call is over.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import MOST_HEADS
from tcd.native.memory import address

Array = NDArray[Any]
_I64, _F64, _PTR = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
MASKS: Final = 16
COMPONENTS: Final = 4
#: `struct detector_call`, `multivariate_call` and `routing_call`.
DETECTOR_CALL: Final = struct.Struct("=27q")
MULTIVARIATE_CALL: Final = struct.Struct("=16q")
ROUTING_CALL: Final = struct.Struct("=26q")
_MATRIX: Final = 2
_ALIGNMENT: Final = 8


class Trusted(dict[str, Array]):
    """Outputs of a kernel: of the contract's types and shapes, contiguous, and finite by construction."""


class Block:
    """Output tensors of a batch in one piece of memory, whose address is asked for once."""

    __slots__ = ("_places", "_row", "tensors")

    def __init__(self, outputs: Sequence[tuple[str, type[np.generic], tuple[int, ...]]]) -> None:
        """Lay out (name, type, shape of a row) one after the other, each at a multiple of 8 bytes for any N."""
        self.tensors = tuple(outputs)
        self._places: list[tuple[str, np.dtype[Any], tuple[int, ...], int]] = []
        self._row = 0
        for name, kind, shape in outputs:
            dtype = np.dtype(kind)
            self._places.append((name, dtype, shape, self._row))
            self._row += -(-dtype.itemsize * math.prod(shape) // _ALIGNMENT) * _ALIGNMENT

    def memory(self, n: int) -> Array:
        """Uninitialised memory of n >= 1 rows."""
        return np.empty(self._row * n, np.uint8)

    def make(self, n: int) -> tuple[Trusted, list[int]]:
        """Uninitialised tensors of n >= 1 rows, and their addresses in order."""
        return self.within(self.memory(n), 0, n)

    def within(self, memory: Array, before: int, n: int) -> tuple[Trusted, list[int]]:
        """Tensors of n >= 1 rows in a piece of `memory` behind that of `before` rows, and their addresses in order."""
        first = self._row * before
        start = address(memory) + first
        tensors = Trusted()
        for name, dtype, shape, place in self._places:
            tensors[name] = np.ndarray((n, *shape), dtype, memory, first + place * n)
        return tensors, [start + place * n for _, _, _, place in self._places]


class Tensor(ctypes.Structure):
    """`struct tensor`."""

    _fields_ = (("data", _PTR), ("stride", _I64), ("width", _I64))


class Windows(ctypes.Structure):
    """`struct windows`."""

    _fields_ = (("n", _I64), ("trace", Tensor), ("entropy", Tensor), ("spectrum", Tensor), ("features", Tensor))


class Table(ctypes.Structure):
    """`struct table`."""

    _fields_ = (("values", _PTR), ("n", _I64))


class Head(ctypes.Structure):
    """`struct head`."""

    _fields_ = (("intercept", _F64), ("linear", _PTR), ("quadratic", _PTR))


class Mask(ctypes.Structure):
    """`struct mask`."""

    _fields_ = (
        *(("heads", Head * MOST_HEADS), ("count", _I64)),
        *(("steps", Table), ("components", Table * COMPONENTS), ("sessions", Table)),
        *(("adjusted", _PTR), ("level", _F64)),
    )


class Detector(ctypes.Structure):
    """`struct detector`."""

    _fields_ = (
        *(("id", ctypes.c_uint64), ("features", _I64), ("location", _PTR), ("scale", _PTR)),
        ("masks", _PTR * MASKS),
    )


class Reference(ctypes.Structure):
    """`struct reference`."""

    _fields_ = (
        *(("id", ctypes.c_uint64), ("features", _I64), ("mean", _PTR), ("white", _PTR), ("weights", _PTR)),
        *(("threshold", _F64), ("steps", Table), ("sessions", Table), ("adjusted", _PTR)),
    )


class Rule(ctypes.Structure):
    """`struct rule`."""

    _fields_ = (
        *(("low", _F64), ("high", _F64), ("top_p", _F64), ("max_tokens", _F64), ("decoder", _F64)),
        *((name, _I64) for name in ("has_temperature", "has_top_p", "has_max_tokens")),
    )


class Policy(ctypes.Structure):
    """`struct policy`."""

    _fields_ = (("id", ctypes.c_uint64), ("weight", _F64), ("drift", _F64), ("failed", _I64), ("tiers", Rule * 3))


def exactly(array: Array, dtype: type[np.generic], shape: tuple[int, ...]) -> Array:
    """The array as a contiguous and aligned one of a type; itself where it is that already.

    Raises:
        ValueError: it has another shape.
    """
    if array.shape != shape:
        msg = f"a tensor has shape {array.shape}, not {shape}"
        raise ValueError(msg)
    flags = array.flags
    if array.dtype == dtype and flags.c_contiguous and flags.aligned:
        return array
    return np.ascontiguousarray(array, dtype)


def rows_of(array: Array, dtype: type[np.generic], n: int) -> Array:
    """The array as (N, W) of a type whose rows are contiguous and aligned; itself where it is that already.

    Raises:
        ValueError: it has other than `n` rows.
    """
    if array.ndim != _MATRIX or array.shape[0] != n:
        msg = f"a tensor has shape {array.shape}, for {n} rows"
        raise ValueError(msg)
    if array.dtype != dtype or not array.flags.aligned or (array.shape[1] > 1 and array.strides[1] != array.itemsize):
        return np.ascontiguousarray(array, dtype)
    return array


def tensor(array: Array) -> tuple[int, int, int]:
    """`struct tensor` of a result of `rows_of`."""
    return address(array), array.strides[0] // array.itemsize, array.shape[1]
