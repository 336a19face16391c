"""The e-process (restart mixture) and the e-CUSUM of a stream, as one pure step.

Hypotheses are folded in the order of their reservations. Restart mixture: S_t = e_t (S_{t-1} + 1/(t(t+1))),
M_t = S_t + 1/(t+1), M_0 = 1; e-CUSUM: C_t = e_t max(C_{t-1}, 1), C_0 = 1 (Shin, Ramdas, Rinaldo 2023).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from tcd.risk_av.exact import ONE, ZERO, Scaled, add, at_least, mul, scaled, to_float

#: The one calibrator exponent whose e-value needs no more than a square root.
KAPPA: Final = 0.5
#: p under this counts as this, so that an e-value is finite. The smallest normal binary64.
P_MIN: Final = 2.0**-1022
#: The evidence of a hypothesis that never settled: e = kappa.
NO_EVIDENCE: Final = 1.0


def e_value(p: float) -> float:
    """E-value of a p-value: kappa * p**(kappa - 1) with kappa = 1/2, computed as 0.5 / sqrt(p).

    Raises:
        ValueError: if p is outside [0, 1].
    """
    if not 0.0 <= p <= 1.0:
        msg = f"p-value {p!r} is outside [0, 1]"
        raise ValueError(msg)
    return KAPPA / math.sqrt(max(p, P_MIN))


def p_equivalent(e: Scaled) -> float:
    """The p-value whose e-value is `e`: (1/(2e))**2, at most 1. For evidence that is an e-value from the start."""
    if not at_least(e, scaled(KAPPA)):
        return 1.0
    half = KAPPA / to_float(e)
    return min(1.0, max(half * half, P_MIN))


class EState(NamedTuple):
    """State after `step` hypotheses: S_t of the mixture and C_t of the e-CUSUM."""

    step: int
    s: Scaled
    c: Scaled


START: Final = EState(0, ZERO, ONE)


def advance(state: EState, p: float) -> EState:
    """The state after one more hypothesis with evidence `p`, in exactly this order of operations.

    The weight is 1/(t(t+1)) with t(t+1) rounded to binary64 once (exact up to t = 9e7).
    """
    step = state.step + 1
    e = scaled(e_value(p))
    weight = scaled(1.0 / float(step * (step + 1)))
    s = mul(e, add(state.s, weight))
    c = mul(e, state.c if at_least(state.c, ONE) else ONE)
    return EState(step, s, c)


def mixture(state: EState) -> Scaled:
    """M_t, the e-process."""
    return add(state.s, scaled(1.0 / float(state.step + 1)))
