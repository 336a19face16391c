"""The shim's Prometheus metrics: one registry per app, base units, no subject labels.

Everything here is called after an answer was sent, and keeps what it is told until there is a lot of it.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tcd.telemetry.histogram import LotHistogram
from tcd.telemetry.spotlighting import SpotlightMetrics
from tcd.telemetry.transparency import LogMetrics

#: Decisions that are counted together.
_LOT: Final = 256
#: The newest of a lot may be shown as exemplars.
_EXAMPLES: Final = 16
#: Seconds: from a tenth of a millisecond to ten seconds.
_SECONDS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
_UNIT: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
_SMALL: Final = (1e-5, 1e-4, 1e-3, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_LOG10: Final = (-0.3, 0.0, 0.5, 1.0, 1.3, 2.0, 3.0, 5.0, 10.0)
_BYTES: Final = (1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384)


class Seen(Protocol):
    """The members of a decision that are counted (`sidecar_api.outcome.Observation`)."""

    @property
    def trace_id(self) -> str: ...  # noqa: D102 - named like the metric it feeds
    @property
    def surface(self) -> str: ...  # noqa: D102
    @property
    def action(self) -> str: ...  # noqa: D102
    @property
    def enforced(self) -> str: ...  # noqa: D102
    @property
    def policy(self) -> str: ...  # noqa: D102
    @property
    def score(self) -> float: ...  # noqa: D102
    @property
    def p_value(self) -> float: ...  # noqa: D102
    @property
    def e_value_log10(self) -> float: ...  # noqa: D102
    @property
    def wealth_ratio(self) -> float: ...  # noqa: D102
    @property
    def cost(self) -> float: ...  # noqa: D102
    @property
    def first(self) -> bool: ...  # noqa: D102
    @property
    def exhausted(self) -> bool: ...  # noqa: D102
    @property
    def degraded(self) -> str: ...  # noqa: D102
    @property
    def receipt(self) -> str: ...  # noqa: D102
    @property
    def receipt_bytes(self) -> int: ...  # noqa: D102
    @property
    def seconds(self) -> float: ...  # noqa: D102
    @property
    def stages(self) -> dict[str, float]: ...  # noqa: D102


class _First(Collector):
    """Registered before all others: what waits is counted before anything is read."""

    def __init__(self, count: Callable[[], None]) -> None:
        self._count = count

    def describe(self) -> list[Metric]:
        """No metrics of its own."""
        return []

    def collect(self) -> list[Metric]:
        """Count."""
        self._count()
        return []


class Exporter:
    """All metrics of one app. Decisions are counted by the lot, or when somebody reads."""

    def __init__(self, *, version: str, config_hash: str, policy: str, slo_seconds: float) -> None:
        """Make the registry.

        Args:
            version: of tcd.
            config_hash: of the settings.
            policy: name under which budgets are counted, which belong to no policy of a bundle.
            slo_seconds: a slower answer is a violation of the latency objective.
        """
        self.registry = CollectorRegistry()
        self._seen: list[Seen] = []
        self._ended: dict[tuple[str, str], int] = {}
        self._waiting = 0
        self.registry.register(_First(self.count))
        self._slo = slo_seconds
        self._requests = self._counter(
            "tcd_requests", "Requests by outcome (ok or the problem's code).", "surface", "outcome"
        )
        # the one histogram with exemplars
        self._duration = self._histogram("tcd_request_duration_seconds", "Time to an answer.", _SECONDS, "surface")
        self._stage = self._histogram("tcd_stage_duration_seconds", "Time in a stage of a decision.", _SECONDS, "stage")
        self._decisions = self._counter("tcd_decisions", "Decisions.", "action", "enforced", "policy")
        self._score = self._histogram("tcd_detector_score", "Score of the steps.", _UNIT)
        self._p = self._histogram("tcd_p_value", "p-value of the hypotheses.", _SMALL)
        self._e = self._histogram("tcd_e_value_log10", "log10 of the e-value of the hypotheses.", _LOG10)
        self._wealth = self._histogram("tcd_alpha_wealth_ratio", "Share of an epoch's budget that is left.", _UNIT)
        self._spent = self._counter("tcd_alpha_spent", "Budget debited by reservations.", "policy").labels(policy)
        self._rejections = self._counter("tcd_av_rejections", "Hypotheses rejected.", "policy").labels(policy)
        self._exhausted = self._counter("tcd_budget_exhausted", "Steps without budget.", "policy").labels(policy)
        self._throttle = self._counter("tcd_throttle", "Requests refused by a limit.", "zone")
        self._violations = self._counter("tcd_slo_violations", "Answers outside an objective.", "slo").labels("latency")
        self._receipts = self._counter("tcd_receipts", "Receipts of decisions.", "result")
        self._size = self._histogram("tcd_receipt_size_bytes", "Size of receipt bodies.", _BYTES)
        self._verify = self._counter("tcd_verify_failures", "Failed verifications by code.", "code")
        self._gaps = self._counter("tcd_chain_gap", "Receipt chains cut by a lost commit.")
        self._degraded = self._counter("tcd_degraded_decisions", "Decisions without evidence.", "reason")
        self._batch = self._histogram("tcd_triton_batch_size", "Rows per call of the ensemble.", _ROWS)
        self._calls = self._counter("tcd_triton_calls", "Calls of the ensemble.", "outcome")
        self._queue = Gauge("tcd_triton_queue_depth", "Rows that wait for a call.", registry=self.registry)
        self._commit = self._histogram("tcd_ledger_commit_duration_seconds", "Time until durable.", _SECONDS)
        self._closed = self._counter("tcd_sessions_closed", "Sessions closed.", "reason")
        self._sessions = Gauge("tcd_sessions_live", "Sessions with windows.", registry=self.registry)
        self._logs = self._counter("tcd_log_lines_dropped", "Log lines dropped because the queue was full.")
        self._logs_seen = 0
        self.spotlighting = SpotlightMetrics(self.registry)
        self.log = LogMetrics(self.registry)
        info = Gauge("tcd_build_info", "Version and settings.", ("version", "config_hash"), registry=self.registry)
        info.labels(version, config_hash).set(1)
        self._info, self._version = info, version

    def _counter(self, name: str, doc: str, *labels: str) -> Counter:
        return Counter(name, doc, labels, registry=self.registry)

    def _histogram(self, name: str, doc: str, bounds: tuple[float, ...], label: str | None = None) -> LotHistogram:
        return LotHistogram(name, doc, bounds, registry=self.registry, label=label)

    def configured(self, *, config_hash: str, slo_seconds: float) -> None:
        """The settings were reloaded."""
        self._slo = slo_seconds
        self._info.clear()
        self._info.labels(self._version, config_hash).set(1)

    def request(self, *, surface: str, outcome: str) -> None:
        """A request ended; `outcome` is `ok` or the code of a problem."""
        key = (surface, outcome)
        self._ended[key] = self._ended.get(key, 0) + 1

    def throttled(self, *, zone: str) -> None:
        """A request was refused by the limit of `subject`, `edge`, `inflight` or `wait`."""
        self._throttle.labels(zone).inc()

    def decision(self, seen: Seen) -> None:
        """A decision was made."""
        self._seen.append(seen)
        if len(self._seen) >= _LOT:
            self.count()

    def count(self) -> None:
        """Count what waits. A reader on another thread sees whole lots or not yet."""
        ended, self._ended = self._ended, {}
        for (surface, outcome), n in ended.items():
            self._requests.labels(surface, outcome).inc(n)
        self._queue.set(self._waiting)
        seen, self._seen = self._seen, []
        if seen:
            self._count(seen)

    def _count(self, seen: list[Seen]) -> None:
        now = time.time()
        lasted: dict[str, list[float]] = {}
        stages: dict[str, list[float]] = {}
        for one in seen:
            lasted.setdefault(one.surface, []).append(one.seconds)
            for stage, seconds in one.stages.items():
                stages.setdefault(stage, []).append(seconds)
        for surface, values in lasted.items():
            self._duration.observe_all(values, surface)
        for one in seen[-_EXAMPLES:]:
            if one.trace_id:
                self._duration.example(one.seconds, one.trace_id, now=now, label=one.surface)
        for stage, values in stages.items():
            self._stage.observe_all(values, stage)
        self._score.observe_all([one.score for one in seen])
        self._p.observe_all([one.p_value for one in seen])
        self._e.observe_all([one.e_value_log10 for one in seen])
        self._wealth.observe_all([one.wealth_ratio for one in seen])
        self._size.observe_all([one.receipt_bytes for one in seen if one.receipt_bytes])
        for labels, n in Tally((one.action, one.enforced, one.policy) for one in seen).items():
            self._decisions.labels(*labels).inc(n)
        for receipt, n in Tally(one.receipt for one in seen).items():
            self._receipts.labels(receipt).inc(n)
        for reason, n in Tally(one.degraded for one in seen if one.degraded).items():
            self._degraded.labels(reason).inc(n)
        self._spent.inc(sum(one.cost for one in seen))
        self._rejections.inc(sum(one.first for one in seen))
        self._exhausted.inc(sum(one.exhausted for one in seen))
        self._violations.inc(sum(one.seconds > self._slo for one in seen))

    def closed(self, *, reason: str) -> None:
        """A session was closed."""
        self._closed.labels(reason).inc()

    def verified(self, *, code: str) -> None:
        """A verification ended."""
        if code != "ok":
            self._verify.labels(code).inc()

    def commit(self, *, seconds: float) -> None:
        """A decision became durable."""
        self._commit.observe(seconds)

    def gap(self) -> None:
        """A chain of receipts was cut."""
        self._gaps.inc()

    def batch(self, *, rows: int, seconds: float, outcome: str) -> None:  # noqa: ARG002 - the batcher's port
        """A call of the ensemble ended."""
        self._batch.observe(rows)
        self._calls.labels(outcome).inc()

    def queue(self, *, depth: int) -> None:
        """Rows that wait."""
        self._waiting = depth

    def refused(self, *, reason: str) -> None:
        """The batcher refused a row."""
        self._throttle.labels(f"triton_{reason}").inc()

    def refresh(self, *, sessions: int, dropped: int) -> None:
        """Take over what is counted elsewhere: live sessions now, log lines dropped so far."""
        self._sessions.set(sessions)
        self._logs.inc(dropped - self._logs_seen)
        self._logs_seen = dropped

    def expose(self, accept: str, *, sessions: int, dropped: int) -> tuple[bytes, str]:
        """The metrics page and its content type.

        Args:
            accept: the scraper's `Accept`; OpenMetrics carries the exemplars.
            sessions: live sessions now.
            dropped: log lines dropped so far.
        """
        self.refresh(sessions=sessions, dropped=dropped)
        encoder, content_type = choose_encoder(accept)
        page: bytes = encoder(self.registry)
        return page, content_type
