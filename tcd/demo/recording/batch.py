"""Several generations of the demo's model at once: one pass over the weights serves every sequence of a batch.

The same decoder as `tcd.demo.llm`, which is held to this one in the tests. A sequence draws from its own generator,
so that what it says does not depend on its neighbours beyond the rounding of a batched product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch.nn import functional

from tcd.demo.llm import LanguageModel, Layer

#: Positions of a recorded generation, prompt included.
POSITIONS: Final = 512
#: Newest final hidden states that the spectrum is of.
WINDOW: Final = 32


@dataclass(frozen=True, slots=True)
class Predicted:
    """The prediction of the next token of every sequence.

    Attributes:
        logits: (B, vocabulary).
        middle, before, last: (B,) norms of the hidden state after half of the layers, before the last layer, and
            after the final norm.
        window: (B, ≤32, width) newest final hidden states, oldest first, zeros where a prompt was shorter.
        counts: (B,) valid rows of `window`, right-aligned.
    """

    logits: torch.Tensor
    middle: torch.Tensor
    before: torch.Tensor
    last: torch.Tensor
    window: torch.Tensor
    counts: torch.Tensor


class Batch:
    """Generations that advance together. Their weights may change between two steps."""

    def __init__(self, model: LanguageModel, prefixes: list[list[int]]) -> None:
        """Read the prefixes, one by one.

        Raises:
            ValueError: if a prefix is empty or leaves no room.
        """
        if not all(0 < len(prefix) < POSITIONS for prefix in prefixes):
            msg = f"a prefix has 1 to {POSITIONS - 1} tokens"
            raise ValueError(msg)
        shape, size = model.shape, len(prefixes)
        self.model = model
        self.layers: list[Layer] = list(model.layers)
        self.cache = torch.zeros(len(self.layers), 2, size, shape.kv_heads, POSITIONS, shape.head_width)
        self.position = torch.tensor([len(prefix) - 1 for prefix in prefixes])
        self._window = torch.zeros(size, WINDOW, shape.width)
        self._counts = torch.zeros(size, dtype=torch.int64)
        with torch.inference_mode():
            for i, prefix in enumerate(prefixes):
                if len(prefix) > 1:
                    states = model.forward(prefix[:-1], self.cache[:, :, i], 0)[-WINDOW:]
                    self._window[i, WINDOW - states.shape[0] :] = states
                    self._counts[i] = states.shape[0]
        self._pending = torch.tensor([prefix[-1] for prefix in prefixes])
        self.predicted = self._read()

    def push(self, tokens: list[int]) -> None:
        """Emit one token per sequence and predict the next.

        Raises:
            ValueError: if a sequence has no room left.
        """
        self.position = self.position + 1
        if int(self.position.max()) >= POSITIONS:
            msg = "a sequence is full"
            raise ValueError(msg)
        self._pending = torch.tensor(tokens)
        self.predicted = self._read()

    @torch.inference_mode()
    def _read(self) -> Predicted:
        """Run the pending tokens through the layers."""
        shape, size = self.model.shape, self.position.shape[0]
        groups = shape.heads // shape.kv_heads
        cut = shape.heads * shape.head_width, (shape.heads + shape.kv_heads) * shape.head_width
        rows, longest = torch.arange(size), int(self.position.max()) + 1
        future = torch.arange(longest) > self.position[:, None, None, None]
        rotation = _rotation(shape.head_width, shape.rope_base, self.position)
        x = self.model.embedding[self._pending]
        middle = before = x
        for number, (layer, kept) in enumerate(zip(self.layers, self.cache, strict=True)):
            middle = x if number == len(self.layers) // 2 else middle
            before = x
            mixed = functional.linear(self._normalise(x, layer.attention_norm), layer.qkv)
            query, key, value = (p.reshape(size, -1, shape.head_width) for p in mixed.tensor_split(cut, dim=1))
            kept[0, rows, :, self.position] = _rotate(key, rotation)
            kept[1, rows, :, self.position] = value
            query = _rotate(query, rotation).reshape(size, shape.kv_heads, groups, shape.head_width)
            weight = query @ kept[0, :, :, :longest].transpose(2, 3) / math.sqrt(shape.head_width)
            weight = weight.masked_fill(future, -math.inf).softmax(-1)
            seen = (weight @ kept[1, :, :, :longest]).reshape(size, -1)
            x = x + functional.linear(seen, layer.output)
            gate, up = functional.linear(self._normalise(x, layer.mlp_norm), layer.gate_up).chunk(2, dim=1)
            x = x + functional.linear(functional.silu(gate) * up, layer.down)
        final = self._normalise(x, self.model.norm)
        self._window = torch.cat([self._window[:, 1:], final[:, None]], dim=1)
        self._counts = (self._counts + 1).clamp(max=WINDOW)
        return Predicted(
            logits=self.model.logits(final),
            middle=middle.norm(dim=1),
            before=before.norm(dim=1),
            last=final.norm(dim=1),
            window=self._window,
            counts=self._counts,
        )

    def _normalise(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.model.shape.norm_eps) * weight


def _rotation(width: int, base: float, position: torch.Tensor) -> torch.Tensor:
    """Rotary factors of one position per sequence, (B, 1, width / 2)."""
    half = torch.arange(0, width, 2, dtype=torch.float32) / width
    angle = torch.outer(position.float(), base**-half)[:, None]
    return torch.polar(torch.ones_like(angle), angle)


def _rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Rotate neighbouring pairs of (B, heads, width)."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(pairs * rotation).flatten(-2)
