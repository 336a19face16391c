"""Spans reach a real OTLP receiver with the caller's trace id, the announced span id, stages, and no raw names."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from tcd.telemetry import names
from tcd.telemetry.otel import SpanWriter, otlp
from tcd.telemetry.otel_metrics import otlp_metrics
from tcd.triton.batcher import MicroBatcher
from tcd.triton.trace import TRACEPARENT
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of, synthetic_assets
from tests.unit.telemetry.receiver import Receiver
from tests.unit.triton.conftest import FakeClient

TRACE, PARENT = "ab" * 16, "cd" * 8


def client_of(spans: SpanWriter, scorer: Any = None) -> Client:
    app = create_app(
        settings_of(log_decisions=False),
        scorer=scorer or ScriptedScorer(),
        assets=FixedAssets(synthetic_assets()),
        edges=Edges(spans=spans),
    )
    return Client(app)


def plain(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


async def test_a_decision_in_the_callers_trace(receiver: Receiver) -> None:
    spans = otlp(receiver.url, version="1", ratio=0.0)
    client = client_of(spans)
    assert (await client.get("/healthz")).json()["otel"] is True
    reply = await client.post(
        {"tenant": "acme", "user": "ann", "session": "raw-name", "trace_vector": [-1.0]},
        traceparent=f"00-{TRACE}-{PARENT}-01",
    )
    announced = reply.headers["traceparent"].split("-")[2]
    spans.close()
    by_name = {span.name: span for span in receiver.spans}
    root = by_name[names.SPAN]
    assert (root.trace_id.hex(), root.parent_span_id.hex(), root.span_id.hex()) == (TRACE, PARENT, announced)
    stages = [span for span in receiver.spans if span.name.startswith(names.STAGE)]
    assert [s.name.removeprefix(names.STAGE) for s in stages] == list(names.STAGES)
    assert all(s.parent_span_id == root.span_id and s.trace_id == root.trace_id for s in stages)
    assert all(root.start_time_unix_nano <= s.start_time_unix_nano <= s.end_time_unix_nano for s in stages)
    found = plain(root.attributes)
    assert found[names.ACTION] == "allow"
    assert found[names.REQUEST_ID] == reply.json()["request_id"]
    assert found[names.SURFACE] == "http"
    (event,) = root.events
    assert plain(event.attributes)[names.EVALUATION_LABEL] == "pass"
    assert plain(receiver.resources[0].attributes)["service.name"] == "tcd"
    everything = str(receiver.spans)
    assert not any(raw in everything for raw in ("acme", "raw-name"))


@pytest.mark.parametrize(
    ("flags", "ratio", "sampled"), [("00", 1.0, False), ("01", 0.0, True), (None, 1.0, True), (None, 0.0, False)]
)
async def test_sampling_follows_the_caller(receiver: Receiver, flags: str | None, ratio: float, sampled: bool) -> None:  # noqa: FBT001
    spans = otlp(receiver.url, version="1", ratio=ratio)
    headers = {} if flags is None else {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"}
    await client_of(spans).post({"trace_vector": [-1.0]}, **headers)
    spans.close()
    assert bool(receiver.spans) is sampled


async def test_a_degraded_decision_is_an_error_span(receiver: Receiver) -> None:
    class Away:
        async def score(self, row: Any, *, timeout: float) -> Any:
            raise OSError

    spans = otlp(receiver.url, version="1", ratio=1.0)
    await client_of(spans, Away()).post({"trace_vector": [-1.0]})
    spans.close()
    root = next(s for s in receiver.spans if s.name == names.SPAN)
    assert (root.status.code, root.status.message) == (2, "scoring")


def test_names_are_unique() -> None:
    values = [v for k, v in vars(names).items() if k.isupper() and isinstance(v, str)]
    assert len(values) == len(set(values)) + 1  # the service and the evaluation are both called tcd


class Heard(FakeClient):
    """Remembers in whose trace it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.traces: list[str] = []

    async def infer(self, *arguments: Any, **named: Any) -> Any:
        self.traces.append(TRACEPARENT.get())
        return await super().infer(*arguments, **named)


async def test_the_call_of_triton_is_in_the_callers_trace_below_our_span(receiver: Receiver) -> None:
    spans, triton = otlp(receiver.url, version="1", ratio=0.0), Heard()
    client = client_of(spans, MicroBatcher(triton))
    reply = await client.post({"trace_vector": [-1.0]}, traceparent=f"00-{TRACE}-{PARENT}-01")
    ours = reply.headers["traceparent"].split("-")[2]
    await client.post({"trace_vector": [-1.0]}, traceparent=f"00-{TRACE}-{PARENT}-00")
    spans.close()
    assert triton.traces[0] == f"00-{TRACE}-{ours}-01"
    # not sampled, and said so
    assert triton.traces[1].startswith(f"00-{TRACE}-")
    assert triton.traces[1].endswith("-00")


async def test_without_tracing_triton_is_told_nothing() -> None:
    triton = Heard()
    app = create_app(settings_of(), scorer=MicroBatcher(triton), assets=FixedAssets(synthetic_assets()))
    await Client(app).post({"trace_vector": [-1.0]}, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert triton.traces == [""]


async def test_metrics_arrive_with_the_values_of_the_page(receiver: Receiver) -> None:
    client = client_of(otlp(receiver.url, version="1", ratio=0.0))
    exporter = client.app.runtime.exporter
    for step in range(3):
        await client.step(step_id=step)
    sender = otlp_metrics(receiver.url, exporter.registry.collect, version="1", interval=3600.0)
    sender.start()
    assert sender.send()
    await client.step(step_id=3)
    sender.close()
    first, last = receiver.requests[0], receiver.requests[-1]
    (resource,) = last.resource_metrics
    assert plain(resource.resource.attributes)["service.name"] == "tcd"
    found = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    page = {family.name: family for family in exporter.registry.collect() if family.samples}
    assert found.keys() == page.keys()
    decisions = found["tcd_decisions"].sum
    assert (decisions.is_monotonic, decisions.aggregation_temporality) == (True, 2)
    (point,) = decisions.data_points
    assert (point.as_double, plain(point.attributes)["action"]) == (4.0, "allow")
    (duration,) = found["tcd_request_duration_seconds"].histogram.data_points
    assert (duration.count, sum(duration.bucket_counts)) == (4, 4)
    assert len(duration.bucket_counts) == len(duration.explicit_bounds) + 1
    assert found["tcd_build_info"].gauge.data_points[0].as_double == 1.0
    before = {m.name: m for m in first.resource_metrics[0].scope_metrics[0].metrics}["tcd_decisions"].sum.data_points[0]
    assert before.start_time_unix_nano == point.start_time_unix_nano < before.time_unix_nano < point.time_unix_nano


async def test_a_receiver_that_is_away_harms_nothing(receiver: Receiver) -> None:
    client = client_of(otlp(receiver.url, version="1", ratio=0.0))
    sender = otlp_metrics("http://127.0.0.1:9", client.app.runtime.exporter.registry.collect, version="1", interval=9e9)
    assert not sender.send()
