"""SmolLM2-135M-Instruct, one generation step at a time: logits and the newest final hidden states.

A plain FP32 Llama decoder with a KV cache (RMSNorm, rotary positions, grouped-query attention, SwiGLU; Touvron et
al. 2023). Only what a watched generation needs; it agrees with `transformers` and with the recorded traces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from tcd.demo.weights import Shape, Weights, load_weights

F32 = NDArray[np.float32]
#: Rows of the hidden-state window handed to `tcd_signals`.
WINDOW: Final = 32
#: Positions a generation may use, prompt included.
CONTEXT: Final = 1024


class Layer:
    """Weights of one decoder block; projections that share an input are one matrix."""

    __slots__ = ("attention_norm", "down", "gate_up", "mlp_norm", "output", "qkv")

    def __init__(self, weights: Weights, index: int) -> None:
        """Gather block `index` from the GGUF tensors."""

        def tensor(*names: str) -> torch.Tensor:
            parts = [torch.from_numpy(weights.tensors[f"blk.{index}.{name}.weight"]) for name in names]
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        self.attention_norm = tensor("attn_norm")
        self.qkv = tensor("attn_q", "attn_k", "attn_v")
        self.output = tensor("attn_output")
        self.mlp_norm = tensor("ffn_norm")
        self.gate_up = tensor("ffn_gate", "ffn_up")
        self.down = tensor("ffn_down")


class LanguageModel:
    """The decoder. Not thread-safe; generations may interleave, each has its own cache."""

    def __init__(self, weights: Weights, *, threads: int = 1) -> None:
        """Take the weights over.

        Args:
            weights: from `load_weights`.
            threads: threads of torch in this process.
        """
        torch.set_num_threads(threads)
        self.shape: Shape = weights.shape
        self.tokenizer = weights.tokenizer
        self.stop = weights.stop
        self.embedding = torch.from_numpy(weights.tensors["token_embd.weight"])
        self.norm = torch.from_numpy(weights.tensors["output_norm.weight"])
        self.layers = [Layer(weights, i) for i in range(self.shape.layers)]

    @classmethod
    def load(cls, path: Path | None = None, *, threads: int = 1) -> LanguageModel:
        """Load the installed weights.

        Raises:
            tcd.demo.weights.WeightsMissing: when they are not there.
        """
        return cls(load_weights(path), threads=threads)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self.embedding.shape[0])

    def drop(self, layers: frozenset[int]) -> None:
        """Leave decoder blocks out: another, shallower model.

        Raises:
            ValueError: if the model has no such block, or none would be left.
        """
        if not layers < frozenset(range(len(self.layers))):
            msg = f"layers to leave out are some, not all, of 0 to {len(self.layers) - 1}"
            raise ValueError(msg)
        self.layers = [layer for i, layer in enumerate(self.layers) if i not in layers]
        self.shape = replace(self.shape, layers=len(self.layers))

    def start(self, prompt: str) -> Generation:
        """Read the prompt and predict its continuation.

        Raises:
            ValueError: if the prompt is empty or longer than the context.
        """
        return Generation(self, self.tokenizer.encode(prompt).ids)

    def forward(self, ids: Sequence[int], cache: torch.Tensor, past: int) -> torch.Tensor:
        """Final hidden states (after the last norm) of `ids`, from position `past` on.

        Args:
            ids: tokens to read.
            cache: (layers, 2, kv_heads, CONTEXT, head_width) keys and values; the new positions are written.
            past: positions that are already in the cache.

        Returns:
            FP32 (len(ids), width).
        """
        shape, count = self.shape, len(ids)
        groups = shape.heads // shape.kv_heads
        cut = shape.heads * shape.head_width, (shape.heads + shape.kv_heads) * shape.head_width
        rotation = _rotation(shape, past, count)
        # a query sees its own position and those before it
        hidden = torch.ones(count, past + count, dtype=torch.bool).triu(past + 1).repeat(groups, 1)
        x = self.embedding[list(ids)]
        for layer, (keys, values) in zip(self.layers, cache, strict=True):
            mixed = functional.linear(self._normalise(x, layer.attention_norm), layer.qkv)
            query, key, value = (
                part.reshape(count, -1, shape.head_width).transpose(0, 1) for part in mixed.tensor_split(cut, dim=1)
            )
            keys[:, past : past + count] = _rotate(key, rotation)
            values[:, past : past + count] = value
            query = _rotate(query, rotation).reshape(shape.kv_heads, groups * count, shape.head_width)
            weight = query @ keys[:, : past + count].transpose(1, 2) / math.sqrt(shape.head_width)
            weight = weight.masked_fill(hidden, -math.inf).softmax(-1)
            seen = (weight @ values[:, : past + count]).reshape(shape.heads, count, shape.head_width)
            x = x + functional.linear(seen.transpose(0, 1).reshape(count, -1), layer.output)
            gate, up = functional.linear(self._normalise(x, layer.mlp_norm), layer.gate_up).chunk(2, dim=1)
            x = x + functional.linear(functional.silu(gate) * up, layer.down)
        return self._normalise(x, self.norm)

    def logits(self, state: torch.Tensor) -> torch.Tensor:
        """Next-token logits of final hidden states; the output matrix is the embedding's."""
        return functional.linear(state, self.embedding)

    def _normalise(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.shape.norm_eps) * weight


class Generation:
    """One text being generated.

    Attributes:
        prompt: token ids of the prompt.
        tokens: token ids emitted so far.
        logits: FP32 (vocabulary,), the prediction of the next token.
        hidden: FP32 (≤ 32, width), the newest final hidden states, the prompt's included, oldest first.
    """

    def __init__(self, model: LanguageModel, prompt: Sequence[int]) -> None:
        """Read the prompt.

        Raises:
            ValueError: if the prompt is empty or longer than the context.
        """
        if not 0 < len(prompt) < CONTEXT:
            msg = f"a prompt has 1 to {CONTEXT - 1} tokens, this one {len(prompt)}"
            raise ValueError(msg)
        shape = model.shape
        self._model = model
        self._cache = torch.zeros(shape.layers, 2, shape.kv_heads, CONTEXT, shape.head_width)
        self._pending: list[int] = []
        self.prompt = tuple(prompt)
        self.tokens: list[int] = []
        self.hidden: F32 = np.zeros((0, shape.width), np.float32)
        self._read(self.prompt, 0)

    @property
    def ended(self) -> bool:
        """Whether the model ended the text, or the context is full."""
        full = len(self.prompt) + len(self.tokens) >= CONTEXT
        return full or bool(self.tokens and self.tokens[-1] in self._model.stop)

    def push(self, token: int) -> str:
        """Emit `token` and predict the next one.

        Returns:
            The text that `token` completes: empty inside a character of several tokens.

        Raises:
            ValueError: if the generation has ended.
        """
        if self.ended:
            msg = "the generation has ended"
            raise ValueError(msg)
        self.tokens.append(token)
        self._pending.append(token)
        text: str = self._model.tokenizer.decode(self._pending)
        # a character is at most four bytes, hence four tokens
        if text.endswith("\ufffd") and len(self._pending) < 4:  # noqa: PLR2004
            text = ""
        else:
            self._pending.clear()
        if not self.ended:
            self._read((token,), len(self.prompt) + len(self.tokens) - 1)
        return text

    @torch.inference_mode()
    def _read(self, ids: Sequence[int], past: int) -> None:
        states = self._model.forward(ids, self._cache, past)
        self.logits: F32 = self._model.logits(states[-1:])[0].numpy()
        self.hidden = np.concatenate([self.hidden, states[-WINDOW:].numpy()])[-WINDOW:]


def _rotation(shape: Shape, past: int, count: int) -> torch.Tensor:
    """Rotary factors of positions past… as complex numbers, (count, head_width / 2)."""
    half = torch.arange(0, shape.head_width, 2, dtype=torch.float32) / shape.head_width
    angle = torch.outer(torch.arange(past, past + count, dtype=torch.float32), shape.rope_base**-half)
    return torch.polar(torch.ones_like(angle), angle)


def _rotate(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Rotate neighbouring pairs (GGUF's layout) of (heads, count, head_width)."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(pairs * rotation).flatten(-2)
