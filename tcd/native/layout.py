"""The structures of `tcd/native/*.h` and `*.c` as ctypes, and arrays as the addresses that they hold.

A structure keeps no array alive: whoever fills one holds its arrays until the call is over.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_I64, _F64, _PTR = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
#: numpy 1.26 does not say that its arrays are buffers.
_CHAR: Final[Any] = ctypes.c_char
MASKS: Final = 16
COMPONENTS: Final = 4
_MATRIX: Final = 2


def address(array: Array) -> int:
    """Address of a contiguous array's first value."""
    try:
        # four times as fast as array.ctypes, but only for what can be written to
        return ctypes.addressof(_CHAR.from_buffer(array))
    except (TypeError, ValueError):
        return int(array.__array_interface__["data"][0])


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
        *(("head", Head), ("loop", Head)),
        *(("steps", Table), ("components", Table * COMPONENTS), ("sessions", Table)),
        *(("adjusted", _PTR), ("level", _F64)),
    )


class Detector(ctypes.Structure):
    """`struct detector`."""

    _fields_ = (
        *(("id", ctypes.c_uint64), ("features", _I64), ("location", _PTR), ("scale", _PTR)),
        ("masks", _PTR * MASKS),
    )


class DetectorCall(ctypes.Structure):
    """`struct detector_call`."""

    _fields_ = (
        ("windows", Windows),
        *((name, _PTR if i % 2 == 0 else _I64) for i, name in enumerate(("lengths", "l_stride", "sup", "s_stride"))),
        *((name, _PTR) for name in ("catalogue", "assets", "fallback")),
        ("step", _I64),
        *((name, _PTR) for name in ("p", "sup_out", "components", "level", "asset", "status")),
    )


class Reference(ctypes.Structure):
    """`struct reference`."""

    _fields_ = (
        *(("id", ctypes.c_uint64), ("features", _I64), ("mean", _PTR), ("white", _PTR), ("weights", _PTR)),
        *(("threshold", _F64), ("steps", Table), ("sessions", Table), ("adjusted", _PTR)),
    )


class MultivariateCall(ctypes.Structure):
    """`struct multivariate_call`."""

    _fields_ = (
        *(("n", _I64), ("features", Tensor)),
        *((name, _PTR if i % 2 == 0 else _I64) for i, name in enumerate(("lengths", "l_stride", "sup", "s_stride"))),
        *(("assets", _PTR), ("fallback", _PTR), ("step", _I64)),
        *((name, _PTR) for name in ("p", "sup_out", "mv", "asset", "status")),
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


class RoutingCall(ctypes.Structure):
    """`struct routing_call`."""

    _fields_ = (
        ("n", _I64),
        *((f"input{i}", _PTR) for i in range(12)),
        *(("policies", _PTR), ("known", _PTR), ("step", _I64)),
        *((f"output{i}", _PTR) for i in range(10)),
    )


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
