"""The signals step of the ensemble: logits, token and hidden states appended to the windows of the session.

A step that cannot be turned into signals (a NaN, an impossible token, counts that do not fit) is marked by
negative counts `~n` in NEXT_LENGTHS: the monitors answer BAD_INPUT, and the next step goes on with the n kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet
from tcd.contract import (
    FEATURE_BUCKETS,
    MAX_FEATURE_ROWS,
    MAX_FEATURE_VALUES,
    MAX_WINDOW,
    SPECTRUM_RANK,
    Length,
    bucket,
)
from tcd.detector.windows import features_fit
from tcd.rowwise import Inputs, Outputs, isolated
from tcd.signals import device
from tcd.signals.hidden import features, spectrum
from tcd.signals.logits import TokenSignals, token_signals
from tcd.signals.projection import FEATURE_WIDTH, projection
from tcd.signals.windows import append

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_ROWS: Final = min(MAX_FEATURE_ROWS, MAX_FEATURE_VALUES // FEATURE_WIDTH)


@dataclass(frozen=True, slots=True)
class _Previous:
    """Counts (N,) of the windows handed back; windows whose counts do not fit start anew and are `bad`."""

    trace: I64
    entropy: I64
    rows: I64
    flags: I64
    bad: Bool


def _previous(inputs: Inputs) -> _Previous:
    lengths = inputs["PREV_LENGTHS"].astype(np.int64)
    flags = lengths[:, Length.FLAGS]
    counts = np.where(lengths < 0, ~lengths, lengths)
    trace, entropy = counts[:, Length.TRACE], counts[:, Length.ENTROPY]
    rows, cols = counts[:, Length.FEATURE_ROWS], counts[:, Length.FEATURE_COLS]
    good = (trace <= min(inputs["PREV_TRACE"].shape[1], MAX_WINDOW)) & (
        entropy <= min(inputs["PREV_ENTROPY"].shape[1], MAX_WINDOW)
    )
    good &= features_fit(rows, cols, inputs["PREV_FEATURES"].shape[1]) & ((rows == 0) | (cols == FEATURE_WIDTH))
    return _Previous(
        trace=np.where(good, trace, 0),
        entropy=np.where(good, entropy, 0),
        rows=np.where(good, rows, 0),
        flags=flags,
        bad=~good,
    )


def _rows_of(flat: NDArray[np.generic]) -> F32:
    """PREV_FEATURES (N, W) as (N, R, 16), cut or padded to whole rows."""
    n, width = flat.shape
    depth = min(width // FEATURE_WIDTH, _ROWS)
    return flat[:, : depth * FEATURE_WIDTH].reshape(n, depth, FEATURE_WIDTH).astype(np.float32, copy=False)


def _hidden_signals(hidden: Any, assets: AssetSet) -> tuple[F32, F32, Bool, Bool]:
    """Singular values (N, 16), features (N, 16), whether HIDDEN is there, whether it is good."""
    n, depth, width = hidden.shape
    sigma, row = np.zeros((n, SPECTRUM_RANK), np.float32), np.zeros((n, FEATURE_WIDTH), np.float32)
    if n == 0 or depth == 0 or width == 0:
        return sigma, row, np.zeros(n, np.bool_), np.ones(n, np.bool_)
    matrix = projection(width, assets)
    if device.is_tensor(hidden):
        good = device.finite_rows(hidden)
        values, newest = device.hidden_signals(hidden, matrix)
    else:
        good = np.isfinite(hidden).all(axis=(1, 2))
        safe = hidden if good.all() else np.where(good[:, None, None], hidden, 0.0)
        values, newest = spectrum(safe), features(safe, matrix)
    with np.errstate(over="ignore"):
        sigma[:, : values.shape[1]] = values
        row[:] = newest
    good &= np.isfinite(sigma).all(axis=1) & np.isfinite(row).all(axis=1)
    return np.where(good[:, None], sigma, 0), np.where(good[:, None], row, 0), np.ones(n, np.bool_), good


def _token_signals(logits: Any, token: NDArray[np.generic]) -> TokenSignals:
    if device.is_tensor(logits):
        return device.token_signals(logits, token)
    return token_signals(logits.astype(np.float32, copy=False), token)


def _step(inputs: Inputs, assets: AssetSet) -> Outputs:
    previous = _previous(inputs)
    hidden = inputs["HIDDEN"]
    token = _token_signals(inputs["LOGITS"], inputs["TOKEN"][:, 0])
    sigma, row, has_hidden, hidden_good = _hidden_signals(hidden, assets)
    good = token.good & hidden_good & ~previous.bad
    with_row = good & has_hidden
    # the last component of a feature vector tells of the logits
    row[:, -1] = np.where(with_row, token.log_nucleus, 0.0)
    trace = np.minimum(previous.trace + good, MAX_WINDOW)
    entropy = np.minimum(previous.entropy + good, MAX_WINDOW)
    rows = np.minimum(previous.rows + with_row, _ROWS)
    width = bucket(int(max(trace.max(initial=0), entropy.max(initial=0))))
    feature_width = bucket(int(rows.max(initial=0)) * FEATURE_WIDTH, FEATURE_BUCKETS)

    def scalar(name: str, counts: I64, values: NDArray[np.float64]) -> F32:
        window = inputs[name].astype(np.float32, copy=False)[:, :, None]
        new = values.astype(np.float32)[:, None]
        return append(window, counts, new, good, limit=MAX_WINDOW, width=width)[:, :, 0]

    window = _rows_of(inputs["PREV_FEATURES"])
    flat = append(window, previous.rows, row, with_row, limit=_ROWS, width=feature_width // FEATURE_WIDTH)
    kept = min(SPECTRUM_RANK, *hidden.shape[1:])
    counts = np.stack([trace, entropy, np.where(with_row, kept, 0), rows, np.where(rows > 0, FEATURE_WIDTH, 0)], axis=1)
    counts[:, : Length.FEATURE_COLS] = np.where(
        good[:, None], counts[:, : Length.FEATURE_COLS], ~counts[:, : Length.FEATURE_COLS]
    )
    return {
        "NEXT_TRACE": scalar("PREV_TRACE", previous.trace, token.log_probability),
        "NEXT_ENTROPY": scalar("PREV_ENTROPY", previous.entropy, token.entropy),
        "SPECTRUM": np.where(good[:, None], sigma, 0).astype(np.float32),
        "NEXT_FEATURES": flat.reshape(flat.shape[0], -1),
        "NEXT_LENGTHS": np.concatenate([counts, previous.flags[:, None]], axis=1).astype(np.int32),
    }


def _failed(inputs: Inputs) -> Outputs:
    n = inputs["LOGITS"].shape[0]
    counts = np.zeros((n, len(Length)), np.int32)
    counts[:, : Length.FEATURE_COLS] = ~0
    return {
        "NEXT_TRACE": np.zeros((n, bucket(0)), np.float32),
        "NEXT_ENTROPY": np.zeros((n, bucket(0)), np.float32),
        "SPECTRUM": np.zeros((n, SPECTRUM_RANK), np.float32),
        "NEXT_FEATURES": np.zeros((n, bucket(0, FEATURE_BUCKETS)), np.float32),
        "NEXT_LENGTHS": counts,
    }


def step(inputs: Inputs, assets: AssetSet) -> Outputs:
    """One step of a batch; inputs and answers are the tensors of `tcd.contract.SIGNALS`, batch first (KEY unused).

    The NEXT_ windows are padded to the bucket of the longest row. Zero-sized HIDDEN leaves spectrum and features
    out. Bits depend on the row alone. LOGITS and HIDDEN may be torch tensors on any device: they stay there and only
    signals come back, which agree with those of arrays to rounding.
    """
    return isolated(lambda part: _step(part, assets), _failed)(inputs)


def raw_step(
    logits: NDArray[np.generic],
    token: NDArray[np.generic],
    hidden: NDArray[np.generic],
    prev: Mapping[str, NDArray[np.generic]],
    assets: AssetSet,
) -> Outputs:
    """`step` with the windows apart.

    Args:
        logits: (N, V) FP32.
        token: (N,) or (N, 1) INT32.
        hidden: (N, W, D) FP32, oldest first.
        prev: PREV_TRACE, PREV_ENTROPY, PREV_FEATURES, PREV_LENGTHS (`start` for the first step).
        assets: for recorded projections.

    Returns:
        NEXT_TRACE, NEXT_ENTROPY, SPECTRUM, NEXT_FEATURES, NEXT_LENGTHS.
    """
    return step({"LOGITS": logits, "TOKEN": token.reshape(-1, 1), "HIDDEN": hidden, **prev}, assets)


def start(rows: int, *, flags: int = 0) -> dict[str, NDArray[np.generic]]:
    """The PREV_ tensors of a session's first step, for a batch of `rows`."""
    lengths = np.zeros((rows, len(Length)), np.int32)
    lengths[:, Length.FLAGS] = flags
    empty = np.zeros((rows, bucket(0)), np.float32)
    features_empty = np.zeros((rows, bucket(0, FEATURE_BUCKETS)), np.float32)
    return {
        "PREV_TRACE": empty,
        "PREV_ENTROPY": empty,
        "PREV_FEATURES": features_empty,
        "PREV_LENGTHS": lengths,
    }
