"""The vLLM hook against a stand-in of vLLM's published V1 interface: batches that change, a text that is ended."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tcd.client.errors import TransportFailed
from tcd.client.vllm import VllmGuard

EOS = 9


# -- the interface, as vllm/v1/sample/logits_processor/interface.py publishes it ---------------------------------------


class MoveDirectionality(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = 16
    extra_args: dict[str, Any] | None = None


@dataclass(frozen=True)
class BatchUpdate:
    batch_size: int
    removed: Sequence[int] = ()
    added: Sequence[tuple[int, SamplingParams, list[int] | None, list[int]]] = ()
    moved: Sequence[tuple[int, int, MoveDirectionality]] = ()


class LogitsProcessor(ABC):
    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:  # noqa: ARG003 - as published
        return None

    @abstractmethod
    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None: ...  # noqa: FBT001

    @abstractmethod
    def apply(self, logits: torch.Tensor) -> torch.Tensor: ...

    @abstractmethod
    def is_argmax_invariant(self) -> bool: ...

    @abstractmethod
    def update_state(self, batch_update: BatchUpdate | None) -> None: ...


def decision(**changes: Any) -> Any:
    route = SimpleNamespace(temperature=1.0, top_p=1.0, decoder="sample", max_tokens=0)
    return SimpleNamespace(**{"stop": False, "enforced": "allow", "route": route, **changes})


@dataclass
class Answers:
    """A client that answers as told, and remembers what it was asked."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    stops: set[str] = field(default_factory=set)
    away: bool = False

    def diagnose(self, **members: Any) -> Any:
        if self.away:
            msg = "away"
            raise TransportFailed(msg)
        self.asked.append(members)
        return decision(stop=members["session"] in self.stops)


def processor(answers: Answers, **attributes: Any) -> Any:
    class Tcd(VllmGuard, LogitsProcessor):
        def connect(self) -> Any:
            return answers

    for name, value in attributes.items():
        setattr(Tcd, name, value)
    config = SimpleNamespace(model_config=SimpleNamespace(hf_config=SimpleNamespace(eos_token_id=[EOS, 3])))
    return Tcd(config, torch.device("cpu"), False)


def logits(rows: int) -> torch.Tensor:
    return torch.randn(rows, 12, generator=torch.Generator().manual_seed(1))


def session(name: str, **more: str) -> SamplingParams:
    return SamplingParams(extra_args={"tcd_session": name, **more})


def step(made: Any, outputs: list[list[int]], rows: int, update: BatchUpdate | None = None) -> torch.Tensor:
    """One engine step: the state, the logits, a token for everybody."""
    made.update_state(update)
    out: torch.Tensor = made.apply(logits(rows))
    for output in outputs:
        output.append(4)
    return out


def test_the_signatures_are_those_of_the_interface() -> None:
    for name in ("__init__", "apply", "is_argmax_invariant", "update_state", "validate_params"):
        ours = list(inspect.signature(getattr(VllmGuard, name)).parameters)
        assert ours == list(inspect.signature(getattr(LogitsProcessor, name)).parameters), name
    assert processor(Answers()).is_argmax_invariant() is False


def test_only_requests_that_name_a_session_are_judged() -> None:
    answers = Answers()
    made = processor(answers)
    outputs: list[list[int]] = [[], []]
    named = session("g1", tcd_tenant="acme", tcd_user="u")
    added = [(0, named, [1, 2], outputs[0]), (1, SamplingParams(), [1], outputs[1])]
    first = step(made, outputs, 2, BatchUpdate(2, added=added))
    assert torch.equal(first, logits(2))
    for _ in range(3):
        step(made, outputs, 2)
    assert {asked["session"] for asked in answers.asked} == {"g1"}
    assert [asked["step_id"] for asked in answers.asked] == [0, 1, 2]
    assert answers.asked[0]["tenant"] == "acme"
    assert answers.asked[0]["context"] == {"temperature": 1.0, "top_p": 1.0, "max_tokens": 16}


def test_a_block_ends_the_text_of_its_row_alone() -> None:
    answers = Answers(stops={"bad"})
    made = processor(answers)
    outputs: list[list[int]] = [[], []]
    added = [(0, session("good"), [1], outputs[0]), (1, session("bad"), [1], outputs[1])]
    step(made, outputs, 2, BatchUpdate(2, added=added))
    out = step(made, outputs, 2)
    assert torch.equal(out[0], logits(2)[0])
    assert int(out[1].argmax()) == EOS
    assert int(torch.isfinite(out[1]).sum()) == 1


def test_the_state_follows_moves_swaps_removals_and_replacements() -> None:
    answers = Answers(stops={"b"})
    made = processor(answers)
    outputs: list[list[int]] = [[], [], []]
    added = [(i, session(name), [1], outputs[i]) for i, name in enumerate("abc")]
    step(made, outputs, 3, BatchUpdate(3, added=added))
    out = step(made, outputs, 3, BatchUpdate(3, moved=[(0, 1, MoveDirectionality.SWAP)]))
    assert [int(torch.isfinite(row).sum()) for row in out] == [1, 12, 12]
    # b leaves, c moves to its place, and a new one without a session takes the place of a
    moved = [(2, 0, MoveDirectionality.UNIDIRECTIONAL)]
    answers.asked.clear()
    step(made, outputs, 2, BatchUpdate(2, removed=[0], added=[(1, SamplingParams(), [1], [])], moved=moved))
    assert [asked["session"] for asked in answers.asked] == ["c"]


@pytest.mark.parametrize(("on_error", "ended"), [("stop", True), ("continue", False)])
def test_when_tcd_cannot_be_asked(on_error: str, ended: bool) -> None:  # noqa: FBT001
    made = processor(Answers(away=True), on_error=on_error)
    outputs: list[list[int]] = [[]]
    step(made, outputs, 1, BatchUpdate(1, added=[(0, session("a"), [1], outputs[0])]))
    out = step(made, outputs, 1)
    assert (int(torch.isfinite(out[0]).sum()) == 1) is ended


@pytest.mark.parametrize(
    "extra",
    [{"tcd_session": ""}, {"tcd_session": 1}, {"tcd_tenant": "a"}, {"tcd_session": "a", "tcd_nope": "b"}],
)
def test_arguments_that_cannot_be_used_are_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tcd_"):
        VllmGuard.validate_params(SamplingParams(extra_args=extra))


def test_arguments_of_others_are_left_alone() -> None:
    VllmGuard.validate_params(SamplingParams(extra_args={"other": 1}))
    VllmGuard.validate_params(SamplingParams())
    VllmGuard.validate_params(session("a", tcd_task="chat"))
