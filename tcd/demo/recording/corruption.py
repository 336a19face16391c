"""Faults of the serving stack that a recording can contain: noisy or coarsely quantised weights, noisy caches.

A corruption is named `kind:strength`; how severe it counts is decided where recordings are read.
"""

from __future__ import annotations

from typing import Final

import torch

from tcd.demo.llm import Layer

KINDS: Final = ("noise", "quant", "quantg", "kv")
_MATRICES: Final = ("qkv", "output", "gate_up", "down")
_NORMS: Final = ("attention_norm", "mlp_norm")


def parse(name: str) -> tuple[str, float]:
    """Kind and strength of a corruption.

    Raises:
        ValueError: if it is not one of `KINDS` with a positive strength.
    """
    kind, _, strength = name.partition(":")
    try:
        value = float(strength)
    except ValueError:
        value = -1.0
    if kind not in KINDS or not 0.0 < value <= 16.0:  # noqa: PLR2004 - bits of a weight, at most
        msg = f"corruption {name!r}: expected one of {', '.join(k + ':STRENGTH' for k in KINDS)}, strength in (0, 16]"
        raise ValueError(msg)
    return kind, value


def corrupted(layers: list[Layer], name: str, *, seed: int) -> list[Layer]:
    """Copies of the layers with corrupted matrices; a cache corruption leaves them as they are.

    `noise:s` adds normal noise of s times a matrix's standard deviation; `quant:b` rounds every row to b bits,
    `quantg:b` every matrix with a single scale.

    Raises:
        ValueError: as `parse`.
    """
    kind, strength = parse(name)
    if kind == "kv":
        return layers
    generator = torch.Generator().manual_seed(seed)
    return [_copy(layer, kind, strength, generator) for layer in layers]


def corrupt_cache(cache: torch.Tensor, name: str, *, seed: int) -> None:
    """Add normal noise of `strength` standard deviations to all keys and values, in place; only for `kv:s`."""
    kind, strength = parse(name)
    if kind == "kv":
        generator = torch.Generator().manual_seed(seed)
        for part in cache.flatten(0, 1):
            used = part != 0
            scale = part[used].std() * strength
            part.add_(torch.randn(part.shape, generator=generator) * scale * used)


def _copy(layer: Layer, kind: str, strength: float, generator: torch.Generator) -> Layer:
    copy = Layer.__new__(Layer)
    for name in _NORMS:
        setattr(copy, name, getattr(layer, name))
    for name in _MATRICES:
        setattr(copy, name, _matrix(getattr(layer, name), kind, strength, generator))
    return copy


def _matrix(weight: torch.Tensor, kind: str, strength: float, generator: torch.Generator) -> torch.Tensor:
    if kind == "noise":
        return weight + torch.randn(weight.shape, generator=generator) * (weight.std() * strength)
    top = weight.abs().amax(dim=1, keepdim=True) if kind == "quant" else weight.abs().max()
    step = top / (2.0 ** (strength - 1.0) - 1.0)
    rounded: torch.Tensor = torch.round(weight / step) * step
    return rounded
