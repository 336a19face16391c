"""How alike two sets of generations are in what a detector is calibrated on: marginals, requests, memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.calibration.traces import Sequence as Recorded

F64 = NDArray[np.float64]
LAGS: Final = (1, 4)
#: Steps that a generation must have to be counted.
_LEAST: Final = 64

#: What is compared, each a number per step.
SIGNALS: Final[Mapping[str, Callable[[Recorded], NDArray[np.floating[Any]]]]] = {
    "entropy": lambda s: s.entropy,
    "surprisal": lambda s: -s.trace,
    "surprisal - entropy": lambda s: -s.trace - s.entropy,
    "log nucleus size": lambda s: s.features[:, -1],
    "log nucleus size - entropy": lambda s: s.features[:, -1] - s.entropy,
    "norm of the projection": lambda s: np.linalg.norm(s.features[:, :-1], axis=1),
    "feature 0": lambda s: s.features[:, 0],
    "log first singular value": lambda s: np.log(np.maximum(s.spectrum[:, 0], 1e-3)),
}


@dataclass(frozen=True, slots=True)
class Profile:
    """One signal over the healthy steps of many generations.

    Attributes:
        mean, deviation: of all steps.
        between: share of the variance between generations (one-way random effects, Searle et al. 1992, ch. 3).
        memory: autocorrelation within a generation at lags 1 and 4, around its own mean.
    """

    mean: float
    deviation: float
    between: float
    memory: tuple[float, ...]


def profile(parts: Sequence[F64]) -> Profile:
    """Profile of one signal of several generations, each longer than the largest lag."""
    everything = np.concatenate(parts)
    count, mean = np.array([p.shape[0] for p in parts]), np.array([p.mean() for p in parts])
    within = [p - m for p, m in zip(parts, mean, strict=True)]
    squares = sum(float(w @ w) for w in within)
    inner = squares / (count.sum() - count.shape[0])
    outer = float(count @ (mean - everything.mean()) ** 2) / (count.shape[0] - 1)
    size = (count.sum() - (count**2).sum() / count.sum()) / (count.shape[0] - 1)
    effect = max(0.0, (outer - inner) / size)
    memory = tuple(sum(float(w[lag:] @ w[:-lag]) for w in within) / squares for lag in LAGS)
    return Profile(float(everything.mean()), float(everything.std()), effect / (effect + inner), memory)


def compare(sequences: Sequence[Recorded]) -> dict[str, Profile]:
    """Profiles of the healthy steps of all generations that are not greedy and have 64 or more."""
    chosen = [s for s in sequences if s.kind in {"healthy", "soft"} and s.healthy >= _LEAST]
    return {
        name: profile([np.asarray(get(s)[: s.healthy], np.float64) for s in chosen]) for name, get in SIGNALS.items()
    }


def table(sets: Mapping[str, Mapping[str, Profile]]) -> str:
    """Markdown: a row per signal and set."""
    lines = ["| signal | set | mean | sd | between requests | lag 1 | lag 4 |", "|---|---|---|---|---|---|---|"]
    for signal in SIGNALS:
        for name, profiles in sets.items():
            p = profiles[signal]
            cells = (f"{p.mean:.2f}", f"{p.deviation:.2f}", f"{p.between:.2f}", *(f"{m:.2f}" for m in p.memory))
            lines.append(f"| {signal} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
