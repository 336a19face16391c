"""The boundary of a scoring step: a batch that fails is retried row by row, and only its bad rows answer FAILED.

Scoring functions are written not to raise for any content of their tensors; this is the net under them, so
that one row can never fail its neighbours in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Outputs = dict[str, Array]
#: Tensors by contract name, all batch-first with the same N.
Inputs = Mapping[str, Array]


def rows_of(inputs: Inputs) -> int:
    """Batch size N of a set of tensors; 0 when there are none."""
    return next((int(array.shape[0]) for array in inputs.values()), 0)


def isolated(
    step: Callable[[Inputs], Outputs],
    failed: Callable[[Inputs], Outputs],
    *,
    compiled: Callable[[Inputs], Outputs] | None = None,
) -> Callable[[Inputs], Outputs]:
    """Wrap a step so that it answers for every row.

    Args:
        step: the vectorised step.
        failed: the answer for rows on which `step` raises (p = 1, status FAILED).
        compiled: the step by compiled kernels, which takes the place of `step` for one row and more.
    """

    def run(inputs: Inputs) -> Outputs:
        try:
            if compiled is not None and rows_of(inputs):
                return compiled(inputs)
            # extreme inputs overflow on the way to a finite answer
            with np.errstate(all="ignore"):
                return step(inputs)
        except Exception:  # noqa: BLE001 - the step's boundary: the status bit FAILED reports it
            n = rows_of(inputs)
            if n <= 1:
                return failed(inputs)
        parts = [run({name: array[i : i + 1] for name, array in inputs.items()}) for i in range(n)]
        return _join(parts)

    return run


def _join(parts: list[Outputs]) -> Outputs:
    return {name: _concatenate([part[name] for part in parts]) for name in parts[0]}


def _concatenate(arrays: list[Array]) -> Array:
    """Concatenate along the batch, padding ragged last axes with zeros."""
    width = max(array.shape[-1] for array in arrays)
    padded = [np.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, width - a.shape[-1])]) for a in arrays]
    return np.concatenate(padded, axis=0)
