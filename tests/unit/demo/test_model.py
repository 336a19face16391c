"""The Triton model without Triton: what it sends, what it refuses, that it stops when nobody listens."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tcd.calibration.assets import AssetSet
from tcd.demo.llm import LanguageModel
from tcd.demo.model import DemoModel
from tcd.demo.records import Token
from tcd.scoring import diagnose_raw


class Tensor:
    def __init__(self, name: str, array: NDArray[Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._array


class Sender:
    def __init__(self, cancel_after: int | None = None) -> None:
        self.sent: list[Any] = []
        self.flags: list[int] = []
        self._cancel_after = cancel_after

    def send(self, response: Any = None, flags: int = 0) -> None:
        if response is not None:
            self.sent.append(response)
        self.flags.append(flags)

    def is_cancelled(self) -> bool:
        return self._cancel_after is not None and len(self.sent) >= self._cancel_after


class TritonModelException(Exception):
    pass


def backend(assets: AssetSet, failure: str = "") -> SimpleNamespace:
    """`triton_python_backend_utils` whose BLS calls run the library."""

    class Call:
        def __init__(
            self, *, model_name: str, requested_output_names: list[str], inputs: list[Tensor], **_: Any
        ) -> None:
            assert model_name == "tcd_diagnose_raw"
            self.tensors = {t.name(): t.as_numpy() for t in inputs}
            self.names = requested_output_names

        def exec(self) -> Any:
            if failure == "raised":
                raise TritonModelException(failure)
            if failure:
                error = SimpleNamespace(message=lambda: failure)
                return SimpleNamespace(has_error=lambda: True, error=lambda: error)
            out = diagnose_raw(self.tensors, assets)
            answer = [Tensor(name, out[name]) for name in self.names]
            return SimpleNamespace(has_error=lambda: False, output_tensors=lambda: answer)

    def response(output_tensors: list[Tensor], error: Any = None) -> SimpleNamespace:
        return SimpleNamespace(output_tensors=output_tensors, error=error)

    def error(message: str, code: int) -> SimpleNamespace:
        return SimpleNamespace(message=message, code=code)

    error.INVALID_ARG = 3  # type: ignore[attr-defined]
    return SimpleNamespace(
        Tensor=Tensor,
        InferenceRequest=Call,
        InferenceResponse=response,
        TritonError=error,
        TritonModelException=TritonModelException,
        PreferredMemory=lambda *_: None,
        TRITONSERVER_MEMORY_CPU=0,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        get_input_tensor_by_name=lambda request, name: Tensor(name, request.inputs[name]),
    )


def started(monkeypatch: pytest.MonkeyPatch, tiny: LanguageModel, pb: SimpleNamespace) -> DemoModel:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", pb)
    monkeypatch.setattr(LanguageModel, "load", lambda **_: tiny)
    model = DemoModel()
    config = {"parameters": {"THREADS": {"string_value": "1"}}}
    model.initialize({"model_config": json.dumps(config)})
    return model


def request(sender: Sender, prompt: str = "abc", **params: Any) -> SimpleNamespace:
    inputs = {
        "PROMPT": np.array([prompt.encode()], np.object_),
        "PARAMS": np.array([json.dumps({"max_tokens": 6, **params}).encode()], np.object_),
    }
    return SimpleNamespace(inputs=inputs, get_response_sender=lambda: sender)


def tokens(sender: Sender) -> list[Token]:
    return [Token.from_json(r.output_tensors[0].as_numpy()[0].decode()) for r in sender.sent]


def test_it_streams_a_token_per_response_and_ends(
    monkeypatch: pytest.MonkeyPatch, tiny: LanguageModel, assets: AssetSet
) -> None:
    sender = Sender()
    started(monkeypatch, tiny, backend(assets)).execute([request(sender)])
    seen = tokens(sender)
    assert [t.step for t in seen] == list(range(6))
    assert all(t.answer is not None for t in seen)
    assert seen[-1].stop == "length"
    assert sender.flags == [0] * 6 + [1]


@pytest.mark.parametrize("failure", ["in ensemble 'tcd_diagnose_raw', the stub is dead", "raised"])
def test_an_ensemble_that_fails_is_shown_and_the_text_goes_on(
    monkeypatch: pytest.MonkeyPatch, tiny: LanguageModel, assets: AssetSet, failure: str
) -> None:
    sender = Sender()
    started(monkeypatch, tiny, backend(assets, failure)).execute([request(sender)])
    assert {t.error for t in tokens(sender)} == {failure}
    assert len(sender.sent) == 6


@pytest.mark.parametrize(("prompt", "params"), [("", {}), ("abc", {"seed": "x"}), ("abc", {"nonsense": 1})])
def test_a_wrong_request_is_refused_and_ends(
    monkeypatch: pytest.MonkeyPatch, tiny: LanguageModel, assets: AssetSet, prompt: str, params: dict[str, Any]
) -> None:
    wrong, right = Sender(), Sender()
    model = started(monkeypatch, tiny, backend(assets))
    model.execute([request(wrong, prompt, **params), request(right)])
    assert len(wrong.sent) == 1
    assert wrong.sent[0].error.code == 3
    assert wrong.flags[-1] == 1
    assert len(right.sent) == 6


def test_it_stops_when_nobody_listens(monkeypatch: pytest.MonkeyPatch, tiny: LanguageModel, assets: AssetSet) -> None:
    sender = Sender(cancel_after=2)
    started(monkeypatch, tiny, backend(assets)).execute([request(sender)])
    assert len(sender.sent) == 2
    assert sender.flags[-1] == 1


def test_prompts_that_are_no_text_are_refused(
    monkeypatch: pytest.MonkeyPatch, tiny: LanguageModel, assets: AssetSet
) -> None:
    sender = Sender()
    broken = request(sender)
    broken.inputs["PROMPT"] = np.array([b"\xff\xfe"], np.object_)
    started(monkeypatch, tiny, backend(assets)).execute([broken])
    assert sender.sent[0].error.code == 3
