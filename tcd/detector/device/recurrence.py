"""`tcd.detector.recurrence` for tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from tcd.detector.device.exact import laned, ordered, sqrt32
from tcd.detector.recurrence import HALF, LANES, SHRINK, TINY
from tcd.detector.windows import BLOCK, MAX_LAG

_TINY: Final = float(TINY)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """`tcd.detector.recurrence.Recurrence`: ratio (N, 2), share (N, 2, MAX_LAG)."""

    ratio: Any
    share: Any


def _joined(share: Any, counts: Any) -> tuple[Any, Any]:
    """1 - min/mean over the known lags of (N, 2, MAX_LAG) distances, and the means; (N, 2) each."""
    lags = torch.arange(MAX_LAG, 0, -1, device=share.device)
    known = ((counts - BLOCK)[:, None] >= lags)[:, None]
    total = laned(torch.where(known, share, 0.0), LANES)
    mean = total * (1.0 / (counts - BLOCK).clamp(1, MAX_LAG).double()).float()[:, None]
    least = torch.where(known, share, torch.inf).amin(dim=2)
    least = torch.where(known[:, 0, -1:], least, 0.0)
    return 1.0 - least / mean.clamp(min=_TINY), mean


def joined(share: Any, counts: Any) -> Any:
    """`tcd.detector.recurrence.joined`."""
    return _joined(share, counts)[0]


def _of(gap: Any, counts: Any) -> tuple[Recurrence, Any]:
    """Recurrence by distances (N, BLOCK, MAX_LAG), and the means (N, 2)."""
    half = ordered(gap[:, HALF:], 1)
    distance = torch.stack((ordered(gap[:, :HALF], 1) + half, half), 1)
    ratio, mean = _joined(distance, counts)
    return Recurrence(ratio, distance / mean.clamp(min=_TINY)[:, :, None]), mean


def _gap(newest: Any) -> Any:
    """Entry i of the newest block minus the entry a lag before it, (N, BLOCK, MAX_LAG) of (N, TAIL)."""
    return newest[:, MAX_LAG:, None] - newest.unfold(1, MAX_LAG, 1)[:, :BLOCK]


def scalar(newest: Any, counts: Any) -> Recurrence:
    """Recurrence of (N, TAIL) FP32 right-aligned values with `counts` (N,) valid ones."""
    plain, mean = _of(_gap(newest).abs(), counts)
    small, _ = _of(_gap(newest * float(SHRINK)).abs(), counts)
    wild = ~mean[:, 0].isfinite()
    ratio = torch.where(wild[:, None], small.ratio, plain.ratio)
    return Recurrence(ratio, torch.where(wild[:, None, None], small.share, plain.share))


def vector(table: Any, counts: Any) -> Recurrence:
    """Recurrence of (N, cols, TAIL) FP32 vectors by component, by Euclidean distance."""
    square = torch.zeros((table.shape[0], BLOCK, MAX_LAG), dtype=torch.float32, device=table.device)
    for column in table.unbind(1):
        gap = _gap(column)
        square = square + gap * gap
    return _of(sqrt32(square), counts)[0]
