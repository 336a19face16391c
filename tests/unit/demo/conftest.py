"""A decoder of the demo's architecture with random weights, small enough to run in milliseconds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tcd.calibration.assets import AssetSet
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.demo.llm import LanguageModel
from tcd.demo.weights import Shape, Weights

#: Token 0 ends a text; tokens 1… are bytes.
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def tiny_weights(seed: int = 0) -> Weights:
    """Random weights: 2 layers, 4 heads over 2 key-value heads, width 32."""
    shape = Shape(layers=2, heads=4, kv_heads=2, width=32, head_width=8, rope_base=10_000.0, norm_eps=1e-5)
    rng = np.random.default_rng(seed)

    def matrix(*size: int) -> NDArray[np.float32]:
        return rng.normal(0.0, 0.3, size).astype(np.float32)

    tensors = {"token_embd.weight": matrix(len(ALPHABET) + 1, 32), "output_norm.weight": 1 + matrix(32)}
    for i in range(shape.layers):
        sizes = {
            "attn_norm": (32,),
            "attn_q": (32, 32),
            "attn_k": (16, 32),
            "attn_v": (16, 32),
            "attn_output": (32, 32),
            "ffn_norm": (32,),
            "ffn_gate": (48, 32),
            "ffn_up": (48, 32),
            "ffn_down": (32, 48),
        }
        tensors |= {f"blk.{i}.{name}.weight": matrix(*size) for name, size in sizes.items()}
    vocabulary = {"<end>": 0} | {char: i + 1 for i, char in enumerate(ALPHABET)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return Weights(shape=shape, tensors=tensors, tokenizer=tokenizer, stop=frozenset({0}))


@pytest.fixture(scope="session")
def tiny() -> LanguageModel:
    return LanguageModel(tiny_weights())


@pytest.fixture(scope="session")
def assets() -> AssetSet:
    return load_assets(default_asset_dir())
