"""The columns of a recording: what is measured of every prediction, before and after its token is chosen."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tcd.contract import SPECTRUM_RANK
from tcd.demo.recording.batch import Predicted

#: Values of every step by column: (n,) or (n, 16).
Columns = dict[str, NDArray[Any]]
#: Column -> its type in the file.
TYPES: Final[dict[str, str]] = {
    **dict.fromkeys(("ent", "ent_T", "lp", "top1", "top2", "margin", "peos", "hcos"), "float16"),
    **dict.fromkeys(("erank", "erank_c", "pratio_c", "sv", "feat"), "float16"),
    **dict.fromkeys(("maxlogit", "lse", "hnorm_mid", "hnorm_pre", "hnorm_last"), "float32"),
    "nuc95": "uint16",
    "rank": "uint16",
    "tok": "int32",
    "sampled_eos": "bool",
}
#: Temperature that greedy decoding counts as, and the largest nucleus that is counted.
GREEDY: Final = 0.05
_NUCLEUS: Final = 0.95
_CAP: Final = 1025
_TRIES: Final = 12


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, top_p: float, rngs: list[np.random.Generator]
) -> torch.Tensor:
    """One token per row from the nucleus of `top_p` at each row's temperature; below 0.05 the maximum.

    Exact: draws from the whole distribution until one lies in the nucleus (the likelier tokens hold less than
    `top_p`), and takes the maximum when none of 12 does, which happens about once in 1e15.
    """
    probability = (logits.double() / temperature.clamp(min=GREEDY)[:, None]).softmax(-1)
    chosen = logits.argmax(-1)
    cumulative = probability.cumsum(-1)
    uniforms = torch.from_numpy(np.stack([rng.random(_TRIES) for rng in rngs]))
    tokens = torch.searchsorted(cumulative, uniforms * cumulative[:, -1:]).clamp(max=logits.shape[1] - 1)
    for i in range(logits.shape[0]):
        if float(temperature[i]) < GREEDY:
            continue
        row = probability[i]
        for token in tokens[i].tolist():
            if float(row[row > row[token]].sum()) < top_p:
                chosen[i] = token
                break
    return chosen


def measure(
    seen: Predicted, tokens: torch.Tensor, temperature: torch.Tensor, matrix: NDArray[np.float64], stop: frozenset[int]
) -> dict[str, NDArray[Any]]:
    """Columns (B,) or (B, 16) of one step.

    Args:
        seen: the predictions.
        tokens: (B,) the tokens that were emitted.
        temperature: (B,) at which they were drawn.
        matrix: (width, 16) projection of the features.
        stop: tokens that end a text.
    """
    rows, logits = torch.arange(tokens.shape[0]), seen.logits.double()
    lse = logits.logsumexp(-1)
    logp = logits - lse[:, None]
    top = logp.topk(min(_CAP, logp.shape[1]), dim=-1).values
    nucleus = (top.exp().cumsum(-1) < _NUCLEUS).sum(-1) + 1
    chosen = logp[rows, tokens]
    scaled = (logits / temperature.clamp(min=GREEDY)[:, None]).log_softmax(-1)
    final = seen.window.double()
    out = {
        "ent": -(logp.exp() * logp).sum(-1),
        "ent_T": -(scaled.exp() * scaled).sum(-1),
        "lp": chosen,
        "top1": top[:, 0].exp(),
        "top2": top[:, 1].exp(),
        "margin": top[:, 0] - top[:, 1],
        "maxlogit": logits.amax(-1),
        "lse": lse,
        "peos": logp[:, sorted(stop)].exp().amax(-1),
        "nuc95": nucleus.clamp(max=_CAP),
        "rank": (logp > chosen[:, None]).sum(-1),
        "hnorm_mid": seen.middle,
        "hnorm_pre": seen.before,
        "hnorm_last": seen.last,
        "hcos": torch.cosine_similarity(final[:, -1], final[:, -2], dim=-1),
        "feat": final[:, -1] @ torch.tensor(matrix),
        "tok": tokens,
        "sampled_eos": torch.tensor([int(t) in stop for t in tokens]),
    }
    return {name: np.asarray(value) for name, value in (out | _spectra(final, seen.counts)).items()}


def _spectra(final: torch.Tensor, counts: torch.Tensor) -> dict[str, torch.Tensor]:
    inside = (torch.arange(final.shape[1]) >= final.shape[1] - counts[:, None])[:, :, None]
    mean = (final * inside).sum(1, keepdim=True) / counts[:, None, None]
    plain = _squares(final * inside)
    centred = _squares((final - mean) * inside)
    return {
        "sv": plain[:, :SPECTRUM_RANK].sqrt(),
        "erank": _effective_rank(plain),
        "erank_c": _effective_rank(centred),
        "pratio_c": centred.sum(-1).square() / centred.square().sum(-1).clamp(min=1e-30),
    }


def _squares(rows: torch.Tensor) -> torch.Tensor:
    """Squared singular values, descending."""
    values: torch.Tensor = torch.linalg.eigvalsh(rows @ rows.transpose(1, 2))
    return values.flip(-1).clamp(min=0.0)


def _effective_rank(squares: torch.Tensor) -> torch.Tensor:
    share = squares / squares.sum(-1, keepdim=True).clamp(min=1e-30)
    entropy: torch.Tensor = -torch.special.xlogy(share, share).sum(-1)
    return entropy.exp()
