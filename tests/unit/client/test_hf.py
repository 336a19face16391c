"""The hook in a real `generate` of transformers: what it sends, and that the route is followed."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LogitsProcessorList

from tcd.client import ClientError, Decision
from tcd.client.hf import TcdLogitsProcessor
from tcd.signals.provider import DefaultProvider, ReplayProvider, StepSignals

EOS = 3
VOCABULARY = 64


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    made: Any = LlamaForCausalLM(config)
    return made.eval()


ROUTE = {
    "temperature": 1.0,
    "top_p": 1.0,
    "decoder": "default",
    "max_tokens": 0,
    "tags": [],
    "tier": "normal",
    "route_id": "x",
}


def decision(enforced: str = "allow", **route: Any) -> Decision:
    zero = {f.name: 0.0 for f in msgspec.structs.fields(Decision) if f.type is float}
    rest = {
        **{f.name: "" for f in msgspec.structs.fields(Decision) if f.type is str},
        **{f.name: False for f in msgspec.structs.fields(Decision) if f.type is bool},
        "components": {},
        "step": 0,
        "epoch": 0,
        "checks": [],
        "calibration": {},
    }
    return msgspec.convert({**zero, **rest, "enforced": enforced, "route": {**ROUTE, **route}}, Decision)


class Tcd:
    """A client that answers what the test wants."""

    def __init__(self, *answers: Decision) -> None:
        self.answers = list(answers)
        self.seen: list[dict[str, Any]] = []

    def diagnose(self, **members: Any) -> Decision:
        self.seen.append(members)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def generate(model: Any, guard: TcdLogitsProcessor, *, rows: int = 1, tokens: int = 8, **changes: Any) -> Any:
    torch.manual_seed(1)
    ids = torch.full((rows, 4), 5)
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        logits_processor=LogitsProcessorList([guard]),
        **{"do_sample": True, **changes},
    )[:, 4:]


def test_the_signals_are_those_of_the_generated_tokens(model: Any) -> None:
    tcd = Tcd(decision())
    out = generate(model, TcdLogitsProcessor(tcd, session="g", eos_token_id=VOCABULARY - 1, tenant="t"))[0]
    with torch.no_grad():
        logits = model(torch.cat([torch.full((1, 4), 5), out[None]], 1)).logits[0, 3:-1]
    logp = torch.log_softmax(logits.double(), -1)
    wanted = [float(logp[i, t]) for i, t in enumerate(out)]
    entropy = [float(-(p.exp() * p).sum()) for p in logp]
    sent = [m["trace_vector"][0] for m in tcd.seen]
    # the last token is never judged: generate asks for no scores after it
    assert len(sent) == len(out) - 1
    assert np.allclose(sent, wanted[:-1], atol=1e-4)
    assert np.allclose([m["entropy"] for m in tcd.seen], entropy[:-1], atol=1e-4)
    assert [m["step_id"] for m in tcd.seen] == list(range(len(sent)))
    assert {(m["tenant"], m["session"]) for m in tcd.seen} == {("t", "g")}


def test_a_block_ends_the_text(model: Any) -> None:
    tcd = Tcd(decision(), decision("block"))
    out = generate(model, TcdLogitsProcessor(tcd, session="g", eos_token_id=EOS))[0].tolist()
    assert out.index(EOS) == 2
    assert len(tcd.seen) == 2


def test_the_route_is_followed(model: Any) -> None:
    greedy = generate(model, TcdLogitsProcessor(Tcd(decision()), session="g", eos_token_id=EOS), do_sample=False)
    tcd = Tcd(decision("degrade", decoder="greedy"))
    routed = generate(model, TcdLogitsProcessor(tcd, session="g", eos_token_id=EOS))
    again = generate(model, TcdLogitsProcessor(tcd, session="g", eos_token_id=EOS))
    # from the second token on nothing is drawn: the continuation is the greedy one of the same prefix
    assert torch.equal(routed, again)
    with torch.no_grad():
        logits = model(torch.cat([torch.full((1, 4), 5), routed], 1)).logits[0, 4:-1]
    assert torch.equal(logits.argmax(-1), routed[0, 1:])
    assert greedy.shape == routed.shape
    short = generate(model, TcdLogitsProcessor(Tcd(decision("degrade", max_tokens=3)), session="g", eos_token_id=EOS))
    assert short[0].tolist().index(EOS) <= 3


def test_no_repeat_and_nucleus(model: Any) -> None:
    guard = TcdLogitsProcessor(Tcd(decision("degrade", decoder="no_repeat", top_p=0.5)), session="g", eos_token_id=EOS)
    out = generate(model, guard, tokens=24)[0].tolist()
    tail = out[1:]
    grams = [tuple(tail[i : i + 3]) for i in range(len(tail) - 2)]
    assert len(grams) == len(set(grams))


def test_rows_are_sessions_of_their_own(model: Any) -> None:
    class ByRow(Tcd):
        def diagnose(self, **members: Any) -> Decision:
            self.seen.append(members)
            return decision("block" if members["session"] == "g/1" else "allow")

    tcd = ByRow(decision())
    out = generate(model, TcdLogitsProcessor(tcd, session="g", eos_token_id=EOS), rows=3, tokens=4)
    assert {m["session"] for m in tcd.seen} == {"g/0", "g/1", "g/2"}
    assert out[1, 1] == EOS
    assert out[0, 1] != EOS
    with pytest.raises(ValueError, match="2 sessions for 3 rows"):
        generate(model, TcdLogitsProcessor(tcd, session=["a", "b"], eos_token_id=EOS), rows=3)


def test_steps_in_between_travel_with_the_next_call(model: Any) -> None:
    tcd = Tcd(decision())
    generate(model, TcdLogitsProcessor(tcd, session="g", eos_token_id=VOCABULARY - 1, every=3), tokens=8)
    assert [len(m["trace_vector"]) for m in tcd.seen] == [1, 2, 3]
    assert [m["step_id"] for m in tcd.seen] == [0, 2, 5]


@pytest.mark.parametrize(("on_error", "length"), [("stop", 2), ("continue", 8)])
def test_without_tcd(model: Any, on_error: str, length: int) -> None:
    class Away(Tcd):
        def diagnose(self, **members: Any) -> Decision:
            msg = "away"
            raise ClientError(msg)

    guard = TcdLogitsProcessor(Away(decision()), session="g", eos_token_id=EOS, on_error=on_error)
    out = generate(model, guard)[0].tolist()
    assert len(out) == length or EOS in out
    assert (EOS in out[:2]) is (on_error == "stop")
    assert guard.failures >= 1
    with pytest.raises(ValueError, match="on_error"):
        TcdLogitsProcessor(Away(decision()), session="g", eos_token_id=EOS, on_error="x")


def test_a_provider_of_ones_own(model: Any) -> None:
    tcd = Tcd(decision())
    recorded = [StepSignals(-1.5, 0.5), StepSignals(-2.5, 1.5, (1.0,), (2.0,))]
    guard = TcdLogitsProcessor(tcd, session="g", eos_token_id=EOS, provider=lambda: ReplayProvider(recorded))
    generate(model, guard, tokens=4)
    assert [m.get("trace_vector") for m in tcd.seen[:3]] == [[-1.5], [-2.5], None]
    assert tcd.seen[1]["features"] == [2.0]
    assert isinstance(DefaultProvider().step(np.zeros(4, np.float32), 1), StepSignals)
