"""What each signal and each component buys: the same fit without it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tcd.bench.detector.recordings import Recordings
from tcd.calibration.evaluate import Scored, evaluate_fold, folds_of
from tcd.calibration.options import FitOptions
from tcd.calibration.steps import Steps
from tcd.contract import COMPONENTS
from tcd.detector.catalogue import SLICES

#: Row -> signal mask, what a caller sends.
MASKS: Final = {
    "all signals": 15,
    "without features": 7,
    "log-probability and entropy": 3,
    "entropy": 2,
    "log-probability": 1,
}

#: A head of all faults, and one of loops, as tcd had them.
ONE_HEAD: Final = (("loop", "mild", "severe", "shift", "soft", "temperature"), ("loop",))


def cross_validated(
    steps: list[Steps], prompts: tuple[str, ...], folds: int, mask: int, options: FitOptions | None = None
) -> list[Scored]:
    """Every sequence scored by a fit that has not seen its prompt.

    Raises:
        AssetError: if there are too few sessions to fit.
    """
    parts = [evaluate_fold(steps, held_out, mask=mask, options=options) for held_out in folds_of(prompts, folds)]
    return [one for part in parts for one in part]


def without(steps: Steps, component: str) -> Steps:
    """The steps of a caller whose windows never carry a component's statistics: they stay neutral everywhere."""
    valid = steps.raw.valid.copy()
    valid[:, SLICES[COMPONENTS.index(component)]] = False
    return replace(steps, raw=replace(steps.raw, valid=valid))


def components(recordings: Recordings, folds: int, options: FitOptions) -> dict[str, list[Scored]]:
    """All signals, one component left out at a time, and one head in the place of several; fitted and calibrated anew.

    Raises:
        AssetError: if there are too few sessions to fit.
    """
    left_out = {
        f"without {name}": cross_validated(
            [without(s, name) for s in recordings.steps],
            recordings.prompts,
            folds,
            15,
            replace(options, training=tuple(without(s, name) for s in options.training)),
        )
        for name in COMPONENTS
    }
    one = replace(options, groups=ONE_HEAD)
    return left_out | {
        "one head, and one for loops": cross_validated(recordings.steps, recordings.prompts, folds, 15, one)
    }
