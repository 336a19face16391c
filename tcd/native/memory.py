"""Addresses of arrays."""

from __future__ import annotations

import ctypes
from typing import Any, Final

from numpy.typing import NDArray

#: numpy 1.26 does not say that its arrays are buffers.
_CHAR: Final[Any] = ctypes.c_char


def address(array: NDArray[Any]) -> int:
    """Address of a contiguous array's first value."""
    try:
        # four times as fast as array.ctypes, but only for what can be written to
        return ctypes.addressof(_CHAR.from_buffer(array))
    except (TypeError, ValueError):
        return int(array.__array_interface__["data"][0])
