"""Statistics of the hidden states: singular values of their window, and their projected feature vectors."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd import exact
from tcd.contract import SPECTRUM_RANK
from tcd.detector import recurrence
from tcd.detector.catalogue import INDEX
from tcd.detector.windows import BLOCK, MAX_LAG, TAIL, Counts, masked, right_align, shared

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

FLOOR: Final = 1e-6
_FEATURE_COLUMNS: Final = slice(INDEX["feature_norm"], INDEX["recurrence_features_8"] + 1)
#: Numbers of feature tables that are worked through together, so that they stay in the second-level cache.
_CHUNK: Final = 2**16
#: Feature windows whose largest value is outside are scaled by a power of two: their squares must be normal FP32.
SMALL, LARGE = 2.0**-2, 2.0**24
#: What a spread and a power are at least, the former relative to the largest squared norm.
LEAST_SPREAD: Final = np.float32(1e-9)
LEAST: Final = 1e-30
_SIXTEENTH: Final = np.float32(1.0 / BLOCK)
_HALF: Final = np.float32(0.5 / BLOCK)
#: Vectors before the newest two blocks.
_BEFORE: Final = TAIL - 2 * BLOCK


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
    logs = exact.log(sigma + FLOOR)
    share = sigma / np.maximum(exact.tree(sigma), FLOOR)[:, None]
    out[:, INDEX["log_sigma_1"]] = logs[:, 0]
    out[:, INDEX["log_sigma_16"]] = logs[:, -1]
    np.subtract(logs[:, 0], logs[:, -1], out=out[:, INDEX["spread"]])
    logs[:, 0] = logs[:, -1] = 0.0
    out[:, INDEX["log_sigma_mean"]] = exact.tree(logs) / (SPECTRUM_RANK - 2)
    out[:, INDEX["spectral_entropy"]] = -exact.tree(share * exact.log(share + 1e-12))


def _tails(flat: NDArray[np.generic], rows: I64, common: int | None, cols: int) -> F32:
    """Newest vectors (N, TAIL, cols), right-aligned."""
    tails = np.empty((flat.shape[0], TAIL * cols), np.float32)
    right_align(tails, flat, rows * cols, None if common is None else common * cols)
    return tails.reshape(-1, TAIL, cols)


def _scaled(tails: F32, wrong: Bool) -> F32:
    """Windows whose squares are far from the ends of FP32; rows with a NaN or infinity are marked in `wrong`.

    Exact, and a distance ratio does not depend on it.
    """
    largest = np.maximum.reduce(np.abs(tails).reshape(tails.shape[0], -1), axis=1)
    # a NaN fails both
    if np.minimum.reduce(largest) >= SMALL and np.maximum.reduce(largest) <= LARGE:
        return tails
    finite = np.isfinite(largest)
    wrong |= ~finite
    odd = finite & ((largest < SMALL) | (largest > LARGE))
    _, exponent = np.frexp(largest)
    return np.ldexp(tails, np.where(odd, -exponent, 0)[:, None, None])


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
    mean: F64 = np.divide(past, m[:, None])
    away: F64 = mean if newest is None else newest * np.float32(1.0 / block) - mean
    shifted = exact.ordered(np.multiply(away, away), axis=1)
    spread = exact.laned(squares, BLOCK) / m - exact.ordered(np.multiply(mean, mean), axis=1)
    floor = (np.maximum.reduce(squares, axis=1) * LEAST_SPREAD).astype(np.float64)
    shifted = shifted / np.maximum(np.maximum(spread, floor), LEAST) / (1.0 + block / m)
    return np.asarray(np.sqrt(shifted) * (length >= BLOCK))


def _centred(tails: F32, rows: I64) -> F32:
    """Vectors minus the newest block's mean, 0 where a row has none; (N, TAIL, cols)."""
    centre = exact.ordered(tails[:, MAX_LAG:], axis=1) * _SIXTEENTH
    inside = np.arange(TAIL, 0, -1) <= rows[:, None]
    return np.where(inside[:, :, None], tails - centre[:, None], np.float32(0.0))


def _rank(recent: F32, sums: F32) -> F64:
    """Participation ratio of the newest two blocks (N, cols, 32) around their mean; `sums` (N, cols) are theirs."""
    n, cols, side = recent.shape
    centred = recent - (sums * _HALF)[:, :, None]
    gram = np.zeros((n, side, side), np.float32)
    for c in range(cols):
        gram += centred[:, c, :, None] * centred[:, c, None, :]
    total = exact.ordered(gram[:, range(side), range(side)].astype(np.float64), axis=1)
    squares = gram.astype(np.float64)
    squares *= squares
    upper, corner, lower = (
        exact.tree(exact.ordered(part, axis=1))
        for part in (squares[:, :BLOCK, :BLOCK], squares[:, :BLOCK, BLOCK:], squares[:, BLOCK:, BLOCK:])
    )
    return np.asarray(total * total / np.maximum((upper + 2.0 * corner) + lower, LEAST))


def _norm(block: F64) -> F64:
    """Logarithm of the mean Euclidean norm of (N, BLOCK, cols); (N,)."""
    norms = np.sqrt(exact.ordered(block * block, axis=2))
    return exact.log(exact.tree(norms) * (1.0 / BLOCK) + FLOOR)


def _vectors(out: F64, wrong: Bool, share: F32, tails: F32, rows: I64) -> None:
    """Statistics of the feature windows (N, TAIL, cols) of rows that share a width."""
    n, _, cols = tails.shape
    scaled = _scaled(tails, wrong)
    out[:, INDEX["feature_norm"]] = _norm(tails[:, -BLOCK:].astype(np.float64))
    if int(rows.max()) < 2 * BLOCK:
        return
    vectors = _centred(scaled, rows)
    blocks = exact.ordered(vectors.reshape(n, TAIL // BLOCK, BLOCK, cols), axis=2)
    older = exact.ordered(blocks[:, :5], axis=1)
    old, recent = older + blocks[:, 5], blocks[:, 5] + blocks[:, 6]
    table = np.ascontiguousarray(vectors.transpose(0, 2, 1))
    squares = exact.ordered(table * table, axis=1)
    held = np.minimum(rows, TAIL)
    # the newest block has mean 0
    out[:, INDEX["feature_self"]] = _shift(None, old, squares[:, :MAX_LAG], held - BLOCK, BLOCK)
    out[:, INDEX["feature_self_32"]] = _shift(recent, older, squares[:, :_BEFORE], held - 2 * BLOCK, 2 * BLOCK)
    out[:, INDEX["feature_rank"]] = _rank(table[:, :, MAX_LAG - BLOCK :], recent)
    recur = recurrence.vector(table, rows)
    out[:, INDEX["recurrence_features"]] = recur.ratio[:, 0]
    out[:, INDEX["recurrence_features_8"]] = recur.ratio[:, 1]
    share[:] = recur.share


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
    for cols in sorted(set(counts.cols.tolist()) - {0}):
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
        _vectors(out[part], wrong[part], share[part], tails, rows[part])
