"""The detector's raw statistics of a batch, in a fixed order, grouped by component.

A statistic a row cannot have (its signal is absent, its window too short) is marked invalid and later enters
as a neutral z = 0. Which ones a mask uses, and their scales, are the asset's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.contract import COMPONENTS, SPECTRUM_RANK, Signal
from tcd.detector import recurrence
from tcd.detector.windows import BLOCK, MAX_LAG, TAIL, Counts, difference, masked, tail

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_SHORT: Final = 6
_LOWEST: Final = 4
_FLOOR: Final = 1e-6
_SPREAD: Final = 32


@dataclass(frozen=True, slots=True)
class Statistic:
    """One raw statistic: the component it counts for, the signals it needs, the values it needs of each."""

    name: str
    component: str
    signals: Signal
    least: int


_T, _E, _S, _F = Signal.TRACE, Signal.ENTROPY, Signal.SPECTRUM, Signal.FEATURES

#: All statistics; those of one component are neighbours.
STATISTICS: Final = (
    Statistic("surprisal_16", "invertibility", _T, BLOCK),
    Statistic("surprisal_6", "invertibility", _T, BLOCK),
    Statistic("surprisal_32", "invertibility", _T, BLOCK),
    Statistic("trace_low", "invertibility", _T, BLOCK),
    Statistic("surprisal_self", "invertibility", _T, 2 * BLOCK),
    Statistic("residual_16", "invertibility", _T | _E, BLOCK),
    Statistic("residual_6", "invertibility", _T | _E, BLOCK),
    Statistic("residual_32", "invertibility", _T | _E, BLOCK),
    Statistic("entropy_16", "entropy_drop", _E, BLOCK),
    Statistic("entropy_6", "entropy_drop", _E, BLOCK),
    Statistic("entropy_32", "entropy_drop", _E, BLOCK),
    Statistic("entropy_sd", "entropy_drop", _E, BLOCK),
    Statistic("entropy_self", "entropy_drop", _E, 2 * BLOCK),
    Statistic("spread", "sigma_cut", _S, SPECTRUM_RANK),
    Statistic("log_sigma_1", "sigma_cut", _S, SPECTRUM_RANK),
    Statistic("log_sigma_16", "sigma_cut", _S, SPECTRUM_RANK),
    Statistic("log_sigma_mean", "sigma_cut", _S, SPECTRUM_RANK),
    Statistic("spectral_entropy", "sigma_cut", _S, SPECTRUM_RANK),
    Statistic("feature_norm", "sigma_cut", _F, BLOCK),
    Statistic("feature_self", "sigma_cut", _F, 2 * BLOCK),
    Statistic("feature_rank", "sigma_cut", _F, 2 * BLOCK),
    Statistic("recurrence_features", "recurrence", _F, 2 * BLOCK),
    Statistic("recurrence_entropy", "recurrence", _E, 2 * BLOCK),
    Statistic("recurrence_trace", "recurrence", _T, 2 * BLOCK),
)
NAMES: Final = tuple(s.name for s in STATISTICS)
INDEX: Final = {name: i for i, name in enumerate(NAMES)}
#: Columns of each component.
SLICES: Final = tuple(
    slice(
        min(i for i, s in enumerate(STATISTICS) if s.component == name),
        max(i for i, s in enumerate(STATISTICS) if s.component == name) + 1,
    )
    for name in COMPONENTS
)
#: Columns whose largest z is the component's headline.
HEADLINES: Final = (
    (INDEX["trace_low"],),
    (INDEX["entropy_16"],),
    (INDEX["spread"],),
    (INDEX["recurrence_features"], INDEX["recurrence_entropy"], INDEX["recurrence_trace"]),
)

#: (F, 4): least counts of trace, entropy, spectrum and feature rows.
_NEEDED: Final = np.array([[s.least if signal & s.signals else 0 for signal in (_T, _E, _S, _F)] for s in STATISTICS])


def usable(mask: int) -> Bool:
    """Which statistics a signal mask carries; (F,)."""
    return np.array([(s.signals & mask) == s.signals for s in STATISTICS])


@dataclass(frozen=True, slots=True)
class Raw:
    """Raw statistics of a batch.

    Attributes:
        values: (N, F), finite.
        valid: (N, F), False where a row cannot have the statistic.
        nonfinite: (N,) rows with a NaN or infinity among their counted values, or a negative singular value.
    """

    values: F64
    valid: Bool
    nonfinite: Bool


def _sorted_spectrum(values: F64) -> F64:
    """The 16 largest singular values, descending; (N, 16), zeros where a row has fewer."""
    n, width = values.shape
    # masked-out places hold 0 and singular values are not negative, so they sort to the end
    if width < SPECTRUM_RANK:
        values = np.concatenate([values, np.zeros((n, SPECTRUM_RANK - width))], axis=1)
    elif width > 4 * SPECTRUM_RANK:
        values = np.partition(values, width - SPECTRUM_RANK, axis=1)[:, -SPECTRUM_RANK:]
    return np.ascontiguousarray(np.sort(values, axis=1)[:, : -SPECTRUM_RANK - 1 : -1])


def _scalars(out: F64, both: F64, counts: I64) -> None:
    """Statistics of trace and entropy; `both` is (2 N, W), all traces, then all entropies."""
    n = out.shape[0]
    newest = tail(both, counts, TAIL)
    block = np.ascontiguousarray(newest[:, -BLOCK:])
    mean = np.add.reduce(block, axis=1) / BLOCK
    long = _mean(newest, counts)
    short = np.add.reduce(block[:, -_SHORT:], axis=1) / _SHORT
    own = difference(both, counts, mean)
    recurs = recurrence.scalar(newest, counts)
    lowest = np.sort(block[:n], axis=1)[:, :_LOWEST]
    columns = {
        "surprisal_16": -mean[:n],
        "surprisal_6": -short[:n],
        "surprisal_32": -long[:n],
        "trace_low": np.add.reduce(lowest, axis=1) / _LOWEST,
        "surprisal_self": -own[:n],
        "residual_16": -mean[:n] - mean[n:],
        "residual_6": -short[:n] - short[n:],
        "residual_32": -long[:n] - long[n:],
        "entropy_16": mean[n:],
        "entropy_6": short[n:],
        "entropy_32": long[n:],
        "entropy_sd": _deviation(newest[n:], counts[n:]),
        "entropy_self": own[n:],
        "recurrence_trace": recurs[:n],
        "recurrence_entropy": recurs[n:],
    }
    for name, column in columns.items():
        out[:, INDEX[name]] = column


def _mean(newest: F64, counts: I64) -> F64:
    """Mean of the newest 32 values, or of as many as there are; (N,)."""
    return np.asarray(np.add.reduce(newest[:, -_SPREAD:], axis=1) / np.clip(counts, 1, _SPREAD))


def _deviation(newest: F64, counts: I64) -> F64:
    """Standard deviation of the newest 32 values, or of as many as there are; (N,)."""
    length = np.clip(counts, 1, _SPREAD)
    recent = np.ascontiguousarray(newest[:, -_SPREAD:])
    centred = recent - (np.add.reduce(recent, axis=1) / length)[:, None]
    centred *= np.arange(_SPREAD, 0, -1) <= counts[:, None]
    return np.asarray(np.sqrt(np.add.reduce(centred * centred, axis=1) / length))


def _spectrum(out: F64, values: F64) -> None:
    sigma = _sorted_spectrum(values)
    logs = np.log(sigma + _FLOOR)
    share = sigma / np.maximum(np.add.reduce(sigma, axis=1), _FLOOR)[:, None]
    out[:, INDEX["spread"]] = logs[:, 0] - logs[:, -1]
    out[:, INDEX["log_sigma_1"]] = logs[:, 0]
    out[:, INDEX["log_sigma_16"]] = logs[:, -1]
    out[:, INDEX["log_sigma_mean"]] = np.add.reduce(logs[:, 1:-1], axis=1) / (SPECTRUM_RANK - 2)
    out[:, INDEX["spectral_entropy"]] = -np.add.reduce(share * np.log(share + 1e-12), axis=1)


def _normalised(windows: F64, rows: I64) -> F32:
    """Tails of feature windows (N, R, cols), centred on the newest block and scaled to about unit size, FP32.

    Distances between rows are kept up to the scale; missing rows are zero.
    """
    newest = tail(windows, rows, TAIL)
    centre = np.add.reduce(newest[:, -BLOCK:], axis=1) / BLOCK
    newest -= centre[:, None, :]
    if (rows < TAIL).any():
        newest[np.arange(TAIL, 0, -1) > rows[:, None]] = 0.0
    largest = np.maximum.reduce(np.abs(newest), axis=(1, 2))
    # a power of two, so that scaling is exact
    _, exponent = np.frexp(largest)
    return np.ldexp(newest, -exponent[:, None, None]).astype(np.float32)


def _features(out: F64, windows: F64, rows: I64) -> None:
    """Statistics of the feature windows (N, R, cols) of rows that share a width."""
    block = tail(windows, rows, BLOCK)
    norms = np.sqrt(np.add.reduce(block * block, axis=2))
    out[:, INDEX["feature_norm"]] = np.log(np.add.reduce(norms, axis=1) / BLOCK + _FLOOR)
    if windows.shape[1] < 2 * BLOCK:
        return
    newest = _normalised(windows, rows)
    squares = np.add.reduce(newest * newest, axis=2)
    out[:, INDEX["recurrence_features"]] = recurrence.vector(newest, squares, rows)
    length = np.clip(rows - BLOCK, 1, MAX_LAG).astype(np.float64)
    # the newest block has mean 0, so the mean of the past is the shift
    shift = np.add.reduce(newest[:, :-BLOCK], axis=1) / length[:, None]
    shifted = np.add.reduce(shift * shift, axis=1)
    spread = np.add.reduce(squares[:, :-BLOCK], axis=1) / length - shifted
    out[:, INDEX["feature_self"]] = np.sqrt(shifted / np.maximum(spread, 1e-9) / (1.0 + BLOCK / length))
    recent = newest[:, -2 * BLOCK :]
    centred = recent - np.add.reduce(recent, axis=1)[:, None, :] / np.float32(2 * BLOCK)
    gram = np.matmul(centred, centred.transpose(0, 2, 1)).reshape(rows.shape[0], -1)
    total = np.add.reduce(gram[:, :: 2 * BLOCK + 1], axis=1).astype(np.float64)
    power = np.add.reduce(gram * gram, axis=1)
    out[:, INDEX["feature_rank"]] = total * total / np.maximum(power, 1e-30)


_FEATURE_COLUMNS: Final = [i for i, s in enumerate(STATISTICS) if s.signals == Signal.FEATURES]


def _feature_groups(out: F64, flat: F64, counts: Counts) -> None:
    """Statistics of the feature windows, by width of a feature vector."""
    widths = set(counts.cols.tolist())
    for cols in sorted(widths - {0}):
        chosen = slice(None) if len(widths) == 1 else np.flatnonzero(counts.cols == cols)
        rows = counts.rows[chosen]
        depth = int(rows.max())
        windows = flat[chosen][:, : depth * cols].reshape(-1, depth, cols)
        part = np.zeros((windows.shape[0], out.shape[1]))
        _features(part, windows, rows)
        for column in _FEATURE_COLUMNS:
            out[chosen, column] = part[:, column]


def compute(
    trace: NDArray[np.generic],
    entropy: NDArray[np.generic],
    spectrum: NDArray[np.generic],
    features: NDArray[np.generic],
    counts: Counts,
) -> Raw:
    """All raw statistics of a batch.

    Args:
        trace: (N, W1) windows, any width.
        entropy: (N, W2) windows.
        spectrum: (N, W3) singular values.
        features: (N, W4) flattened feature windows.
        counts: their valid counts.
    """
    out = np.zeros((counts.trace.shape[0], len(STATISTICS)))
    wrong = np.zeros(out.shape[0], np.bool_)
    both = np.concatenate([counts.trace, counts.entropy])
    width = int(both.max(initial=0))
    if width:
        traces, wrong_trace = masked(trace, counts.trace, width)
        entropies, wrong_entropy = masked(entropy, counts.entropy, width)
        wrong |= wrong_trace | wrong_entropy
        _scalars(out, np.concatenate([traces, entropies]), both)
    sigma, wrong_spectrum = masked(spectrum, counts.spectrum)
    if sigma.shape[1]:
        wrong |= wrong_spectrum | (np.minimum.reduce(sigma, axis=1) < 0)
        _spectrum(out, np.abs(sigma))
    flat, wrong_features = masked(features, counts.rows * counts.cols)
    if flat.shape[1]:
        wrong |= wrong_features
        _feature_groups(out, flat, counts)
    return Raw(out, _valid(counts), wrong)


def _valid(counts: Counts) -> Bool:
    """(N, F): which statistics each row's windows are long enough for."""
    have = np.stack([counts.trace, counts.entropy, counts.spectrum, counts.rows], axis=1)
    return np.asarray((have[:, None, :] >= _NEEDED).all(axis=2))
