"""Fakes of what surrounds the Triton side: the ensemble behind a client, and Triton's Python API in a stub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tcd.contract import DIAGNOSE, MODELS, Model
from tcd.triton.wire import DTYPES, Tensors, batch_rows


def answer(tensors: Tensors, model: Model | str = DIAGNOSE) -> Tensors:
    """A contract-true answer whose P_VALUE is the row's ALPHA, so that rows can be told apart."""
    model = MODELS[model] if isinstance(model, str) else model
    rows = batch_rows(tensors)
    outputs: Tensors = {
        t.name: np.zeros((rows, *(4 if d < 0 else d for d in t.dims)), DTYPES[t.dtype]) for t in model.outputs
    }
    if "ALPHA" in tensors and "P_VALUE" in outputs:
        outputs["P_VALUE"] = tensors["ALPHA"].copy()
    return outputs


class FakeClient:
    """An `InferenceClient` whose calls the test lets go, answers or fails."""

    def __init__(self) -> None:
        self.calls: list[Tensors] = []
        self.timeouts: list[float] = []
        self.gate: asyncio.Event | None = None
        self.fail: Callable[[Tensors], Exception | None] = lambda _: None
        self.active = 0
        self.most_active = 0

    @property
    def sizes(self) -> list[int]:
        return [batch_rows(c) for c in self.calls]

    async def infer(self, tensors: Tensors, *, model: Model | str = DIAGNOSE, timeout: float) -> Tensors:
        self.calls.append(tensors)
        self.timeouts.append(timeout)
        self.active += 1
        self.most_active = max(self.active, self.most_active)
        try:
            if self.gate is not None:
                await self.gate.wait()
            else:
                await asyncio.sleep(0)
            error = self.fail(tensors)
            if error is not None:
                raise error
            return answer(tensors, model)
        finally:
            self.active -= 1

    async def ready(self, *, timeout: float = 1.0) -> bool:
        return True

    async def close(self) -> None:
        return


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


class _Metric:
    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.value = 0.0
        self.observed: list[float] = []

    def increment(self, value: float) -> None:
        self.value += value

    def observe(self, value: float) -> None:
        self.observed.append(value)


class FakePb(ModuleType):
    """`triton_python_backend_utils` as far as the models use it."""

    def __init__(self) -> None:
        super().__init__("triton_python_backend_utils")
        self.metrics: list[tuple[str, _Metric]] = []
        fake = self

        class MetricFamily:
            COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

            def __init__(self, name: str, description: str, kind: str) -> None:
                self.name = name

            def Metric(self, labels: dict[str, str], buckets: list[float] | None = None) -> _Metric:  # noqa: N802 - Triton's name
                metric = _Metric(labels)
                fake.metrics.append((self.name, metric))
                return metric

        class Tensor:
            def __init__(self, name: str, array: np.ndarray[Any, Any]) -> None:
                self._name, self._array = name, array

            def name(self) -> str:
                return self._name

            def as_numpy(self) -> np.ndarray[Any, Any]:
                return self._array

            def shape(self) -> tuple[int, ...]:
                return self._array.shape

            def is_cpu(self) -> bool:
                return True

        self.MetricFamily = MetricFamily
        self.Tensor = Tensor
        # Triton has copied the outputs before the next execution: models may write over them then
        self.InferenceResponse = lambda output_tensors, error=None: SimpleNamespace(
            output_tensors=[Tensor(t.name(), t.as_numpy().copy()) for t in output_tensors], error=error
        )

        class TritonError:
            INVALID_ARG, INTERNAL = 3, 1

            def __init__(self, message: str, code: int) -> None:
                self.message, self.code = message, code

        self.TritonError = TritonError
        self.triton_string_to_numpy = lambda name: DTYPES[name.removeprefix("TYPE_")]

    def request(self, tensors: Tensors) -> Any:
        inputs = [self.Tensor(name, array) for name, array in tensors.items()]
        return SimpleNamespace(inputs=lambda: inputs)

    def metric(self, name: str, **labels: str) -> _Metric:
        return next(m for n, m in self.metrics if n == name and labels.items() <= m.labels.items())

    @staticmethod
    def tensors(response: Any) -> dict[str, np.ndarray[Any, Any]]:
        return {t.name(): t.as_numpy() for t in response.output_tensors}


@pytest.fixture
def pb(monkeypatch: pytest.MonkeyPatch) -> FakePb:
    fake = FakePb()
    monkeypatch.setitem(__import__("sys").modules, fake.__name__, fake)
    return fake
