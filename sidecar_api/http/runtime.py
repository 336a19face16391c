"""What the HTTP surface works with: the service and its neighbours, made once per app."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sidecar_api.callers import Callers
from sidecar_api.decision_log import DecisionLog
from sidecar_api.http.auth import Tokens
from sidecar_api.http.cold_schemas import Health, Version
from sidecar_api.http.context import RequestContext
from sidecar_api.log.keyring import KeyRing
from sidecar_api.log.service import LogService
from sidecar_api.outcome import Observation
from sidecar_api.replica import Replica
from sidecar_api.rewriting import Rewriter
from sidecar_api.service import Service
from sidecar_api.state import StateService
from sidecar_api.verification import Verifier
from tcd.config import Settings
from tcd.ledger import Ledger
from tcd.rate_limit import TokenBuckets
from tcd.telemetry import Exporter, LogWriter
from tcd.triton.trace import TRACEPARENT
from tcd.trust import PolicySet


@dataclass(frozen=True, slots=True)
class Trace:
    """W3C ids of a request, hex; `parent_id` empty = the trace began here."""

    trace_id: str
    span_id: str
    parent_id: str
    sampled: bool


class Spans(Protocol):
    """Whoever traces decisions (`tcd.telemetry.otel.SpanWriter`); must not block."""

    def samples(self, trace: Trace) -> bool:
        """Whether the spans of a request will be sent."""
        ...

    def write(self, seen: Observation, trace: Trace) -> None:
        """A decision was answered."""
        ...

    def close(self) -> None:
        """Send what waits."""
        ...


class Beside(Protocol):
    """A part with a thread of its own."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End, with what waits done."""
        ...


@dataclass(slots=True)
class Runtime:
    """All parts of one app.

    Attributes:
        settings: in force.
        ledger: where decisions are kept.
        service: the dataplane.
        callers: reservations of direct callers.
        state: snapshots.
        verifier: None with receipts off.
        rewriter: of /v1/rewrite.
        exporter, logs: telemetry.
        tokens: of the state routes.
        edge: buckets by client address.
        checks: name to a function that says "" when ready, else why not.
        triton: what `/version` says of the server.
        config_hash: as a header value.
        policies: of the bundle in force; None without one.
        log: the transparency log; None where it is off.
        keyring: keys of receipts and of the log; None with receipts off.
        decisions: the decision log; None without one.
        replica: this shim's end of a shared ledger; None where it has the ledger to itself.
        spans: None without OpenTelemetry.
        in_flight: requests in work; of `reading` of them the body is not here yet.
        reread: reads settings and bundle of policies again from where they came; None where they came from no files.
    """

    settings: Settings
    ledger: Ledger
    service: Service
    callers: Callers
    state: StateService
    verifier: Verifier | None
    rewriter: Rewriter
    exporter: Exporter
    logs: LogWriter
    tokens: Tokens
    edge: TokenBuckets
    checks: Mapping[str, Callable[[], str]]
    triton: Mapping[str, Any] | None
    config_hash: bytes
    policies: PolicySet | None = None
    log: LogService | None = None
    keyring: KeyRing | None = None
    decisions: DecisionLog | None = None
    replica: Replica | None = None
    spans: Spans | None = None
    in_flight: int = field(default=0)
    reading: int = field(default=0)
    reread: Callable[[], tuple[Settings, PolicySet | None]] | None = None

    @property
    def beside(self) -> tuple[Beside, ...]:
        """What runs beside the dataplane from the start to the end."""
        judge = self.service.judge
        found: tuple[Beside | None, ...] = (self.decisions, judge.signals, judge.trust, self.service.patches)
        return tuple(part for part in found if part is not None)

    def readiness(self) -> dict[str, str]:
        """Name of each check to "" or why it fails."""
        found = {name: check() for name, check in self.checks.items()}
        if self.service.draining:
            found["service"] = "stopping"
        return found

    def health(self) -> Health:
        """What /healthz says."""
        return Health(
            ok=True,
            config_hash=self.settings.config_hash,
            otel=self.spans is not None,
            prom=True,
            receipts=self.settings.receipts_enable,
            trust_os=self.policies is not None,
        )

    def version(self, version: str) -> Version:
        """What /version says."""
        settings = self.settings
        return Version(
            version=version,
            config_version="1",
            alpha=settings.alpha,
            slo_latency_ms=settings.slo_ms,
            config_hash=settings.config_hash,
            triton=dict(self.triton) if self.triton is not None else None,
        )

    def propagate(self, context: RequestContext) -> None:
        """Let the calls of Triton for a request say whose trace they belong to."""
        if self.spans is not None:
            flags = "01" if self.spans.samples(_trace(context)) else "00"
            TRACEPARENT.set(f"00-{context.trace_id}-{context.span_id}-{flags}")

    def observe(self, seen: Observation, context: RequestContext) -> None:
        """Count, log and trace a decision, after it was answered."""
        self.exporter.decision(seen)
        patches = self.service.patches
        if patches is not None and patches.active:
            patches.seen(seen.subject, seconds=seen.seconds, degraded=bool(seen.degraded))
        if self.decisions is not None and seen.record is not None:
            self.decisions.write(seen.record)
        if self.spans is not None:
            self.spans.write(seen, _trace(context))
        if self.settings.log_decisions and self.logs.enabled("info"):
            self.logs.write(
                "info",
                "decision",
                request_id=seen.request_id,
                trace_id=seen.trace_id,
                subject=seen.subject,
                action=seen.action,
                enforced=seen.enforced,
                cause=seen.cause,
                verdict=seen.verdict,
                trigger=seen.trigger,
                score=seen.score,
                p_value=seen.p_value,
                step=seen.step,
                degraded=seen.degraded,
                receipt=seen.receipt,
                ms=round(seen.seconds * 1000, 3),
            )


def _trace(context: RequestContext) -> Trace:
    return Trace(context.trace_id, context.span_id, context.parent_id, bool(int(context.flags, 16) & 1))
