"""Rolling windows: a new value appended to rows of different lengths, the oldest dropped at the limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


def append(previous: F32, counts: I64, values: F32, take: NDArray[np.bool_], *, limit: int, width: int) -> F32:
    """Append one entry to each row's window.

    Args:
        previous: (N, P, K) windows, oldest first; entries beyond a row's count are ignored.
        counts: (N,) valid entries, at most P and `limit`.
        values: (N, K) new entries.
        take: (N,) rows that get their entry; the others keep their window.
        limit: most entries a window may hold; a full one drops its oldest.
        width: entries of the output, at least the largest new count.

    Returns:
        (N, width, K), zeros beyond each row's new count.
    """
    n, room, size = previous.shape
    out = np.zeros((n, width, size), np.float32)
    keep = min(room, width)
    out[:, :keep] = previous[:, :keep]
    full = take & (counts >= limit)
    if full.any():
        out[full, : limit - 1] = previous[full, 1:limit]
    place = np.where(full, limit - 1, counts)
    rows = np.flatnonzero(take)
    out[rows, place[rows]] = values[rows]
    out[np.arange(width) >= (place + take)[:, None]] = 0.0
    return out
