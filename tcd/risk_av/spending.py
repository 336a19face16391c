"""Rules that divide one budget by a discount sequence and never earn: alpha-spending and e-LOND.

Alpha-spending: level alpha gamma_t, a union bound (FWER). e-LOND (Xu, Ramdas 2024): reject when
e >= 1/(alpha gamma_t (R + 1)), FDR under any dependence of the e-values; here e = 1/(2 sqrt(p)), so that the
same comparison `p <= ALPHA` decides with ALPHA = (alpha gamma_t (R + 1) / 2)**2.
"""

from __future__ import annotations

from tcd.risk_av.gamma import gamma_lord
from tcd.risk_av.params import Terms
from tcd.risk_av.rules import Counting, Level


class Spending(Counting):
    """State of such a rule in one epoch."""

    __slots__ = ("_by_e",)

    def __init__(self, terms: Terms, *, by_e: bool) -> None:
        """Start an epoch under `terms`; `by_e` = e-LOND, whose levels rise with each rejection."""
        super().__init__(terms)
        self._by_e = by_e

    @property
    def wealth(self) -> float:
        """Budget left, with what rejections multiply it by."""
        return self.remaining * (self.known + 1 if self._by_e else 1)

    def _level(self) -> Level:
        terms = self.terms
        budget = max(0.0, terms.alpha - terms.from_spent)
        cost = 0.0 if self.full else budget * gamma_lord(self.index + 1 - terms.from_index)
        spent = self.spent + cost
        if not self._by_e:
            return Level(cost, cost, spent, self.known)
        half = min(1.0, cost * (self.known + 1)) * 0.5
        return Level(cost, half * half, spent, self.known)
