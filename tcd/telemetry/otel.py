"""OpenTelemetry spans of decisions over OTLP/HTTP, made after the answer and sent by another thread.

A span has the id that the answer's `traceparent` announced, the caller's trace id and parent, and its stages as
children. It holds no raw subject name. Needs the extra `otel`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tcd.telemetry import names


class Decided(Protocol):
    """The members of a decision that spans carry (`sidecar_api.outcome.Observation`)."""

    @property
    def request_id(self) -> str: ...  # noqa: D102 - named like the attribute it feeds
    @property
    def surface(self) -> str: ...  # noqa: D102
    @property
    def subject(self) -> str: ...  # noqa: D102
    @property
    def action(self) -> str: ...  # noqa: D102
    @property
    def enforced(self) -> str: ...  # noqa: D102
    @property
    def cause(self) -> str: ...  # noqa: D102
    @property
    def degraded(self) -> str: ...  # noqa: D102
    @property
    def verdict(self) -> bool: ...  # noqa: D102
    @property
    def trigger(self) -> bool: ...  # noqa: D102
    @property
    def score(self) -> float: ...  # noqa: D102
    @property
    def p_value(self) -> float: ...  # noqa: D102
    @property
    def step(self) -> int: ...  # noqa: D102
    @property
    def receipt(self) -> str: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def stages(self) -> dict[str, float]: ...  # noqa: D102


class Trace(Protocol):
    """W3C ids of a request, hex; `parent_id` empty = the trace began here."""

    @property
    def trace_id(self) -> str: ...  # noqa: D102
    @property
    def span_id(self) -> str: ...  # noqa: D102
    @property
    def parent_id(self) -> str: ...  # noqa: D102
    @property
    def sampled(self) -> bool: ...  # noqa: D102


class SpanWriter:
    """Turns decisions into spans."""

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        version: str,
        ratio: float,
        clock_ns: Callable[[], int] = time.time_ns,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Export through `exporter`.

        Args:
            exporter: of the SDK.
            version: of tcd.
            ratio: share of the traces begun here that are sampled; a caller's decision is followed.
            clock_ns: nanoseconds since 1970.
            random: random bytes, for ids.
        """
        self._processor: Any = BatchSpanProcessor(exporter)
        self._resource = Resource.create({"service.name": names.SERVICE, "service.version": version})
        self._scope = InstrumentationScope(names.SERVICE, version)
        self._limit = round(ratio * 2**64)
        self._clock_ns, self._random = clock_ns, random

    def samples(self, trace: Trace) -> bool:
        """Whether the spans of a request are sent: a caller's decision is followed."""
        return trace.sampled if trace.parent_id else int(trace.trace_id[16:], 16) < self._limit

    def write(self, seen: Decided, trace: Trace) -> None:
        """Queue the spans of a decision that has just been answered; never blocks."""
        if not self.samples(trace):
            return
        end = self._clock_ns()
        start = end - round(seen.seconds * 1e9)
        trace_id = int(trace.trace_id, 16)
        mine = _context(trace_id, int(trace.span_id, 16), remote=False)
        parent = _context(trace_id, int(trace.parent_id, 16), remote=True) if trace.parent_id else None
        failed = Status(StatusCode.ERROR, seen.degraded) if seen.degraded else Status(StatusCode.UNSET)
        verdict: dict[str, Any] = {
            names.EVALUATION_NAME: names.EVALUATION,
            names.EVALUATION_SCORE: seen.score,
            names.EVALUATION_LABEL: "fail" if seen.verdict else "pass",
        }
        self._end(
            ReadableSpan(
                names.SPAN,
                context=mine,
                parent=parent,
                resource=self._resource,
                attributes=_attributes(seen),
                events=(Event(names.EVALUATION_EVENT, verdict, end),),
                kind=SpanKind.SERVER,
                status=failed,
                start_time=start,
                end_time=end,
                instrumentation_scope=self._scope,
            )
        )
        at = start
        for stage in names.STAGES:
            seconds = seen.stages.get(stage)
            if seconds is None:
                continue
            until = at + round(seconds * 1e9)
            self._end(
                ReadableSpan(
                    names.STAGE + stage,
                    context=_context(trace_id, int.from_bytes(self._random(8), "big") or 1, remote=False),
                    parent=mine,
                    resource=self._resource,
                    start_time=at,
                    end_time=until,
                    instrumentation_scope=self._scope,
                )
            )
            at = until

    def _end(self, span: ReadableSpan) -> None:
        self._processor.on_end(span)

    def close(self) -> None:
        """Send what waits."""
        self._processor.shutdown()


def _context(trace_id: int, span_id: int, *, remote: bool) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=remote, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _attributes(seen: Decided) -> dict[str, Any]:
    return {
        names.REQUEST_ID: seen.request_id,
        names.SUBJECT: seen.subject,
        names.SURFACE: seen.surface,
        names.ACTION: seen.action,
        names.ENFORCED: seen.enforced,
        names.CAUSE: seen.cause,
        names.DEGRADED: seen.degraded,
        names.TRIGGER: seen.trigger,
        names.P_VALUE: seen.p_value,
        names.STEP: seen.step,
        names.RECEIPT: seen.receipt,
    }


def otlp(endpoint: str | None, *, version: str, ratio: float) -> SpanWriter:
    """A writer that sends OTLP over HTTP to `endpoint` (its base URL; the SDK's default when None)."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - requests

    url = None if endpoint is None else endpoint.rstrip("/") + "/v1/traces"
    return SpanWriter(OTLPSpanExporter(endpoint=url), version=version, ratio=ratio)
