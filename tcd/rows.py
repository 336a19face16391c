"""One row of `tcd_diagnose` as an object, and batches of rows as the tensors of the contract.

Every way into the ensemble (shim, clients, library, replay) packs rows here, so that a row has the same
bits wherever it is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tcd.contract import (
    FEATURE_BUCKETS,
    MAX_FEATURE_COLS,
    MAX_FEATURE_ROWS,
    MAX_FEATURE_VALUES,
    MAX_WINDOW,
    SUP_START,
    Flag,
    bucket,
)

F32 = NDArray[np.float32]
#: Unit of the hypothesis: bits 1-2 of the flags, none set for `session`.
SESSION: Final = Flag(0)
Tensors = dict[str, NDArray[np.generic]]
_EMPTY = np.zeros(0, np.float32)
_CONTROLLER: Final = int(Flag.CONTROLLER)


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """Inputs of one row.

    Attributes:
        trace: log-probabilities of sampled tokens, oldest first, at most 4096.
        entropy: next-token entropies in nats, oldest first, at most 4096.
        spectrum: singular values of the newest hidden-state window, at most 4096.
        features: (rows, cols) newest feature vectors, oldest first, at most 112 rows and 16,384 values.
        key: the three levels of the detector key, 0 skips a level.
        policy: id of the routing table, 0 = default.
        alpha: the reserved level; used when `controller` is set.
        sup: running maxima of the hypothesis before this step (detector, multivariate).
        base: temperature, top_p, max_tokens, drift.
        controller: whether TRIGGER may fire.
        unit: unit of the hypothesis as a flag (0 = session).
    """

    trace: F32 = field(default_factory=lambda: _EMPTY)
    entropy: F32 = field(default_factory=lambda: _EMPTY)
    spectrum: F32 = field(default_factory=lambda: _EMPTY)
    features: F32 = field(default_factory=lambda: _EMPTY.reshape(0, 0))
    key: tuple[int, int, int] = (0, 0, 0)
    policy: int = 0
    alpha: float = 0.0
    sup: tuple[float, float] = (SUP_START, SUP_START)
    base: tuple[float, float, float, float] = (1.0, 1.0, 0.0, 0.0)
    controller: bool = False
    unit: Flag = SESSION

    def __post_init__(self) -> None:
        """Refuse what does not fit the contract."""
        rows, cols = self.features.shape
        if rows > MAX_FEATURE_ROWS or cols > MAX_FEATURE_COLS or rows * cols > MAX_FEATURE_VALUES:
            msg = f"features {rows}x{cols}: at most {MAX_FEATURE_ROWS} rows and {MAX_FEATURE_VALUES} values"
            raise ValueError(msg)
        if max(self.trace.shape[0], self.entropy.shape[0], self.spectrum.shape[0]) > MAX_WINDOW:
            msg = f"trace, entropy and spectrum: at most {MAX_WINDOW} values each"
            raise ValueError(msg)

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Padded widths of TRACE, ENTROPY, SPECTRUM and FEATURES; rows that share them may share a batch."""
        return _widths(self.trace.shape[0], self.entropy.shape[0], self.spectrum.shape[0], self.features.size)


@lru_cache(maxsize=65_536)
def _widths(trace: int, entropy: int, spectrum: int, features: int) -> tuple[int, int, int, int]:
    return bucket(trace), bucket(entropy), bucket(spectrum), bucket(features, FEATURE_BUCKETS)


class ScoreResult(NamedTuple):
    """Outputs of one row, see `tcd.contract` for their meaning.

    `components` has shape (C, 3) (severity, p, z); `mv` is (distance, threshold, trigger, p).
    """

    score: float
    p_step: tuple[float, float]
    sup: tuple[float, float]
    components: F32
    mv: tuple[float, float, float, float]
    p_value: float
    trigger: bool
    verdict: bool
    tier: int
    status: int
    route: tuple[float, float, float, float]
    assets: tuple[int, int, int]


class Proven(ScoreResult):
    """A result of an answer whose values were held to the contract: finite, and within their bounds."""

    __slots__ = ()


class Checked(dict[str, NDArray[np.generic]]):
    """Outputs of a server whose layout and values were held to the contract."""


class Scorer(Protocol):
    """Whatever scores rows: the ensemble behind the micro-batcher, the library, a replay."""

    async def score(self, row: ScoreRow, *, timeout: float) -> ScoreResult:
        """Score one row within `timeout` seconds.

        Raises:
            tcd.errors.ScoringError: when no answer came, by the deadline or at all.
        """
        ...


def _pad(parts: Sequence[F32], width: int) -> F32:
    out = np.zeros((len(parts), width), np.float32)
    lengths = {part.shape[0] for part in parts}
    if len(lengths) == 1:
        # one copy of all instead of one for each
        (length,) = lengths
        out[:, :length] = np.concatenate(parts).reshape(len(parts), length)
        return out
    for i, part in enumerate(parts):
        out[i, : part.shape[0]] = part
    return out


def pack(rows: Sequence[ScoreRow]) -> Tensors:
    """Tensors of one `tcd_diagnose` request, batch first, padded to the widest row's buckets.

    Scoring does not depend on the padding; equal `widths` only keep the request small.
    """
    # plain integers: arithmetic on enum members costs a microsecond each
    lengths = [
        (
            *(row.trace.shape[0], row.entropy.shape[0], row.spectrum.shape[0], *row.features.shape),
            int(row.unit) | (_CONTROLLER if row.controller else 0),
        )
        for row in rows
    ]
    different = {row.widths for row in rows}
    trace, entropy, spectrum, features = map(max, zip(*different, strict=True))
    return {
        "TRACE": _pad([row.trace for row in rows], trace),
        "ENTROPY": _pad([row.entropy for row in rows], entropy),
        "SPECTRUM": _pad([row.spectrum for row in rows], spectrum),
        "FEATURES": _pad([row.features.reshape(-1) for row in rows], features),
        "LENGTHS": np.array(lengths, np.int32),
        "KEY": np.array([row.key for row in rows], np.uint64),
        "POLICY": np.array([[row.policy] for row in rows], np.uint64),
        "ALPHA": np.array([[row.alpha] for row in rows], np.float64),
        "SUP": np.array([row.sup for row in rows], np.float64),
        "BASE": np.array([row.base for row in rows], np.float32),
    }


def unpack(outputs: Mapping[str, NDArray[np.generic]]) -> list[ScoreResult]:
    """Rows of one `tcd_diagnose` response; `Proven` where the outputs are `Checked`."""

    def numbers(name: str) -> Iterable[Any]:
        return map(itemgetter(0), outputs[name].tolist())

    def tuples(name: str) -> Iterable[tuple[Any, ...]]:
        return map(tuple, outputs[name].tolist())

    columns = (
        *(numbers("SCORE"), tuples("P_STEP"), tuples("SUP_OUT"), np.asarray(outputs["COMPONENTS"], np.float32)),
        *(tuples("MV"), numbers("P_VALUE"), map(bool, numbers("TRIGGER")), map(bool, numbers("VERDICT"))),
        *(numbers("TIER"), numbers("STATUS"), tuples("ROUTE"), tuples("ASSETS")),
    )
    kind = Proven if isinstance(outputs, Checked) else ScoreResult
    return list(map(kind._make, zip(*columns, strict=True)))
