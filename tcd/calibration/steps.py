"""Recorded generations as raw statistics by step, their healthy steps, and the scales of these."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration import logistic
from tcd.calibration.traces import Sequence, load_traces, replay
from tcd.detector import statistics
from tcd.detector.catalogue import AGES
from tcd.detector.windows import BLOCK, counts_of

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_CHUNK: Final = 256
#: What an age needs to have scales of its own.
_LEAST_STEPS, _LEAST_SCALE = 48, 1e-5


@dataclass(frozen=True, slots=True)
class Steps:
    """Raw statistics of all steps of one sequence past the warm-up of the caller's windows."""

    sequence: Sequence
    raw: statistics.Raw
    windows: F64
    rows: I64


def steps_of(sequence: Sequence) -> Steps:
    """Raw statistics of every step of a sequence, made by the serving code from the windows a caller would send."""
    values, valid, ages = [], [], []
    for start in range(0, sequence.steps, _CHUNK):
        tensors = replay(sequence, start, min(start + _CHUNK, sequence.steps))
        names = ("TRACE", "ENTROPY", "SPECTRUM", "FEATURES")
        trace, entropy, spectrum, features = (tensors[name] for name in names)
        widths = {name.lower(): tensors[name].shape[1] for name in names}
        raw = statistics.compute(trace, entropy, spectrum, features, counts_of(tensors["LENGTHS"], **widths))
        values.append(raw.values)
        valid.append(raw.valid)
        ages.append(raw.age)
    everything = statistics.Raw(
        np.concatenate(values), np.concatenate(valid), np.zeros(sequence.steps, np.bool_), np.concatenate(ages)
    )
    windows = sequence.features.astype(np.float64)
    return Steps(sequence, everything, windows, np.arange(1, sequence.steps + 1))


def training_steps(directories: Iterable[Path]) -> tuple[Steps, ...]:
    """The steps of directories of recordings, for `FitOptions.training`.

    Raises:
        AssetError: if one cannot be read.
    """
    return tuple(steps_of(s) for directory in directories for s in load_traces(directory).sequences)


def ready(steps: Steps) -> I64:
    """Indices of healthy steps after the warm-up."""
    return np.arange(min(BLOCK - 1, steps.sequence.healthy), steps.sequence.healthy)


def stack(parts: list[Steps], chosen: list[I64]) -> statistics.Raw:
    """The chosen steps of some sequences, one after the other."""
    return statistics.Raw(
        np.concatenate([s.raw.values[i] for s, i in zip(parts, chosen, strict=True)]),
        np.concatenate([s.raw.valid[i] for s, i in zip(parts, chosen, strict=True)]),
        np.zeros(sum(i.shape[0] for i in chosen), np.bool_),
        np.concatenate([s.raw.age[i] for s, i in zip(parts, chosen, strict=True)]),
    )


def scales(raw: statistics.Raw) -> tuple[F64, F64]:
    """Medians and 1.4826 MAD by age, (A, F); those of all ages where there is little to go by."""
    everyone = logistic.robust_scale(raw.values, raw.valid)
    location, scale = (np.tile(one, (AGES.shape[0] + 1, 1)) for one in everyone)
    for age in range(location.shape[0]):
        valid = raw.valid & (raw.age == age)[:, None]
        here = logistic.robust_scale(raw.values, valid)
        known = (valid.sum(axis=0) >= _LEAST_STEPS) & (here[1] > _LEAST_SCALE)
        location[age, known], scale[age, known] = here[0][known], here[1][known]
    return location, scale
