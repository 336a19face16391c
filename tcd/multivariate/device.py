"""The monitor's distance for torch tensors on any device: for wide features, which the ensemble does not carry."""

from __future__ import annotations

import importlib
from typing import Any


def mahalanobis(centred: Any, factor: Any) -> Any:
    """Distances sqrt(x' S^-1 x) with S = L L' by a batched triangular solve, FP64.

    Args:
        centred: (N, d) tensor: vectors minus the reference mean.
        factor: (d, d) lower Cholesky factor L, moved to the device of `centred`.

    Returns:
        (N,) tensor on that device. Equal to `tcd.multivariate.mahalanobis` to rounding; unlike there, the last bits may
        depend on the batch.
    """
    torch = importlib.import_module("torch")
    rows = centred.double()
    solved = torch.linalg.solve_triangular(factor.to(rows), rows.T, upper=False)
    return solved.square().sum(dim=0).sqrt()
