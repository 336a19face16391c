"""The discount sequences of the classical rules, equal to the last bit on every machine.

Decimal arithmetic is correctly rounded where a platform's logarithm and exponential are not, so a log of
reservations replays anywhere. Values are remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from functools import lru_cache
from typing import Final

_CONTEXT: Final = Context(prec=28)
_REMEMBERED: Final = 65536
_LORD: Final = Decimal("0.07720838")
_SAFFRON: Final = Decimal("0.4374901658")
_POWER: Final = Decimal("1.6")
Gamma = Callable[[int], float]


@lru_cache(maxsize=_REMEMBERED)
def gamma_lord(j: int) -> float:
    """0.07720838 ln(max(j, 2)) / (j exp(sqrt(ln j))), j from 1 (Javanmard, Montanari 2018); sums to at most 1."""
    log = Decimal(max(j, 2)).ln(_CONTEXT)
    root = Decimal(j).ln(_CONTEXT).sqrt(_CONTEXT)
    return float(_CONTEXT.divide(_CONTEXT.multiply(_LORD, log), _CONTEXT.multiply(Decimal(j), root.exp(_CONTEXT))))


@lru_cache(maxsize=_REMEMBERED)
def gamma_saffron(j: int) -> float:
    """0.4374901658 / j**1.6, j from 1 (Ramdas, Zrnic, Wainwright, Jordan 2018); sums to at most 1."""
    power = _CONTEXT.multiply(_POWER, Decimal(j).ln(_CONTEXT)).exp(_CONTEXT)
    return float(_CONTEXT.divide(_SAFFRON, power))
