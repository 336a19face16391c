"""Log-probability of the sampled token, entropy and nucleus of the next-token distribution, from logits at T = 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcd.scratch import scratch

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

#: A logit this far under the largest one has weight 0.
IMPOSSIBLE: Final = np.float32(-1e4)
#: Probability of the nucleus, and its largest size that is told apart.
NUCLEUS: Final = 0.95
NUCLEUS_CAP: Final = 1025
#: Tokens under this probability are looked at only where the others do not make up a nucleus.
_RARE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class TokenSignals:
    """Per row: log-probability (<= 0), entropy (nats, >= 0), log of the nucleus size, and whether they could be had.

    The nucleus is the fewest tokens that hold 95 % of the probability; its size is capped at 1,025.
    """

    log_probability: F64
    entropy: F64
    log_nucleus: F64
    good: NDArray[np.bool_]


def _nucleus(weight: F32, total: float) -> int:
    """Size of the nucleus of unnormalised probabilities (V,) that sum to `total`."""
    likely = weight[weight > np.float32(_RARE * total)]
    if float(likely.sum(dtype=np.float64)) < NUCLEUS * total:
        likely = weight.copy()
    if likely.shape[0] > NUCLEUS_CAP:
        likely = np.partition(likely, -NUCLEUS_CAP)[-NUCLEUS_CAP:]
    likely.sort()
    return nucleus_size(likely[::-1], total)


def nucleus_size(likely: F32, total: float) -> int:
    """Size of the nucleus from the largest unnormalised probabilities, descending, `NUCLEUS_CAP` of them or all."""
    held = np.cumsum(likely, dtype=np.float64)
    return min(int(np.searchsorted(held, NUCLEUS * total)) + 1, NUCLEUS_CAP)


def token_signals(logits: F32, token: NDArray[np.generic]) -> TokenSignals:
    """Signals of one step.

    Args:
        logits: (N, V) next-token logits; minus infinity masks a token out.
        token: (N,) sampled token.

    A row with a NaN, a plus infinity, no possible token, or a sampled token that is out of range or impossible
    is not good; its values are 0. Rows are worked through one by one: a vocabulary fills the cache.
    """
    n, vocabulary = logits.shape
    lp, entropy, nucleus, good = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n, np.bool_)
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
        if shifted.min() < IMPOSSIBLE:
            np.maximum(shifted, IMPOSSIBLE, out=shifted)
        moment = float(np.einsum("v,v->", weight, shifted, dtype=np.float64))
        entropy[i] = max(log_total - moment / total, 0.0)
        nucleus[i] = np.log(_nucleus(weight, total))
        good[i] = np.isfinite(entropy[i])
    return TokenSignals(lp, entropy, nucleus, good)
