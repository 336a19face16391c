"""`tcd.detector.hidden` for tensors: the spectrum and the feature vectors."""

from __future__ import annotations

from typing import Any, Final

import torch

from tcd.contract import SPECTRUM_RANK
from tcd.detector.device import recurrence
from tcd.detector.device.exact import laned, log, ordered, power_of_two, sqrt, tree
from tcd.detector.device.levels import Columns, nucleus
from tcd.detector.hidden import FLOOR, LARGE, LEAST, LEAST_SPREAD, SMALL
from tcd.detector.windows import BLOCK, MAX_LAG, TAIL

#: Vectors before the newest two blocks.
_BEFORE: Final = TAIL - 2 * BLOCK
_SIXTEENTH: Final = 1.0 / BLOCK
_TINY_SHARE: Final = 1e-12


def spectrum(values: Any, counts: Any) -> tuple[Columns, Any]:
    """Statistics of (N, W) singular values, `counts` (N,) of them valid, and rows (N,) with a bad one."""
    inside = torch.arange(values.shape[1], device=values.device) < counts[:, None]
    sigma = torch.where(inside, values.double(), 0.0)
    wrong = ~sigma.isfinite().all(dim=1) | (sigma < 0).any(dim=1)
    sigma = torch.where(wrong[:, None], 0.0, sigma)
    # what is outside holds 0 and singular values are not negative: a row with fewer has zeros last
    sigma = torch.nn.functional.pad(sigma, (0, SPECTRUM_RANK)).topk(SPECTRUM_RANK, dim=1).values
    logs = log(sigma + FLOOR)
    share = sigma / tree(sigma).clamp(min=FLOOR)[:, None]
    first, last = logs[:, 0], logs[:, -1]
    middle = torch.nn.functional.pad(logs[:, 1:-1], (1, 1))
    return {
        "log_sigma_1": first,
        "log_sigma_16": last,
        "spread": first - last,
        "log_sigma_mean": tree(middle) / (SPECTRUM_RANK - 2),
        "spectral_entropy": -tree(share * log(share + _TINY_SHARE)),
    }, wrong


def tails(flat: Any, rows: Any, cols: int) -> Any:
    """Newest vectors (N, TAIL, cols) of flattened windows (N, W), right-aligned, zeros where a row has fewer."""
    back = torch.arange(-TAIL * cols, 0, device=flat.device)
    place = (rows * cols)[:, None] + back
    newest = torch.where(place < 0, 0.0, flat.gather(1, place.clamp(min=0)))
    return newest.reshape(-1, TAIL, cols)


def _scaled(vectors: Any) -> tuple[Any, Any]:
    """Windows whose squares are far from the ends of FP32, and rows (N,) with a NaN or infinity."""
    largest = vectors.abs().amax(dim=(1, 2))
    finite = largest.isfinite()
    odd = finite & ((largest < SMALL) | (largest > LARGE))
    _, exponent = torch.frexp(torch.where(odd, largest, 1.0))
    factor = torch.where(odd, power_of_two(-exponent.long()), 1.0)
    return (vectors.double() * factor[:, None, None]).float(), ~finite


def _shift(newest: Any, past: Any, squares: Any, length: Any, block: int) -> Any:
    """`tcd.detector.hidden._shift`: a newest block's mean against that of its past; (N,)."""
    m = length.clamp(min=1).double()
    mean = past.double() / m[:, None]
    away = mean if newest is None else (newest * (1.0 / block)).double() - mean
    shifted = ordered(away * away, 1)
    spread = laned(squares, BLOCK).double() / m - ordered(mean * mean, 1)
    floor = (squares.amax(dim=1) * float(LEAST_SPREAD)).double()
    shifted = shifted / torch.maximum(spread, floor).clamp(min=LEAST) / (1.0 + block / m)
    return sqrt(shifted) * (length >= BLOCK)


def _rank(recent: Any, sums: Any) -> Any:
    """Participation ratio of the newest two blocks (N, cols, 32) around their mean; `sums` (N, cols) are theirs."""
    centred = recent - (sums * (_SIXTEENTH / 2))[:, :, None]
    gram = torch.zeros((recent.shape[0], 2 * BLOCK, 2 * BLOCK), dtype=torch.float32, device=recent.device)
    for column in centred.unbind(1):
        gram = gram + column[:, :, None] * column[:, None, :]
    wide = gram.double()
    total = ordered(wide.diagonal(dim1=1, dim2=2), 1)
    squares = wide * wide
    upper, corner, lower = (
        tree(ordered(part, 1))
        for part in (squares[:, :BLOCK, :BLOCK], squares[:, :BLOCK, BLOCK:], squares[:, BLOCK:, BLOCK:])
    )
    return total * total / ((upper + 2.0 * corner) + lower).clamp(min=LEAST)


def features(flat: Any, rows: Any, cols: int) -> tuple[Columns, Any, Any]:
    """Statistics of feature windows of one width.

    Args:
        flat: (N, W) flattened windows.
        rows: (N,) valid vectors.
        cols: width of a vector, at least 1.

    Returns:
        The statistics, rows (N,) with a NaN or infinity, `Recurrence.share` (N, 2, MAX_LAG).
    """
    vectors = tails(flat.float(), rows, cols)
    newest = vectors[:, -BLOCK:].double()
    norms = sqrt(ordered(newest * newest, 2))
    scaled, wrong = _scaled(vectors)
    centre = ordered(scaled[:, MAX_LAG:], 1) * _SIXTEENTH
    inside = torch.arange(TAIL, 0, -1, device=flat.device) <= rows[:, None]
    centred = torch.where(inside[:, :, None], scaled - centre[:, None], 0.0)
    blocks = ordered(centred.reshape(-1, TAIL // BLOCK, BLOCK, cols), 2)
    older = ordered(blocks[:, :5], 1)
    recent = blocks[:, 5] + blocks[:, 6]
    table = centred.transpose(1, 2).contiguous()
    squares = ordered(table * table, 1)
    held = rows.clamp(max=TAIL)
    found = recurrence.vector(table, rows)
    out = {
        "feature_norm": log(tree(norms) * _SIXTEENTH + FLOOR),
        # the newest block has mean 0
        "feature_self": _shift(None, older + blocks[:, 5], squares[:, :MAX_LAG], held - BLOCK, BLOCK),
        "feature_self_32": _shift(recent, older, squares[:, :_BEFORE], held - 2 * BLOCK, 2 * BLOCK),
        "feature_rank": _rank(table[:, :, MAX_LAG - BLOCK :], recent),
        "recurrence_features": found.ratio[:, 0].double(),
        "recurrence_features_8": found.ratio[:, 1].double(),
    }
    return out | nucleus(vectors, rows), wrong, found.share
