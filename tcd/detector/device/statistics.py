"""`tcd.detector.statistics` for tensors: all raw statistics of a batch, in the order of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from tcd.detector.catalogue import INDEX, NAMES
from tcd.detector.device import hidden, recurrence
from tcd.detector.device.levels import Columns, levels
from tcd.detector.windows import MAX_LAG, Counts


def placed(array: Any, device: Any) -> Any:
    """A host array as a tensor on a device; nothing waits for the device."""
    return torch.tensor(np.ascontiguousarray(array), device=device)


def _put(out: Any, columns: Columns, rows: Any = None) -> None:
    for name, values in columns.items():
        if rows is None:
            out[:, INDEX[name]] = values
        else:
            out[rows, INDEX[name]] = values


def _features(out: Any, wrong: Any, flat: Any, counts: Counts) -> Any:
    """Write the statistics of the feature windows, width by width; (N, 2, MAX_LAG) shares of their recurrence."""
    share = torch.zeros((out.shape[0], 2, MAX_LAG), dtype=torch.float32, device=out.device)
    for cols in sorted(set(counts.cols.tolist()) - {0}):
        rows = placed(np.flatnonzero(counts.cols == cols), out.device)
        columns, odd, part = hidden.features(flat[rows], placed(counts.rows, out.device)[rows], cols)
        _put(out, columns, rows)
        wrong[rows] |= odd
        share[rows] = part
    return share


def compute(windows: Sequence[Any], counts: Counts) -> tuple[Any, Any]:
    """All raw statistics of a batch.

    Args:
        windows: (N, W) trace, entropy, spectrum and flattened features, tensors on one device.
        counts: their valid counts.

    Returns:
        Statistics (N, F) FP64, and which rows (N,) hold a value that is no number or not allowed; their statistics
        are 0. What a row cannot have (`tcd.detector.statistics.valid`) is any number.
    """
    trace, entropy, spectrum, flat = windows
    device = trace.device
    out = torch.zeros((trace.shape[0], len(NAMES)), dtype=torch.float64, device=device)
    own = [placed(part, device) for part in (counts.trace, counts.entropy, counts.spectrum, counts.rows)]
    columns, wrong, found = levels(trace, entropy, (own[0], own[1]))
    _put(out, columns)
    columns, odd = hidden.spectrum(spectrum, own[2])
    _put(out, columns)
    wrong = wrong | odd
    share = _features(out, wrong, flat, counts) + found["entropy"].share
    least = torch.minimum(own[3], own[1])
    _put(out, {"recurrence_pair": recurrence.joined(share, least)[:, 0].double()})
    both = recurrence.joined(share + found["trace"].share, torch.minimum(least, own[0])).double()
    _put(out, {"recurrence_joint": both[:, 0], "recurrence_joint_8": both[:, 1]})
    return torch.where(wrong[:, None], 0.0, out), wrong
