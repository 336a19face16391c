"""Spectrum and features of hidden states: singular values by Gram matrix and eigvalsh, and a fixed projection."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.contract import SPECTRUM_RANK
from tcd.scratch import scratch

F64 = NDArray[np.float64]

#: The spectrum is of this many newest hidden states.
HIDDEN_WINDOW: Final = 32
#: Numbers of hidden states that are worked through together.
_CHUNK: Final = 2**16
#: Numbers of a projection matrix that one product takes. From 9,216 on (interface/gemv.c) OpenBLAS wakes its threads,
#: each of which then spins for some 20 ms: a core of the model's process for a product of .1 ms.
_LONE: Final = 2**13


def spectrum(hidden: NDArray[np.generic]) -> F64:
    """Largest singular values of each row's newest 32 hidden states.

    Args:
        hidden: (N, W, D), oldest first, finite.

    Returns:
        (N, min(16, W, D)) singular values, descending, FP64; rounding below zero is clipped.
    """
    recent = hidden[:, -HIDDEN_WINDOW:]
    n, depth, width = recent.shape
    keep = min(SPECTRUM_RANK, depth, width)
    if keep == 0:
        return np.zeros((n, 0))
    side = min(depth, width)
    gram = np.empty((n, side, side))
    step = max(1, _CHUNK // (depth * width))
    for first in range(0, n, step):
        some = recent[first : first + step]
        table = scratch("hidden", *some.shape, dtype=np.float64)
        table[:] = some
        turned = table.transpose(0, 2, 1)
        # stacked products of fixed shape: the bits of a row do not depend on N
        left, right = (table, turned) if depth <= width else (turned, table)
        np.matmul(left, right, out=gram[first : first + step])
    return singular_values(gram, keep)


def singular_values(gram: F64, keep: int) -> F64:
    """The `keep` largest singular values (N, keep), descending, of tables whose Gram matrices (N, S, S) these are."""
    values = np.linalg.eigvalsh(gram)[:, : -keep - 1 : -1]
    return np.asarray(np.sqrt(np.maximum(values, 0.0)))


def features(hidden: NDArray[np.generic], matrix: F64) -> F64:
    """Projection (N, K) of each row's newest hidden state; `hidden` is (N, W, D) with W >= 1, `matrix` (D, K)."""
    newest = hidden[:, -1:].astype(np.float64)
    width, columns = matrix.shape
    out = np.zeros((newest.shape[0], columns))
    step = max(1, _LONE // columns)
    for first in range(0, width, step):
        out += np.matmul(newest[:, :, first : first + step], matrix[first : first + step])[:, 0]
    return out
