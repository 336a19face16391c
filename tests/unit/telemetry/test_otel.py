"""Spans reach a real OTLP receiver with the caller's trace id, the announced span id, stages, and no raw names."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from tcd.telemetry import names
from tcd.telemetry.otel import SpanWriter, otlp
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of, synthetic_assets

TRACE, PARENT = "ab" * 16, "cd" * 8


class Receiver:
    """OTLP over HTTP as a collector speaks it."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[Any] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    receiver.resources.append(resource.resource)
                    for scope in resource.scope_spans:
                        receiver.spans.extend(scope.spans)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Any:
    made = Receiver()
    yield made
    made.close()


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
