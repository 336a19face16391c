"""The metrics of the exporter over OTLP/HTTP: the same families as /metrics, sent by a thread of their own.

Needs the extra `otel`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from tcd.telemetry import names

_LOG: Final = logging.getLogger(__name__)
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE


class _Times:
    """Start of the counts and time of the sample, nanoseconds since 1970."""

    def __init__(self, start: int, now: int) -> None:
        self.start, self.now = start, now

    def number(self, sample: Any) -> NumberDataPoint:
        return NumberDataPoint(dict(sample.labels), self.start, self.now, float(sample.value))

    def histograms(self, family: Any) -> Iterator[HistogramDataPoint]:
        rows: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k != "le"}
            row = rows.setdefault(tuple(sorted(labels.items())), {"labels": labels, "le": []})
            if sample.name.endswith("_bucket"):
                row["le"].append((float(sample.labels["le"]), int(sample.value)))
            elif sample.name.endswith(("_sum", "_count")):
                row[sample.name.rpartition("_")[2]] = sample.value
        for row in rows.values():
            buckets = sorted(row["le"])
            counts = [high - low for (_, low), (_, high) in zip([(0.0, 0), *buckets], buckets, strict=False)]
            yield HistogramDataPoint(
                attributes=row["labels"],
                start_time_unix_nano=self.start,
                time_unix_nano=self.now,
                count=int(row.get("count", 0)),
                sum=float(row.get("sum", 0.0)),
                bucket_counts=counts,
                explicit_bounds=[bound for bound, _ in buckets[:-1]],
                min=float("nan"),
                max=float("nan"),
            )


def metrics(families: Iterable[Any], *, start_ns: int, now_ns: int) -> list[Metric]:
    """Families of a Prometheus registry as OpenTelemetry has them: sums and histograms cumulative from the start."""
    times, out = _Times(start_ns, now_ns), []
    for family in families:
        data: Sum | Gauge | Histogram
        if family.type == "histogram":
            data = Histogram(list(times.histograms(family)), _CUMULATIVE)
        elif family.type == "counter":
            points = [times.number(sample) for sample in family.samples if sample.name.endswith("_total")]
            data = Sum(points, _CUMULATIVE, is_monotonic=True)
        else:
            data = Gauge([times.number(sample) for sample in family.samples])
        if data.data_points:
            out.append(Metric(family.name, family.documentation, "", data))
    return out


class MetricsSender:
    """Sends the families every `interval` seconds, and once more when it is closed."""

    def __init__(
        self,
        exporter: MetricExporter,
        collect: Callable[[], Iterable[Any]],
        *,
        version: str,
        interval: float,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """A sender that is not started.

        Args:
            exporter: of the SDK.
            collect: families, as `CollectorRegistry.collect` gives them.
            version: of tcd.
            interval: seconds.
            clock_ns: nanoseconds since 1970.
        """
        self._exporter, self._collect, self._interval = exporter, collect, interval
        self._clock_ns, self._start = clock_ns, clock_ns()
        self._resource = Resource.create({"service.name": names.SERVICE, "service.version": version})
        self._scope = InstrumentationScope(names.SERVICE, version)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tcd-otel-metrics", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def send(self) -> bool:
        """Send the families as they are now; whether the receiver took them."""
        found = metrics(self._collect(), start_ns=self._start, now_ns=self._clock_ns())
        scope = ScopeMetrics(self._scope, found, "")
        data = MetricsData([ResourceMetrics(self._resource, [scope], "")])
        return bool(self._exporter.export(data) is MetricExportResult.SUCCESS)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            if not self.send():
                _LOG.warning("metrics could not be sent over OTLP; the next ones have their counts too")

    def close(self) -> None:
        """Send what is there, end the thread."""
        self._stop.set()
        self._thread.join(5.0)
        self.send()
        self._exporter.shutdown()


def otlp_metrics(
    endpoint: str | None, collect: Callable[[], Iterable[Any]], *, version: str, interval: float
) -> MetricsSender:
    """A sender to `endpoint` (its base URL; the SDK's default when None) over OTLP/HTTP."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - requests
        OTLPMetricExporter,
    )

    url = None if endpoint is None else endpoint.rstrip("/") + "/v1/metrics"
    return MetricsSender(OTLPMetricExporter(endpoint=url, timeout=5), collect, version=version, interval=interval)
