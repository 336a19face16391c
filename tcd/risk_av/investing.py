"""LORD++, SAFFRON and ADDIS in their asynchronous forms: one sum over what was known before each reservation.

A rejection that becomes known after reservation r starts a discount sequence there; hypotheses that started
later and turned out to be candidates (p <= lambda) or discards (p > tau) do not advance it. With every
hypothesis settled before the next is reserved these are the published synchronous rules. Sources: LORD++
(Ramdas, Yang, Wainwright, Jordan 2017), SAFFRON (Ramdas et al. 2018), ADDIS (Tian, Ramdas 2019), asynchronous
testing (Zrnic, Ramdas, Jordan 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tcd.risk_av.gamma import Gamma, gamma_lord, gamma_saffron
from tcd.risk_av.params import Terms
from tcd.risk_av.rules import Level


@dataclass(frozen=True, slots=True)
class InvestingRule:
    """Constants of a rule.

    Attributes:
        gamma: discount sequence.
        w0: share of alpha that is there before any rejection.
        lam: p-values up to it are candidates; 0 = the rule knows none (LORD++).
        tau: p-values above it are discarded; 1 = none are.
    """

    gamma: Gamma
    w0: float
    lam: float = 0.0
    tau: float = 1.0


LORD: Final = InvestingRule(gamma_lord, 0.1)
SAFFRON: Final = InvestingRule(gamma_saffron, 0.5, lam=0.5)
ADDIS: Final = InvestingRule(gamma_saffron, 0.5, lam=0.25, tau=0.5)


class Investing:
    """State of such a rule in one epoch.

    `spent` is the sum of all levels (never lowered); `wealth` is alpha max(1, known) less the levels of the
    hypotheses that are not known to be candidates or discards, scaled as the rule's estimate of the FDP does.
    """

    __slots__ = ("_charged", "_next", "_paid", "_scale", "_sources", "index", "known", "rule", "spent", "terms")

    def __init__(self, terms: Terms, rule: InvestingRule) -> None:
        """Start an epoch under `terms`."""
        self.terms = terms
        self.rule = rule
        self.index = 0
        self.known = 0
        self.spent = 0.0
        self._scale = 1.0
        # [reservations before the source began, later hypotheses that do not count against it]
        self._sources: list[list[int]] = [[0, 0]]
        self._charged = 0.0
        self._paid: dict[int, float] = {}
        self._next: Level | None = None

    @property
    def full(self) -> bool:
        """Whether the epoch has no reservation left."""
        return self.terms.full(self.index)

    @property
    def remaining(self) -> float:
        """Wealth left, 0 where rounding leaves less."""
        return max(0.0, self.wealth)

    @property
    def wealth(self) -> float:
        """Wealth left."""
        rule, alpha = self.rule, self.terms.alpha
        have = alpha * self.known if self.known else rule.w0 * alpha
        return have - self._charged / (rule.tau - rule.lam)

    def level(self) -> Level:
        """What the next reservation would get."""
        if self._next is None:
            self._next = self._level()
        return self._next

    def _level(self) -> Level:
        rule, alpha, t = self.rule, self.terms.alpha, self.index + 1
        w0 = rule.w0 * alpha
        total = 0.0
        for number, (start, free) in enumerate(self._sources):
            size = w0 if number == 0 else (alpha - w0 if number == 1 else alpha)
            total += size * rule.gamma(t - start - free)
        level = (rule.tau - rule.lam) * total * self._scale
        level = min(level, rule.lam or 1.0)
        if self.full:
            level = 0.0
        return Level(level, level, self.spent + level, self.known)

    def reserve(self) -> Level:
        """Debit the next reservation; never refunded."""
        level = self.level()
        self.index += 1
        self.spent = level.spent
        self._charged += level.alpha
        if self.rule.lam:
            self._paid[self.index] = level.alpha
        self._next = None
        return level

    def rejected(self, index: int) -> None:  # noqa: ARG002 - what counts is when the rejection became known
        """A rejection became known: a new discount sequence starts after the newest reservation."""
        self.known += 1
        self._sources.append([self.index, 0])
        self._next = None

    def closed(self, index: int, p: float | None) -> None:
        """The last p-value of a hypothesis is known; candidates and discards count by their start index."""
        if not self.rule.lam:
            return
        paid = self._paid.pop(index, 0.0)
        if p is None or self.rule.lam < p <= self.rule.tau:
            return
        self._charged -= paid
        for source in self._sources:
            if source[0] < index:
                source[1] += 1
        self._next = None

    def change(self, terms: Terms) -> float:
        """A smaller alpha scales the levels down at once; a larger one waits for the next epoch."""
        self._scale = min(1.0, terms.alpha / self.terms.alpha)
        self._next = None
        return self.terms.alpha

    def saved(self) -> list[Any]:
        """Scale, sources, what is charged, and what open hypotheses paid."""
        return [self._scale, self._sources, self._charged, list(self._paid.items())]

    def restore(self, index: int, known: int, spent: float, rest: list[Any]) -> None:
        """Go on from where a rule was."""
        self.index, self.known, self.spent = index, known, spent
        self._scale, self._sources, self._charged, paid = rest
        self._paid = dict(paid)
        self._next = None
