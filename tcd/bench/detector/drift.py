"""River's drift detectors on one signal per token, restarted at every generation, swept to the budget.

A detector is asked with the most sensitive setting of its sweep that keeps the budget on these very recordings, on
the signal and with the second parameter that serve it best there: what no user could choose beforehand.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.bench.detector import budget, peers
from tcd.bench.detector.recordings import Recordings
from tcd.calibration.steps import Steps
from tcd.detector.windows import BLOCK

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
#: Flags of a sequence's first values (so many of them) at a setting.
Flags = Callable[[F64, float, int], Bool]


def _surprisal(steps: Steps) -> F64:
    return -steps.sequence.trace.astype(np.float64)


def _feature_step(steps: Steps) -> F64:
    """Distance of a feature vector from the one before; 0 at the first."""
    moved = np.diff(steps.sequence.features.astype(np.float64), axis=0)
    return np.concatenate([[0.0], np.linalg.norm(moved, axis=1)])


#: The signals a detector may be fed with.
FEEDS: Final[dict[str, Callable[[Steps], F64]]] = {
    "entropy": peers.entropy,
    "surprisal": _surprisal,
    "feature step": _feature_step,
}


def _river() -> Any:
    """River, an optional dependency; half of it has no types."""
    return importlib.import_module("river.drift")


def _run(detector: Any, values: F64) -> Bool:
    out = np.zeros(values.shape[0], np.bool_)
    for i, value in enumerate(values.tolist()):
        detector.update(value)
        out[i] = detector.drift_detected
    return out


def _adwin(clock: int, values: F64, delta: float, stop: int) -> Bool:
    return _run(_river().ADWIN(delta=delta, clock=clock), values[:stop])


def _page_hinkley(delta: float, values: F64, threshold: float, stop: int) -> Bool:
    return _run(_river().PageHinkley(min_instances=BLOCK, delta=delta, threshold=threshold), values[:stop])


class _Path:
    """p-values of a KSWIN that starts at a step of some values and never alarms, made as far as they are asked for."""

    def __init__(self, values: F64, sizes: tuple[int, int]) -> None:
        self._values, self._window = values, sizes[0]
        self._detector = _river().KSWIN(alpha=0.0, window_size=sizes[0], stat_size=sizes[1], seed=0)
        self._made: list[float] = []

    def first(self, level: float, stop: int) -> int | None:
        """The first of the first `stop` steps at which p is at most the level; None for none."""
        for i in range(min(stop, self._values.shape[0])):
            if i == len(self._made):
                self._detector.update(float(self._values[i]))
                # before its window is full it compares nothing
                self._made.append(self._detector.p_value if i + 1 >= self._window else 1.0)
            if self._made[i] <= level:
                return i
        return None


class Kswin:
    """KSWIN at many levels for the price of a few.

    It starts afresh after an alarm: what it does from there on depends on the level only through where that was.
    """

    def __init__(self, window: int, newest: int) -> None:
        """A detector that compares the newest values of a window with a sample of the rest."""
        self._sizes = (window, newest)
        # the values are kept beside their paths, so that their id is not given to others
        self._paths: dict[tuple[int, int], tuple[F64, _Path]] = {}

    def __call__(self, values: F64, level: float, stop: int) -> Bool:
        """Steps on which KSWIN at this level sees a drift."""
        out, start = np.zeros(min(stop, values.shape[0]), np.bool_), 0
        while out.shape[0] - start >= self._sizes[0]:
            name = (id(values), start)
            if name not in self._paths:
                self._paths[name] = (values, _Path(values[start:], self._sizes))
            hit = self._paths[name][1].first(level, out.shape[0] - start)
            if hit is None:
                break
            out[start + hit] = True
            start += hit + 1
        return out


@dataclass(frozen=True, slots=True)
class Family:
    """A detector: what it does at a setting, by variant; its settings, most sensitive first; as it is shipped."""

    variants: dict[str, Flags]
    settings: tuple[float, ...]
    parameter: str
    shipped: Callable[[F64], Bool] = field(repr=False)


def _shipped(name: str, values: F64) -> Bool:
    drift = _river()
    made = {"ADWIN": drift.ADWIN, "KSWIN": partial(drift.KSWIN, seed=0), "Page-Hinkley": drift.PageHinkley}
    return _run(made[name](), values)


_LEVELS: Final = tuple(float(f"{base}e{power}") for power in range(-1, -13, -1) for base in (5, 2, 1))


def families() -> dict[str, Family]:
    """The three detectors. Levels of ADWIN and KSWIN, thresholds (standard deviations) of Page-Hinkley."""
    return {
        "river ADWIN": Family(
            {"clock 1": partial(_adwin, 1)},
            (0.99, 0.9, 0.7, *_LEVELS),
            "delta",
            partial(_shipped, "ADWIN"),
        ),
        "river KSWIN": Family(
            # its own; 48 and 16 caught half as much
            {"windows 100, 30": Kswin(100, 30)},
            _LEVELS,
            "alpha",
            partial(_shipped, "KSWIN"),
        ),
        "river Page-Hinkley": Family(
            {f"delta {delta}": partial(_page_hinkley, delta) for delta in (0.005, 0.1, 0.5)},
            tuple(np.geomspace(2.0, 200.0, 41).round(2).tolist()),
            "threshold",
            partial(_shipped, "Page-Hinkley"),
        ),
    }


def swept(
    steps: Sequence[Steps], values: Sequence[F64], flags: Flags, settings: Sequence[float], rearm: int
) -> tuple[float, list[Bool]] | None:
    """The most sensitive setting that keeps the budget (by bisection), and its alarms; None when none does."""
    allowed = budget.healthy_tokens(steps) // budget.TOKENS
    low, high = 0, len(settings)
    while low < high:
        middle = (low + high) // 2
        # what comes later changes no alarm
        found = [flags(v, settings[middle], s.sequence.healthy) for s, v in zip(steps, values, strict=True)]
        if budget.sounded(steps, found, rearm) > allowed:
            low = middle + 1
        else:
            high = middle
    if high == len(settings):
        return None
    return settings[high], [flags(v, settings[high], v.shape[0]) for v in values]


def _merit(found: dict[str, Any]) -> float:
    """Mean of the shares that the table shows."""
    cells = [("loop", 32), ("temperature", 32), ("severe", 32), ("severe", 64), ("mild", 64)]
    shares = [found[kind][f"within_{horizon}"][0] for kind, horizon in cells if kind in found]
    return float(np.mean(shares)) if shares else 0.0


def measure(recordings: Recordings, family: Family, *, feeds: Sequence[str] = tuple(FEEDS)) -> dict[str, Any]:
    """A row of the table: by either reading the best feed, variant and setting, and all feeds' merits beside it.

    Returns:
        Per reading what `budget.detection` says with `setting`; `feeds`: mean share by reading, feed and variant.
    """
    out: dict[str, Any] = {"auroc": None, "auroc_loops_greedy": None, "feeds": {}}
    values = {feed: peers.standardised(recordings, FEEDS[feed]) for feed in feeds}
    for reading, rearm in budget.READINGS.items():
        best, merits = -1.0, {}
        for feed, signal in values.items():
            for variant, flags in family.variants.items():
                kept = swept(recordings.steps, signal, flags, family.settings, rearm)
                if kept is None:
                    continue
                found = budget.detection(recordings.steps, kept[1], rearm)
                merits[f"{feed}, {variant}"] = merit = _merit(found)
                if merit > best:
                    best = merit
                    out[reading] = {"setting": f"{feed}, {variant}, {family.parameter} {kept[0]:g}", **found}
        out["feeds"][reading] = merits
    return out


def as_shipped(recordings: Recordings, family: Family) -> dict[str, Any]:
    """A detector with its defaults on the entropy as it is (nats): detection, and the false alarms that it costs."""
    flags = [family.shipped(peers.entropy(s)) for s in recordings.steps]
    return budget.detection(recordings.steps, flags, 0)
