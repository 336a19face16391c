"""The rules by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tcd.risk_av.foster_stine import FosterStine
from tcd.risk_av.investing import ADDIS, LORD, SAFFRON, Investing
from tcd.risk_av.params import Terms
from tcd.risk_av.rules import EpochRule, Rai
from tcd.risk_av.spending import Spending

_MAKERS: Final[Mapping[str, Callable[[Terms], EpochRule]]] = MappingProxyType(
    {
        "rai": Rai,
        "lord": lambda terms: Investing(terms, LORD),
        "e_lond": lambda terms: Spending(terms, by_e=True),
        "alpha_spending": lambda terms: Spending(terms, by_e=False),
        "foster_stine": FosterStine,
        "saffron": lambda terms: Investing(terms, SAFFRON),
        "addis": lambda terms: Investing(terms, ADDIS),
    }
)


def open_rule(terms: Terms) -> EpochRule:
    """The rule that `terms` names, at the start of an epoch."""
    return _MAKERS[terms.rule](terms)
