"""Recordings as rows of the ensemble: the requests of a thin client, scored in this process. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd import scoring
from tcd.calibration.assets import AssetSet
from tcd.calibration.evaluate import Scored
from tcd.calibration.steps import Steps
from tcd.calibration.traces import Sequence, replay
from tcd.contract import SUP_START, Length, Signal, Status, detector_key
from tcd.errors import AssetError
from tcd.routing import DEFAULT_POLICY
from tcd.routing.step import merge

Tensors = dict[str, NDArray[np.generic]]
#: The mask of all signals.
ALL: Final = 15
_ROWS: Final = 64
_UNANSWERED: Final = int(Status.NO_CALIBRATION) | int(Status.UNKNOWN_MASK)
_SIZES: Final = {
    Signal.TRACE: (Length.TRACE,),
    Signal.ENTROPY: (Length.ENTROPY,),
    Signal.SPECTRUM: (Length.SPECTRUM,),
    Signal.FEATURES: (Length.FEATURE_ROWS, Length.FEATURE_COLS),
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What rows are scored by: the assets, the key of the requests, what the key's detector says of their mask."""

    assets: AssetSet
    key: tuple[int, int, int]
    mask: int
    level: float
    weight: float
    horizon: int


def terms(assets: AssetSet, model: str, mask: int = ALL) -> Terms:
    """The terms for requests that name only their model.

    Raises:
        AssetError: if the assets have no detector of these signals for the model.
    """
    key = detector_key(model, "gpu0", "chat", "en", "default")
    detector, _ = assets.detector_match(key)
    calibration = detector.mask(mask) if detector is not None else None
    policy = assets.policy(0)
    if detector is None or calibration is None:
        msg = f"these assets have no detector of signal mask {mask} for the model {model}; name theirs with --model"
        raise AssetError(msg)
    weight = policy.weight if policy is not None else DEFAULT_POLICY.weight
    return Terms(assets, key, mask, calibration.level, weight, detector.provenance.horizon)


def rows(sequence: Sequence, start: int, stop: int, under: Terms) -> Tensors:
    """Inputs of `tcd_diagnose` of steps `start` to `stop` - 1, each under a hypothesis of its own."""
    n, sent = stop - start, replay(sequence, start, stop)
    for signal, sizes in _SIZES.items():
        if not under.mask & signal:
            sent["LENGTHS"][:, sizes] = 0
    return {
        **sent,
        "KEY": np.tile(np.array(under.key, np.uint64), (n, 1)),
        "POLICY": np.zeros((n, 1), np.uint64),
        "ALPHA": np.zeros((n, 1)),
        "SUP": np.full((n, 2), SUP_START),
        "BASE": np.tile(np.array([1.0, 1.0, 0.0, 0.0], np.float32), (n, 1)),
    }


def chunks(sequence: Sequence, under: Terms) -> list[Tensors]:
    """All steps of a recording as batches."""
    stops = [*range(_ROWS, sequence.steps, _ROWS), sequence.steps]
    return [rows(sequence, start, stop, under) for start, stop in zip([0, *stops], stops, strict=False)]


def joined(parts: list[Tensors]) -> Tensors:
    """Answers of batches as those of one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def library(sequence: Sequence, under: Terms) -> Tensors:
    """Outputs of `tcd_diagnose` for every step, in this process; each step under a hypothesis of its own."""
    return joined([scoring.diagnose(chunk, under.assets) for chunk in chunks(sequence, under)])


def as_scored(steps: Steps, out: Tensors, under: Terms) -> Scored:
    """Answers of a sequence in the form of the evaluation.

    Raises:
        AssetError: if no asset answered.
    """
    status = np.asarray(out["STATUS"], np.int64)[:, 0]
    if (status & _UNANSWERED).any():
        msg = "no calibration of these assets answers the recordings"
        raise AssetError(msg)
    warm = (status & int(Status.WARMUP)) == 0
    p_detector, p_monitor = np.asarray(out["P_STEP"], np.float64).T
    return Scored(
        steps=steps,
        statistic=np.where(warm, out["SUP_OUT"][:, 0], -np.inf),
        merged=merge(p_detector, p_monitor, under.weight),
        level=under.level,
        session_p=1.0,
        p=p_detector,
    )


def of_one_hypothesis(sequence: Sequence, alone: Tensors, under: Terms) -> Tensors:
    """The library's answers with the whole sequence as one hypothesis, as a shim judges a session."""
    reached = np.maximum.accumulate(np.asarray(alone["SUP_OUT"], np.float64), axis=0)
    before = np.concatenate([np.full((1, 2), SUP_START), reached[:-1]])
    parts, start = [], 0
    for chunk in chunks(sequence, under):
        stop = start + chunk["SUP"].shape[0]
        parts.append(scoring.diagnose(chunk | {"SUP": before[start:stop]}, under.assets))
        start = stop
    return joined(parts)
