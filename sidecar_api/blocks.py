"""Evidence of the unit `block`: one p-value per block of eight tokens, accumulated over a session.

The p-value of a block is the ensemble's merged step p at the block's last step. Its windows overlap with the
block before, so neighbours are not independent: the claim is `model_based`. The restart mixture over the blocks is
the session's e-value; at close it is judged as the p-value with the same e-value, at the level of e-LOND.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tcd.risk_av import START, EState, advance, mixture, p_equivalent

TOKENS: Final = 8


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of one session so far: the mixture's state, and how many blocks it holds."""

    state: EState = START
    seen: int = 0

    def step(self, tokens: int, p: float) -> Blocks:
        """After a step that ends at `tokens` with merged step p-value `p`; a step over several blocks counts once."""
        ended = tokens // TOKENS
        return Blocks(advance(self.state, p), ended) if ended > self.seen else self

    @property
    def p(self) -> float:
        """The p-value whose e-value is the session's; 1 before the first block."""
        return p_equivalent(mixture(self.state)) if self.state.step else 1.0
