"""The detector's raw statistics: names, components, what each needs; their order is that of the assets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.contract import COMPONENTS, SPECTRUM_RANK, Signal
from tcd.detector.windows import BLOCK

Bool = NDArray[np.bool_]


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
    Statistic("surprisal_4", "invertibility", _T, BLOCK),
    Statistic("surprisal_32", "invertibility", _T, BLOCK),
    Statistic("surprisal_64", "invertibility", _T, BLOCK),
    Statistic("trace_low", "invertibility", _T, BLOCK),
    Statistic("surprisal_self", "invertibility", _T, 2 * BLOCK),
    Statistic("surprisal_self_32", "invertibility", _T, 3 * BLOCK),
    Statistic("surprisal_self_64", "invertibility", _T, 5 * BLOCK),
    Statistic("probability_16", "invertibility", _T, BLOCK),
    Statistic("probability_32", "invertibility", _T, BLOCK),
    Statistic("probability_self", "invertibility", _T, 3 * BLOCK),
    Statistic("residual_16", "invertibility", _T | _E, BLOCK),
    Statistic("residual_4", "invertibility", _T | _E, BLOCK),
    Statistic("residual_32", "invertibility", _T | _E, BLOCK),
    Statistic("residual_64", "invertibility", _T | _E, BLOCK),
    Statistic("residual_self_32", "invertibility", _T | _E, 3 * BLOCK),
    Statistic("residual_self_64", "invertibility", _T | _E, 5 * BLOCK),
    Statistic("misfit_16", "invertibility", _T | _E, BLOCK),
    Statistic("misfit_32", "invertibility", _T | _E, BLOCK),
    Statistic("misfit_self", "invertibility", _T | _E, 3 * BLOCK),
    Statistic("entropy_16", "entropy_drop", _E, BLOCK),
    Statistic("entropy_4", "entropy_drop", _E, BLOCK),
    Statistic("entropy_32", "entropy_drop", _E, BLOCK),
    Statistic("entropy_64", "entropy_drop", _E, BLOCK),
    Statistic("entropy_sd", "entropy_drop", _E, BLOCK),
    Statistic("entropy_self", "entropy_drop", _E, 2 * BLOCK),
    Statistic("entropy_self_32", "entropy_drop", _E, 3 * BLOCK),
    Statistic("entropy_self_64", "entropy_drop", _E, 5 * BLOCK),
    Statistic("log_entropy_16", "entropy_drop", _E, BLOCK),
    Statistic("log_entropy_32", "entropy_drop", _E, BLOCK),
    Statistic("log_entropy_self", "entropy_drop", _E, 3 * BLOCK),
    Statistic("nucleus_4", "entropy_drop", _F, BLOCK),
    Statistic("nucleus_16", "entropy_drop", _F, BLOCK),
    Statistic("nucleus_32", "entropy_drop", _F, BLOCK),
    Statistic("nucleus_64", "entropy_drop", _F, BLOCK),
    Statistic("nucleus_self", "entropy_drop", _F, 2 * BLOCK),
    Statistic("nucleus_self_32", "entropy_drop", _F, 3 * BLOCK),
    Statistic("nucleus_self_64", "entropy_drop", _F, 5 * BLOCK),
    Statistic("spread", "sigma_cut", _S, SPECTRUM_RANK),
    Statistic("log_sigma_1", "sigma_cut", _S, SPECTRUM_RANK),
    Statistic("log_sigma_16", "sigma_cut", _S, SPECTRUM_RANK),
    Statistic("log_sigma_mean", "sigma_cut", _S, SPECTRUM_RANK),
    Statistic("spectral_entropy", "sigma_cut", _S, SPECTRUM_RANK),
    Statistic("feature_norm", "sigma_cut", _F, BLOCK),
    Statistic("feature_self", "sigma_cut", _F, 2 * BLOCK),
    Statistic("feature_self_32", "sigma_cut", _F, 3 * BLOCK),
    Statistic("feature_rank", "sigma_cut", _F, 2 * BLOCK),
    Statistic("recurrence_features", "recurrence", _F, 2 * BLOCK),
    Statistic("recurrence_features_8", "recurrence", _F, 2 * BLOCK),
    Statistic("recurrence_entropy", "recurrence", _E, 2 * BLOCK),
    Statistic("recurrence_trace", "recurrence", _T, 2 * BLOCK),
    Statistic("recurrence_pair", "recurrence", _E | _F, 2 * BLOCK),
    Statistic("recurrence_joint", "recurrence", _T | _E | _F, 2 * BLOCK),
    Statistic("recurrence_joint_8", "recurrence", _T | _E | _F, 2 * BLOCK),
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
#: (F,): statistics of the last feature column, the log of the nucleus size where the features are tcd's own.
NUCLEUS: Final = np.array([name.startswith("nucleus_") for name in NAMES])
#: Columns whose largest z is the component's headline.
HEADLINES: Final = (
    slice(INDEX["trace_low"], INDEX["trace_low"] + 1),
    slice(INDEX["entropy_16"], INDEX["entropy_16"] + 1),
    slice(INDEX["spread"], INDEX["spread"] + 1),
    slice(INDEX["recurrence_features"], INDEX["recurrence_trace"] + 1),
)

#: (F, 4): least counts of trace, entropy, spectrum and feature rows.
NEEDED: Final = np.array([[s.least if signal & s.signals else 0 for signal in (_T, _E, _S, _F)] for s in STATISTICS])


#: Tokens of context at which an age starts. A statistic's healthy level depends on how long its past is, most of
#: all a minimum over lags, so scales are kept by age; the last one is that of long generations.
AGES: Final = np.array([24, 32, 40, 48, 64, 80, 96, 112, 128, 160])


def usable(mask: int) -> Bool:
    """Which statistics a signal mask carries; (F,)."""
    return np.array([(s.signals & mask) == s.signals for s in STATISTICS])
