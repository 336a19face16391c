"""Rules that divide one budget by a discount sequence and never earn: alpha-spending and e-LOND.

Alpha-spending: level alpha gamma_t, a union bound (FWER). e-LOND (Xu, Ramdas 2024): reject when
e >= 1/(alpha gamma_t (R + 1)), FDR under any dependence of the e-values; here e = 1/(2 sqrt(p)), so that the
same comparison `p <= ALPHA` decides with ALPHA = (alpha gamma_t (R + 1) / 2)**2.
"""

from __future__ import annotations

from typing import Any

from tcd.risk_av.gamma import gamma_lord
from tcd.risk_av.params import Terms
from tcd.risk_av.rules import Level


class Spending:
    """State of such a rule in one epoch."""

    __slots__ = ("_by_e", "_next", "index", "known", "spent", "terms")

    def __init__(self, terms: Terms, *, by_e: bool) -> None:
        """Start an epoch under `terms`; `by_e` = e-LOND."""
        self.terms = terms
        self.index = 0
        self.known = 0
        self.spent = 0.0
        self._by_e = by_e
        self._next: Level | None = None

    @property
    def full(self) -> bool:
        """Whether the epoch has no reservation left."""
        kind, size = self.terms.schedule
        return kind == "uniform" and self.index >= size

    @property
    def remaining(self) -> float:
        """Budget left."""
        return max(0.0, self.terms.alpha - self.spent)

    @property
    def wealth(self) -> float:
        """Budget left, with what rejections multiply it by."""
        return self.remaining * (self.known + 1 if self._by_e else 1)

    def level(self) -> Level:
        """What the next reservation would get."""
        if self._next is None:
            self._next = self._level()
        return self._next

    def _level(self) -> Level:
        terms = self.terms
        budget = max(0.0, terms.alpha - terms.from_spent)
        cost = 0.0 if self.full else budget * gamma_lord(self.index + 1 - terms.from_index)
        spent = self.spent + cost
        if not self._by_e:
            return Level(cost, cost, spent, self.known)
        half = min(1.0, cost * (self.known + 1)) * 0.5
        return Level(cost, half * half, spent, self.known)

    def reserve(self) -> Level:
        """Debit the next reservation; never refunded."""
        level = self.level()
        self.index += 1
        self.spent = level.spent
        self._next = None
        return level

    def rejected(self, index: int) -> None:  # noqa: ARG002 - rejections are counted, whichever they are
        """Count a rejection; only e-LOND's levels rise with it."""
        self.known += 1
        self._next = None

    def closed(self, index: int, p: float | None) -> None:
        """Nothing is learnt from a hypothesis that was not rejected."""

    def change(self, terms: Terms) -> float:
        """Spend what the new alpha leaves by a new discount sequence."""
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
