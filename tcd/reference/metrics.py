"""Every Prometheus family of the shim, the proxy and the models, as the code registers them."""

from __future__ import annotations

from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from tcd.proxy.metrics import ProxyMetrics
from tcd.telemetry.exporter import Exporter
from tcd.triton.metrics import ModelMetrics

_HEAD: Final = "| family | type | labels | |\n|---|---|---|---|"


def _rows(registry: CollectorRegistry) -> list[str]:
    """A row for each family; the registry keeps its collectors to itself."""
    collectors = list(registry._collector_to_names)  # noqa: SLF001
    return sorted(_row(metric, _labels(one)) for one in collectors for metric in one.collect())


def _labels(collector: Collector) -> tuple[str, ...]:
    names = getattr(collector, "_labelnames", None)
    if names is not None:
        return tuple(names)
    label = getattr(collector, "_label", None)
    return (label,) if label else ()


def _row(metric: Metric, labels: tuple[str, ...]) -> str:
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    return f"| `{name}` | {metric.type} | {', '.join(f'`{label}`' for label in labels)} | {metric.documentation} |"


class _Backend:
    """Stands for the server's module in a model: writes down which families a model registers."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        backend = self

        class MetricFamily:
            COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

            def __init__(self, name: str, description: str, kind: str) -> None:
                labels = "`model`, `le`" if name.endswith("_bucket") else "`model`"
                labels += ", `status`" if name.endswith("status_total") else ""
                backend.rows.append(f"| `{name}` | {kind} | {labels} | {description}. |")

            def Metric(self, **_labels: Any) -> Any:  # noqa: N802 - Triton's name
                return self

        self.MetricFamily = MetricFamily


def render() -> str:
    """The page."""
    shim = Exporter(version="", config_hash="", policy="", slo_seconds=1.0).registry
    proxy = CollectorRegistry()
    ProxyMetrics(proxy)
    backend = _Backend()
    ModelMetrics(backend, "model")
    note = (
        "Names as Prometheus reads them: histograms have `_bucket`, `_sum` and `_count`. No family has a tenant, user"
        " or session as a label. How they are read: [telemetry](../telemetry.md)."
    )
    parts = [
        "# Metrics", "", note,
        "", "## The shim (`/metrics`)", _HEAD, *_rows(shim),
        "", "## `tcd proxy`", _HEAD, *_rows(proxy),
        "", "## The models (Triton's `/metrics`)", _HEAD, *sorted(backend.rows), "",
    ]  # fmt: skip
    return "\n".join(parts)
