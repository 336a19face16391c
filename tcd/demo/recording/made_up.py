"""A directory of synthetic generations: what is asked for, as a plan, and the columns of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from tcd.demo.recording.columns import TYPES, Columns
from tcd.demo.recording.plan import Job, Part
from tcd.demo.recording.synthetic import Tables, blow_up, drift, healthy, loop

#: Regimes that can be made up, as recordings name them: `lowtemp` loops, `corrupt` drifts.
REGIMES: Final = ("healthy", "lowtemp", "tempblow", "corrupt")
_TEMPERATURES: Final = (1.3, 1.5, 2.0, 3.0)
_LONGEST_PERIOD: Final = 48
_PART: Final = 32
_LEAST: Final = 96


def make_plan(regimes: Mapping[str, int], *, strength: float, length: int, seed: int) -> list[Part]:
    """Parts of a synthetic recording; the same arguments give the same plan.

    Args:
        regimes: how many generations of each of `REGIMES` named.
        strength: of the drifts, standard deviations.
        length: tokens of a generation, at least 96.
        seed: of everything random.

    Raises:
        ValueError: for an argument out of its range.
    """
    checks = {
        f"unknown regimes {sorted(set(regimes) - set(REGIMES))}; known: {', '.join(REGIMES)}": set(regimes)
        <= set(REGIMES),
        "a regime's count must be positive": bool(regimes) and all(count > 0 for count in regimes.values()),
        f"length must be at least {_LEAST}": length >= _LEAST,
        "strength must be in (0, 6]": 0.0 < strength <= 6.0,  # noqa: PLR2004 - standard deviations
    }
    if not all(checks.values()):
        raise ValueError("; ".join(text for text, fine in checks.items() if not fine))
    parts = []
    for number, regime in enumerate(REGIMES):
        rng = np.random.default_rng([seed, number])
        jobs = [_job(regime, i, strength, length, rng) for i in range(regimes.get(regime, 0))]
        parts += [
            Part(f"{regime}-{first:04d}", tuple(jobs[first : first + _PART])) for first in range(0, len(jobs), _PART)
        ]
    return parts


def _job(regime: str, i: int, strength: float, length: int, rng: np.random.Generator) -> Job:
    seed, change = int(rng.integers(2**31)), int(rng.integers(int(0.3 * length), int(0.55 * length)))
    changes = regime in {"tempblow", "corrupt"}
    return Job(
        regime,
        "synthetic",
        f"{regime} {i}",
        0.0 if regime == "lowtemp" else 1.0,
        _TEMPERATURES[i % len(_TEMPERATURES)] if regime == "tempblow" else None,
        change if changes else -1,
        length,
        seed,
        None,
        f"drift:{strength:g}" if regime == "corrupt" else "",
    )


def make_part(tables: Tables, part: Part) -> tuple[list[Columns], list[int]]:
    """Columns of every generation of a part; none is forced."""
    made = [_columns(tables, job) for job in part.jobs]
    return made, [0] * len(made)


def _columns(tables: Tables, job: Job) -> Columns:
    rng = np.random.default_rng(job.seed)
    signals = healthy(tables, rng, job.length)
    if job.regime == "lowtemp":
        period = int(rng.integers(1, _LONGEST_PERIOD + 1))
        onset = int(rng.integers(max(period, 8), max(period, 8) + job.length // 4))
        signals = loop(signals, rng, onset=onset, period=period)
    elif job.regime == "tempblow":
        signals = blow_up(signals, tables, rng, onset=job.change, temperature=job.after or 1.0)
    elif job.regime == "corrupt":
        signals = drift(signals, tables, rng, onset=job.change, strength=float(job.corruption.partition(":")[2]))
    return {name: values.astype(TYPES[name]) for name, values in signals.columns().items()}
