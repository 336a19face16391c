"""What a stream keeps: hypotheses until they are forgotten, epochs until all of theirs are over, leases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from tcd.risk_av.params import Terms
from tcd.risk_av.rules import EpochRule, Level

#: Why a place of an ended lease holds no hypothesis: drawn but never heard of again (e = kappa), or never drawn.
LOST: Final = "lost"
UNUSED: Final = "unused"
EMPTY: Final = Level(0.0, 0.0, 0.0, 0)


@dataclass(slots=True)
class Hypothesis:
    """A reserved hypothesis until it is forgotten."""

    name: str
    user: str
    epoch: int
    index: int
    seq: int
    level: Level
    wealth: float
    exhausted: bool
    claim: int
    params: str
    p: float | None = None
    rejected: bool = False
    credited: bool = False
    failures: int = 0
    reason: str = ""


@dataclass(slots=True)
class Granted:
    """A lease that is out: its terms, and a place in the fold order for each of its reservations."""

    number: int
    holder: str
    epoch: int
    index: int
    seq: int
    terms: Terms
    slots: list[Hypothesis]


@dataclass(slots=True)
class Epoch:
    """An epoch with reservations that may still settle."""

    number: int
    rule: EpochRule
    params: str
    claim_level: float
    rejections: int = 0
    live: int = 0
    credits: dict[str, int] = field(default_factory=dict)
