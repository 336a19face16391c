"""Evidence of the unit `block`: one p-value per block of eight tokens, accumulated over a session.

The p-value is that of a block against the generation's own past (`tcd.detector.blocks`): the claim is `model_based`.
The restart mixture over the blocks is the session's e-value; at close it is judged as the p-value with the same
e-value, at the level of e-LOND.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from tcd.detector import blocks as detector
from tcd.detector.blocks import TOKENS
from tcd.risk_av import START, EState, advance, mixture, p_equivalent

#: Blocks of one step that are judged; the windows hold no more.
_MOST: Final = 512


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of one session so far: the mixture's state, and up to which block it goes."""

    state: EState = START
    seen: int = 0

    def step(self, tokens: int, trace: NDArray[Any], entropy: NDArray[Any]) -> Blocks:
        """After a step that ends at `tokens`, with the windows up to there; blocks without a past count for nothing.

        A caller that sends several tokens at once sends one entropy for them: the trace alone counts then.
        """
        entropy = entropy if entropy.shape == trace.shape else entropy[:0]
        state, ended = self.state, tokens // TOKENS
        for block in range(max(self.seen, ended - _MOST) + 1, ended + 1):
            found = detector.statistic(trace, entropy, tokens - block * TOKENS)
            if found is not None:
                state = advance(state, detector.p_value(found, both=bool(entropy.shape[0])))
        return Blocks(state, max(ended, self.seen))

    @property
    def p(self) -> float:
        """The p-value whose e-value is the session's; 1 before the first block."""
        return p_equivalent(mixture(self.state)) if self.state.step else 1.0
