"""What is recorded: which prompt runs under which regime, in batches that can be resumed one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Final

import numpy as np

from tcd.demo.recording.corruption import parse

REGIMES: Final = ("healthy", "lowtemp", "tempblow", "cooldown", "shift", "corrupt")
CORRUPTIONS: Final = ("noise:0.15", "noise:0.25", "quant:4", "quantg:3", "kv:0.5")
_HEALTHY_T: Final = (0.7, 0.8, 0.9, 1.0)
_BLOWUPS: Final = (1.5, 2.0, 1.3, 3.0)
TOP_P: Final = 0.95


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to record.

    Attributes:
        regime: one of `REGIMES`.
        prompt, task: what it continues.
        before, after: temperatures before and from the change point on.
        change: the change point, -1 for none.
        length: tokens at most.
        seed: of its own draws.
        forced: text that is forced from the change point on (shift), with its language.
        corruption: `kind:strength` from the change point on.
    """

    regime: str
    task: str
    prompt: str
    before: float
    after: float | None
    change: int
    length: int
    seed: int
    forced: tuple[str, str] | None = None
    corruption: str = ""

    @property
    def prompt_id(self) -> str:
        """Name of the prompt in the index."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()[:10]

    def temperature(self, step: int) -> float:
        """The temperature at a step."""
        return self.before if self.after is None or step < self.change else self.after


@dataclass(frozen=True, slots=True)
class Part:
    """Sequences that are recorded in one batch, and kept in one file."""

    name: str
    jobs: tuple[Job, ...]


def own_prompts() -> list[tuple[str, str]]:
    """The (task, prompt) pairs that come with tcd (CC0); no shipped asset was fitted on them."""
    return [(task, prompt) for task, prompt in _data()["prompts"]]


def foreign_texts() -> list[tuple[str, str]]:
    """The (language, text) pairs of the language shift (CC0)."""
    return [(language, text) for language, text in _data()["foreign"]]


def _data() -> dict[str, Any]:
    text = resources.files("tcd.demo").joinpath("data/record_prompts.json").read_text("utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def make_plan(
    prompts: Sequence[tuple[str, str]],
    *,
    regimes: Mapping[str, int],
    corruptions: Sequence[str] = CORRUPTIONS,
    length: int = 256,
    batch: int = 16,
    seed: int = 0,
) -> list[Part]:
    """Parts of a recording; the same arguments give the same plan.

    Args:
        prompts: (task, prompt) pairs.
        regimes: how many sequences of each of `REGIMES` named; those of `corrupt` share the corruptions.
        corruptions: see `tcd.demo.recording.corruption`.
        length: tokens of a sequence at most, at least 64.
        batch: sequences that advance together.
        seed: of everything random.

    Raises:
        ValueError: for an argument out of its range.
    """
    checks = {
        f"unknown regimes {sorted(set(regimes) - set(REGIMES))}": set(regimes) <= set(REGIMES),
        "no prompts": bool(prompts),
        "length must be in 64..400": 64 <= length <= 400,  # noqa: PLR2004 - room for the prompt
        "a regime's count and batch must be positive": batch > 0 and all(n > 0 for n in regimes.values()),
        "no corruptions": bool(corruptions) or "corrupt" not in regimes,
        "a corruption is named twice": len(set(corruptions)) == len(corruptions),
    }
    if not all(checks.values()):
        raise ValueError("; ".join(text for text, fine in checks.items() if not fine))
    for name in corruptions:
        parse(name)
    order = [prompts[i] for i in np.random.default_rng(seed).permutation(len(prompts))]
    out: list[Part] = []
    for regime in REGIMES:
        if regime not in regimes:
            continue
        rng = np.random.default_rng([seed, REGIMES.index(regime)])
        jobs = [_job(regime, i, order, corruptions, length, rng) for i in range(regimes[regime])]
        groups = [[j for j in jobs if j.corruption == name] for name in corruptions] if regime == "corrupt" else [jobs]
        for number, group in enumerate(groups):
            for first in range(0, len(group), batch):
                some = group[first : first + batch]
                if regime == "corrupt":
                    # the weights change for a whole batch at once
                    some = [replace(job, change=some[0].change) for job in some]
                out.append(Part(f"{regime}-{number}-{first:04d}", tuple(some)))
    return out


def _job(
    regime: str,
    i: int,
    order: Sequence[tuple[str, str]],
    corruptions: Sequence[str],
    length: int,
    rng: np.random.Generator,
) -> Job:
    # prompts are walked through in another order by each regime's own offset
    task, prompt = order[(i + 5 * REGIMES.index(regime)) % len(order)]
    seed, low = int(rng.integers(2**31)), int(0.3 * length)
    change = int(rng.integers(low, int(0.55 * length)))
    before = _HEALTHY_T[i % len(_HEALTHY_T)]
    if regime in {"healthy", "lowtemp"}:
        cold = 0.2 if i % 3 == 2 else 0.0  # noqa: PLR2004 - two greedy ones, then one nearly so
        return Job(regime, task, prompt, cold if regime == "lowtemp" else before, None, -1, length, seed)
    after = {"tempblow": _BLOWUPS[i % len(_BLOWUPS)], "cooldown": 0.0}.get(regime)
    forced = foreign_texts()[i % len(foreign_texts())] if regime == "shift" else None
    corruption = corruptions[i % len(corruptions)] if regime == "corrupt" else ""
    return Job(regime, task, prompt, before, after, change, length, seed, forced, corruption)
