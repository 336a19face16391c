"""The GPU sampler: newest values, a machine without a GPU, and what reaches the context of a request."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import pytest

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from tcd.telemetry.gpu import GpuSampler, Reader
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of, synthetic_assets


def test_the_newest_sample_and_a_gpu_that_falls_off() -> None:
    values: list[Mapping[str, float] | OSError] = [{"gpu_util": 0.5}, OSError("gone"), {"gpu_util": 0.7}]
    seen: list[Mapping[str, float]] = []
    done = threading.Event()

    def read() -> Mapping[str, float]:
        seen.append(sampler.sample())
        if not values:
            done.set()
            return {}
        value = values.pop(0)
        if isinstance(value, OSError):
            raise value
        return value

    def make() -> Reader:
        return read

    sampler = GpuSampler(interval=0.001, reader=make)
    sampler.start()
    assert done.wait(60)
    sampler.stop()
    # it may have looked once more before it was stopped
    assert seen[:4] == [{}, {"gpu_util": 0.5}, {}, {"gpu_util": 0.7}]


def test_without_nvml_it_says_why(caplog: pytest.LogCaptureFixture) -> None:
    tried = threading.Event()

    def make() -> Reader:
        tried.set()
        msg = "NVML knows no GPU"
        raise OSError(msg)

    sampler = GpuSampler(interval=0.001, reader=make)
    sampler.start()
    assert tried.wait(60)
    sampler.stop()
    assert sampler.sample() == {}
    assert sampler.error == "NVML knows no GPU"
    assert caplog.messages == ["no GPU samples: NVML knows no GPU"]


async def test_samples_are_merged_into_the_context() -> None:
    scorer = ScriptedScorer()
    samples = iter([{"gpu_util": 0.5, "temperature": 9.0}, {"gpu_util": 0.9}, {"gpu_util": 0.9}])
    app = create_app(
        settings_of(log_decisions=False),
        scorer=scorer,
        assets=FixedAssets(synthetic_assets()),
        edges=Edges(gpu=lambda: next(samples)),
    )
    client = Client(app)
    request = {"trace_vector": [-1.0], "context": {"temperature": 0.5}, "idempotency_key": "k"}
    first = await client.post(request)
    assert scorer.rows[0].base[0] == 0.5, "the request's own value stays"
    # the sample is no part of what a retry has to repeat
    assert (await client.post(request)).body == first.body
    full = {"trace_vector": [-1.0], "context": {str(i): i for i in range(64)}}
    assert (await client.post(full)).status == 200
