"""Work space of a thread that is kept between calls: a fresh large array costs more in page faults than its use.

What is handed out holds anything, is valid until the same name is asked for again, and is never answered.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Blocks(threading.local):
    """One growing block per name, type and thread."""

    def __init__(self) -> None:
        self.by_name: dict[tuple[str, type], NDArray[Any]] = {}


_BLOCKS = _Blocks()


def scratch(name: str, *shape: int, dtype: type = np.float32) -> NDArray[Any]:
    """A C-contiguous array of this shape, uninitialised; callers bound its size."""
    size = math.prod(shape)
    block = _BLOCKS.by_name.get((name, dtype))
    if block is None or block.shape[0] < size:
        block = _BLOCKS.by_name[name, dtype] = np.empty(size, dtype)
    return block[:size].reshape(shape)
