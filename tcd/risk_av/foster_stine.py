"""Alpha-investing as published (Foster, Stine 2008), with the debit taken at reservation.

W_0 = alpha (1 - alpha); level W/(1 + t - k) with k the reservations made before the newest known rejection,
at most W/(1 + W); it costs level/(1 - level). A rejection gives its cost back and pays alpha.
"""

from __future__ import annotations

from typing import Any

from tcd.risk_av.params import Terms
from tcd.risk_av.rules import Level


class FosterStine:
    """State of the rule in one epoch. `spent` is the sum of all debits (never lowered)."""

    __slots__ = ("_costs", "_last", "_scale", "_wealth", "index", "known", "spent", "terms")

    def __init__(self, terms: Terms) -> None:
        """Start an epoch under `terms`."""
        self.terms = terms
        self.index = 0
        self.known = 0
        self.spent = 0.0
        self._wealth = terms.alpha * (1.0 - terms.alpha)
        self._last = 0
        self._scale = 1.0
        self._costs: dict[int, float] = {}

    @property
    def full(self) -> bool:
        """Whether the epoch has no reservation left."""
        return self.terms.full(self.index)

    @property
    def remaining(self) -> float:
        """Wealth left, 0 where rounding leaves less."""
        return max(0.0, self._wealth)

    @property
    def wealth(self) -> float:
        """Wealth left."""
        return self._wealth

    def level(self) -> Level:
        """What the next reservation would get."""
        wealth = self.remaining
        level = min(wealth / (2 + self.index - self._last), wealth / (1.0 + wealth)) * self._scale
        if self.full:
            level = 0.0
        cost = level / (1.0 - level)
        return Level(cost, level, self.spent + cost, self.known)

    def reserve(self) -> Level:
        """Debit the next reservation."""
        level = self.level()
        self.index += 1
        self.spent = level.spent
        self._wealth -= level.cost
        self._costs[self.index] = level.cost
        return level

    def rejected(self, index: int) -> None:
        """A rejection pays."""
        self.known += 1
        self._last = self.index
        self._wealth += self._costs.pop(index) + self.terms.alpha

    def closed(self, index: int, p: float | None) -> None:  # noqa: ARG002 - only rejections pay
        """The debit of a hypothesis that was not rejected is final."""
        self._costs.pop(index, None)

    def change(self, terms: Terms) -> float:
        """A smaller alpha scales the levels down at once; a larger one waits for the next epoch."""
        self._scale = min(1.0, terms.alpha / self.terms.alpha)
        return self.terms.alpha

    def saved(self) -> list[Any]:
        """Wealth, the newest known rejection, scale, and what open hypotheses cost."""
        return [self._wealth, self._last, self._scale, list(self._costs.items())]

    def restore(self, index: int, known: int, spent: float, rest: list[Any]) -> None:
        """Go on from where a rule was."""
        self.index, self.known, self.spent = index, known, spent
        self._wealth, self._last, self._scale, costs = rest
        self._costs = dict(costs)
