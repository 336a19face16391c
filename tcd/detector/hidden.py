"""Statistics of the hidden states: singular values of their window, and their projected feature vectors."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.contract import SPECTRUM_RANK
from tcd.detector import recurrence
from tcd.detector.catalogue import INDEX
from tcd.detector.windows import BLOCK, MAX_LAG, TAIL, Counts, masked, right_align, shared
from tcd.scratch import scratch

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_FLOOR: Final = 1e-6
_FEATURE_COLUMNS: Final = slice(INDEX["feature_norm"], INDEX["recurrence_features_8"] + 1)
#: Numbers of feature tables that are worked through together, so that they stay in the second-level cache.
_CHUNK: Final = 2**16
#: Feature windows whose largest value is outside are scaled by a power of two: their squares must be normal FP32.
_SMALL, _LARGE = 2.0**-2, 2.0**24
#: What a spread and a power are at least, the former relative to the largest squared norm.
_LEAST_SPREAD: Final = np.array([1e-9], np.float32)
_LEAST: Final = np.array([1e-30])
_SIXTEENTH: Final = np.array([1.0 / BLOCK], np.float32)
_HALF: Final = np.array([0.5 / BLOCK], np.float32)
#: Vectors before the newest two blocks.
_BEFORE: Final = TAIL - 2 * BLOCK
#: (TAIL, 3): sums over the past, over the newest two blocks, over the past of those.
_SUMS: Final = np.stack(
    [np.arange(TAIL) < MAX_LAG, np.arange(TAIL) >= _BEFORE, np.arange(TAIL) < _BEFORE], axis=1
).astype(np.float32)


def _largest(ascending: F64) -> F64:
    """The 16 largest of sorted singular values, descending; (N, 16), zeros where a row has fewer."""
    n, width = ascending.shape
    # masked-out places hold 0 and singular values are not negative, so they sort to the start
    out = np.zeros((n, SPECTRUM_RANK))
    out[:, :width] = ascending[:, : -SPECTRUM_RANK - 1 : -1]
    return out


def spectrum(out: F64, wrong: Bool, values: NDArray[np.generic], counts: Counts) -> None:
    """Write the spectrum's statistics into `out` (N, F); mark rows with a bad singular value in `wrong` (N,)."""
    sigma, odd = masked(values, counts.spectrum, counts.common[2] if counts.common else None)
    if not sigma.shape[1]:
        return
    wrong |= odd
    sigma.sort(axis=1)
    negative = sigma[:, 0] < 0
    if negative.any():
        wrong |= negative
        np.abs(sigma, out=sigma)
    sigma = _largest(sigma)
    logs = np.log(sigma + _FLOOR)
    total = np.add.reduce(sigma, axis=1)
    sigma /= np.maximum(total, _FLOOR, out=total)[:, None]
    out[:, INDEX["log_sigma_1"]] = logs[:, 0]
    out[:, INDEX["log_sigma_16"]] = logs[:, -1]
    np.subtract(logs[:, 0], logs[:, -1], out=out[:, INDEX["spread"]])
    np.divide(np.add.reduce(logs[:, 1:-1], axis=1), SPECTRUM_RANK - 2, out=out[:, INDEX["log_sigma_mean"]])
    sigma *= np.log(sigma + 1e-12)
    np.negative(np.add.reduce(sigma, axis=1), out=out[:, INDEX["spectral_entropy"]])


def _tails(flat: NDArray[np.generic], rows: I64, common: int | None, cols: int) -> F32:
    """Newest vectors (N, TAIL, cols), right-aligned; only 32 of them, without recurrence, when no row has more."""
    n = flat.shape[0]
    deepest = int(rows.max()) if common is None else common
    depth = TAIL if deepest >= 2 * BLOCK else 2 * BLOCK
    if common == depth:
        return flat[:, : depth * cols].astype(np.float32, copy=False).reshape(n, depth, cols)
    tails = scratch("tails", n, depth * cols)
    if common is None and flat.shape[1] >= depth * cols:
        # most windows of long sessions are full
        tails[:] = flat[:, : depth * cols]
        odd = np.flatnonzero(rows != depth)
        part = np.empty((odd.shape[0], depth * cols), np.float32)
        right_align(part, flat[odd], rows[odd] * cols, None)
        tails[odd] = part
    else:
        right_align(tails, flat, rows * cols, None if common is None else common * cols)
    return tails.reshape(n, depth, cols)


def _scaled(tails: F32, wrong: Bool) -> F32:
    """Windows whose squares are far from the ends of FP32; rows with a NaN or infinity are marked in `wrong`.

    Exact, and a distance ratio does not depend on it.
    """
    flat = tails.reshape(tails.shape[0], -1)
    largest = np.maximum.reduce(np.abs(flat, out=scratch("work", *flat.shape)), axis=1)
    # a NaN fails both
    if np.minimum.reduce(largest) >= _SMALL and np.maximum.reduce(largest) <= _LARGE:
        return tails
    finite = np.isfinite(largest)
    wrong |= ~finite
    odd = finite & ((largest < _SMALL) | (largest > _LARGE))
    _, exponent = np.frexp(largest)
    return np.ldexp(tails, np.where(odd, -exponent, 0)[:, None, None])


@lru_cache(maxsize=16)
def _ones(size: int) -> tuple[F32, F64]:
    """A row and a column of ones, to sum by a product."""
    return np.ones((1, size), np.float32), np.ones(size)


def _shift(newest: F32 | None, past: F32, squares: F32, length: I64, block: int) -> F64:
    """Distance of the newest block's mean from that of its past, in units of the past's spread; (N,).

    Args:
        newest: (N, cols) sums over the newest block, None for zero.
        past: (N, cols) sums over its past.
        squares: (N, P) squared norms in the past.
        length: (N,) vectors in the past; 0 is answered under one block.
        block: vectors in the newest block.
    """
    m = np.maximum(length, 1).astype(np.float64)
    mean = past / m[:, None]
    away = mean if newest is None else newest * (1.0 / block) - mean
    shifted = np.add.reduce(np.multiply(away, away, out=away), axis=1)
    spread = np.add.reduce(squares, axis=1) / m
    spread -= np.add.reduce(np.multiply(mean, mean), axis=1) if newest is not None else shifted
    floor = np.maximum.reduce(squares, axis=1, initial=np.float32(0.0)) * _LEAST_SPREAD
    shifted /= np.maximum(np.maximum(spread, floor, out=spread), _LEAST, out=spread)
    shifted /= 1.0 + block / m
    return np.asarray(np.sqrt(shifted) * (length >= BLOCK))


def _table(tails: F32, rows: I64, common: int | None) -> F32:
    """Vectors minus the newest block's mean by component, their squared norms, ones: (N, cols + 2, TAIL)."""
    n, _, cols = tails.shape
    centre = np.matmul(_ones(BLOCK)[0], tails[:, MAX_LAG:])
    centre *= _SIXTEENTH
    table = scratch("table", n, cols + 2, TAIL)
    vectors = table[:, :cols]
    np.subtract(tails.transpose(0, 2, 1), centre.transpose(0, 2, 1), out=vectors)
    if common is not None:
        vectors[:, :, : TAIL - common] = 0.0
    else:
        for i in np.flatnonzero(rows < TAIL).tolist():
            vectors[i, :, : TAIL - rows[i]] = 0.0
    squares = np.multiply(vectors, vectors, out=scratch("work", n, cols, TAIL))
    np.matmul(_ones(cols)[0], squares, out=table[:, cols : cols + 1])
    table[:, cols + 1] = 1.0
    return table


def _rank(recent: F32, sums: F32) -> F64:
    """Participation ratio of the newest two blocks (N, cols, 32) around their mean; `sums` (N, cols) are theirs."""
    n, cols, _ = recent.shape
    centred = recent - (sums * _HALF)[:, :, None]
    # the smaller of the two Gram matrices: both have the same trace and norm
    if cols <= 2 * BLOCK:
        gram = np.matmul(centred, recent.transpose(0, 2, 1)).reshape(n, -1)
    else:
        gram = np.matmul(centred.transpose(0, 2, 1), centred).reshape(n, -1)
    side = min(cols, 2 * BLOCK)
    total = np.add.reduce(gram[:, :: side + 1], axis=1).astype(np.float64)
    power = np.add.reduce(np.multiply(gram, gram, out=gram), axis=1)
    total *= total
    total /= np.maximum(power, _LEAST)
    return np.asarray(total)


def _vectors(out: F64, wrong: Bool, share: F32, tails: F32, rows: I64, common: int | None) -> None:
    """Statistics of the feature windows (N, depth, cols) of rows that share a width."""
    depth = tails.shape[1]
    scaled = _scaled(tails, wrong)
    block = tails[:, -BLOCK:].astype(np.float64)
    np.multiply(block, block, out=block)
    # here and below, one product of fixed shape per row: its bits do not depend on N
    norms = np.matmul(block, _ones(block.shape[2])[1])
    mean = np.add.reduce(np.sqrt(norms, out=norms), axis=1)
    mean *= 1.0 / BLOCK
    mean += _FLOOR
    np.log(mean, out=out[:, INDEX["feature_norm"]])
    if depth < TAIL:
        return
    table = _table(scaled, rows, common)
    vectors, squares = table[:, :-2], table[:, -2]
    recur = recurrence.vector(table, rows)
    out[:, INDEX["recurrence_features"]] = recur.ratio[:, 0]
    out[:, INDEX["recurrence_features_8"]] = recur.ratio[:, 1]
    share[:] = recur.share
    sums = np.matmul(vectors, _SUMS)
    held = np.minimum(rows, TAIL)
    # the newest block has mean 0
    out[:, INDEX["feature_self"]] = _shift(None, sums[:, :, 0], squares[:, :MAX_LAG], held - BLOCK, BLOCK)
    out[:, INDEX["feature_self_32"]] = _shift(
        sums[:, :, 1], sums[:, :, 2], squares[:, :_BEFORE], held - 2 * BLOCK, 2 * BLOCK
    )
    out[:, INDEX["feature_rank"]] = _rank(vectors[:, :, MAX_LAG - BLOCK :], sums[:, :, 1])


def features(out: F64, wrong: Bool, flat: NDArray[np.generic], counts: Counts) -> F32 | None:
    """Write the feature windows' statistics into `out` (N, F), by width; mark rows with a NaN or infinity.

    Returns:
        `Recurrence.share` (N, 2, MAX_LAG) of the feature windows; None when no row has any.
    """
    if not counts.rows.any():
        return None
    share = np.zeros((out.shape[0], 2, MAX_LAG), np.float32)
    if counts.common:
        _same_width(out, wrong, share, flat, counts.rows, counts.common[3], counts.common[4])
        return share
    widths = set(counts.cols.tolist())
    for cols in sorted(widths - {0}):
        if len(widths) == 1:
            _same_width(out, wrong, share, flat, counts.rows, shared(counts.rows), cols)
            continue
        rows = np.flatnonzero(counts.cols == cols)
        part, odd, depth = np.zeros((rows.shape[0], out.shape[1])), np.zeros(rows.shape[0], np.bool_), counts.rows[rows]
        some = np.zeros((rows.shape[0], *share.shape[1:]), np.float32)
        _same_width(part, odd, some, flat[rows], depth, shared(depth), cols)
        out[rows, _FEATURE_COLUMNS] = part[:, _FEATURE_COLUMNS]
        wrong[rows] |= odd
        share[rows] = some
    return share


def _same_width(
    out: F64, wrong: Bool, share: F32, flat: NDArray[np.generic], rows: I64, common: int | None, cols: int
) -> None:
    """Write the statistics of feature windows that share a width, a cache-sized part of the batch at a time."""
    if cols == 0:
        return
    step = max(1, _CHUNK // (cols * TAIL))
    for first in range(0, out.shape[0], step):
        part = slice(first, first + step)
        tails = _tails(flat[part], rows[part], common, cols)
        _vectors(out[part], wrong[part], share[part], tails, rows[part], common)
