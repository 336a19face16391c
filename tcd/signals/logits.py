"""Log-probability of the sampled token and entropy of the next-token distribution, from logits at T = 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.scratch import scratch

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: A logit this far under the largest one has weight 0.
_IMPOSSIBLE: Final = np.float32(-1e4)


@dataclass(frozen=True, slots=True)
class TokenSignals:
    """Per row: log-probability (<= 0) and entropy (nats, >= 0) of the step, and whether both could be had."""

    log_probability: F64
    entropy: F64
    good: NDArray[np.bool_]


def token_signals(logits: F32, token: NDArray[np.generic]) -> TokenSignals:
    """Signals of one step.

    Args:
        logits: (N, V) next-token logits; minus infinity masks a token out.
        token: (N,) sampled token.

    A row with a NaN, a plus infinity, no possible token, or a sampled token that is out of range or impossible
    is not good; its values are 0. Rows are worked through one by one: a vocabulary fills the cache.
    """
    n, vocabulary = logits.shape
    lp, entropy, good = np.zeros(n), np.zeros(n), np.zeros(n, np.bool_)
    for i in range(n):
        chosen = int(token[i])
        if not 0 <= chosen < vocabulary:
            continue
        row = logits[i].astype(np.float32, copy=False)
        top = row.max()
        if not np.isfinite(top) or not np.isfinite(row[chosen]):
            continue
        shifted = np.subtract(row, top, out=scratch("shifted", vocabulary))
        weight = np.exp(shifted, out=scratch("weight", vocabulary))
        total = float(weight.sum(dtype=np.float64))
        log_total = float(np.log(total))
        lp[i] = min(float(shifted[chosen]) - log_total, 0.0)
        # a masked token has weight 0 and would make 0 * -inf
        if shifted.min() < _IMPOSSIBLE:
            np.maximum(shifted, _IMPOSSIBLE, out=shifted)
        moment = float(np.einsum("v,v->", weight, shifted, dtype=np.float64))
        entropy[i] = max(log_total - moment / total, 0.0)
        good[i] = np.isfinite(entropy[i])
    return TokenSignals(lp, entropy, good)
