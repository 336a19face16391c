"""Online testing rules: what the next reservation costs and which level it gets.

A rule sees only what was known before the p-value exists: earlier reservations and settlements. RAI is the
rule of the e-GAI family (arXiv 2506.01452) with settled rejections only (Zrnic, Ramdas, Jordan 2021).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from tcd.risk_av.params import Terms


class Level(NamedTuple):
    """What one reservation gets: its cost, its level, the budget spent after it, rejections known before it."""

    cost: float
    alpha: float
    spent: float
    known: int


class EpochRule(Protocol):
    """State of a rule in one epoch. Indices of reservations start at 1."""

    @property
    def terms(self) -> Terms:
        """The terms in force."""
        ...

    @property
    def index(self) -> int:
        """Reservations so far."""
        ...

    @property
    def known(self) -> int:
        """Rejections credited so far."""
        ...

    @property
    def spent(self) -> float:
        """Budget debited so far."""
        ...

    @property
    def full(self) -> bool:
        """Whether the schedule has no reservation left."""
        ...

    @property
    def remaining(self) -> float:
        """Budget left."""
        ...

    @property
    def wealth(self) -> float:
        """Budget left, with what known rejections add to it."""
        ...

    def level(self) -> Level:
        """What the next reservation would get; changes nothing."""
        ...

    def reserve(self) -> Level:
        """Debit the next reservation."""
        ...

    def rejected(self, index: int) -> None:
        """Reservation `index` was settled as a rejection."""
        ...

    def closed(self, index: int, p: float | None) -> None:
        """Reservation `index` is over, with its last p-value or none."""
        ...

    def change(self, terms: Terms) -> float:
        """Go on under new terms; they start at the present index and spent budget. Returns the epoch's new claim."""
        ...

    def saved(self) -> list[Any]:
        """What the rule keeps beside its terms, index, known and spent, as JSON values."""
        ...

    def restore(self, index: int, known: int, spent: float, rest: list[Any]) -> None:
        """Go on from where a rule of the same terms was; `rest` is what its `saved` gave."""
        ...


def rai_level(terms: Terms, index: int, spent: float, known: int) -> Level:
    """Level of reservation `index` (from 1) under RAI, in exactly this order of operations.

    Uniform schedule: c = alpha/L once per epoch, B = index * c, alpha_t = min(1, c (known + 1)). After a hot
    reload c = max(0, alpha' - B')/(L - t') and B = B' + (index - t') c. Omega schedule: c = omega (alpha - B),
    alpha_t = c (known + 1), B accumulates c.

    Args:
        terms: the terms in force.
        index: number of this reservation in its epoch.
        spent: budget spent before it (used by the omega schedule).
        known: credited rejections known before it.
    """
    kind, size = terms.schedule
    if kind == "uniform":
        left = int(size) - terms.from_index
        share = max(0.0, terms.alpha - terms.from_spent) / left if left > 0 else 0.0
        cost = share if index <= size else 0.0
        total = terms.from_spent + max(0, min(index, int(size)) - terms.from_index) * share
        return Level(cost, min(1.0, cost * (known + 1)), total, known)
    cost = max(0.0, size * (terms.alpha - spent))
    return Level(cost, min(1.0, cost * (known + 1)), spent + cost, known)


class Counting:
    """State of a rule that divides one budget and learns nothing but how many were rejected, in one epoch."""

    __slots__ = ("_next", "index", "known", "spent", "terms")

    def __init__(self, terms: Terms) -> None:
        """Start an epoch under `terms`."""
        self.terms = terms
        self.index = 0
        self.known = 0
        self.spent = 0.0
        self._next: Level | None = None

    @property
    def full(self) -> bool:
        """Whether the uniform schedule has no reservation left."""
        return self.terms.full(self.index)

    @property
    def remaining(self) -> float:
        """What is not spent: alpha - B."""
        return max(0.0, self.terms.alpha - self.spent)

    def level(self) -> Level:
        """What the next reservation would get."""
        if self._next is None:
            self._next = self._level()
        return self._next

    def _level(self) -> Level:
        raise NotImplementedError

    def reserve(self) -> Level:
        """Debit the next reservation; never refunded."""
        level = self.level()
        self.index += 1
        self.spent = level.spent
        self._next = None
        return level

    def rejected(self, index: int) -> None:  # noqa: ARG002 - rejections are counted, whichever they are
        """Credit one rejection."""
        self.known += 1
        self._next = None

    def closed(self, index: int, p: float | None) -> None:
        """Nothing is learnt from a hypothesis that was not rejected."""

    def change(self, terms: Terms) -> float:
        """Go on under new terms, with what the new alpha leaves."""
        self.terms = terms
        self._next = None
        return max(terms.alpha, self.spent)

    def saved(self) -> list[Any]:
        """Nothing."""
        return []

    def restore(self, index: int, known: int, spent: float, rest: list[Any]) -> None:  # noqa: ARG002 - nothing more
        """Go on from where a rule was."""
        self.index, self.known, self.spent = index, known, spent
        self._next = None


class Rai(Counting):
    """RAI in one epoch; see `rai_level`."""

    __slots__ = ()

    @property
    def wealth(self) -> float:
        """(alpha - B)(R + 1)."""
        return self.remaining * (self.known + 1)

    def _level(self) -> Level:
        return rai_level(self.terms, self.index + 1, self.spent, self.known)

    def take(self, count: int) -> None:
        """Debit `count` reservations of the uniform schedule at once, for a lease."""
        self.index += count
        self.spent = rai_level(self.terms, self.index, self.spent, self.known).spent
        self._next = None
