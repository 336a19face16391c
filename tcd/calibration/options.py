"""Choices of a fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tcd.calibration.assets import MaskCalibration
from tcd.calibration.steps import Steps

#: Every set of signals that a caller may send.
ALL_MASKS: Final = tuple(range(1, 16))


@dataclass(frozen=True, slots=True)
class FitOptions:
    """Choices of a fit.

    Attributes:
        ridge: penalty of the logistic combination.
        stride: every n-th step of a sequence trains the combination (neighbours are nearly equal).
        alarms: healthy conformal steps per false alarm (after one, 32 steps raise no other); twice the budget of one
            in 1,000, because a level that is fitted on few prompts sounds more often on others.
        smoothing: r of the multivariate monitor's MEWMA, 1 = the newest row alone.
        robust: whether its reference is centred on the median instead of the mean.
        threshold_alpha: level of the multivariate monitor's own threshold.
        thin: every n-th healthy step enters the components' tables, which need no fine tail.
        least: fewest sessions that a conformal part must have.
        first: first step after the onset at which a fault counts as visible in training.
        last: last such step; 64 where the features are there: what they show, they show at once.
        masks: signal masks to fit; rows of another mask answer UNKNOWN_MASK.
        weights: combinations by mask for recordings that hold healthy generations only.
        learn: whether faults in the data train the combination; with False `weights` are taken.
        training: recordings of other prompts that train the combination too, standardised by scales of their own.
        groups: kinds of faults that a head learns together, one head per group; those of `tcd.calibration.heads` by
            default.
        delta: probability that the calibration is too lucky for p-values that hold given it
            (`tcd.calibration.conditional`); 0 for the marginal ones.
    """

    ridge: float = 1e-3
    stride: int = 4
    alarms: int = 2000
    smoothing: float = 1.0
    robust: bool = False
    threshold_alpha: float = 0.01
    thin: int = 8
    least: int = 4
    first: int = 4
    last: int = 96
    masks: tuple[int, ...] = ALL_MASKS
    weights: Mapping[int, MaskCalibration] = field(default_factory=dict)
    training: tuple[Steps, ...] = ()
    learn: bool = True
    groups: tuple[tuple[str, ...], ...] = ()
    delta: float = 0.0
