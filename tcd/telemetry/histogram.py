"""A histogram that costs an append per value: values are counted a thousand at a time, or when it is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

_LOT = 1024


class _Series:
    """Counts of one label value. Written from one thread; a reader on another sees whole lots or not yet."""

    __slots__ = ("_bounds", "counts", "examples", "pending", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds)
        self.counts = np.zeros(len(bounds) + 1, np.int64)
        self.total = 0.0
        self.pending: list[float] = []
        #: Newest exemplar of each bucket.
        self.examples: dict[int, Exemplar] = {}

    def example(self, value: float, trace_id: str, now: float) -> None:
        """Show a value by its trace id."""
        place = int(np.searchsorted(self._bounds, value, side="left"))
        self.examples[place] = Exemplar({"trace_id": trace_id}, value, now)

    def count(self) -> None:
        """Count what is pending: a value v belongs to the first bucket with v <= bound."""
        values, self.pending = self.pending, []
        if values:
            places = np.searchsorted(self._bounds, values, side="left")
            self.counts += np.bincount(places, minlength=self.counts.shape[0])
            self.total += float(sum(values))


class LotHistogram(Collector):
    """A Prometheus histogram with at most one label."""

    def __init__(
        self, name: str, doc: str, bounds: Sequence[float], *, registry: CollectorRegistry, label: str | None = None
    ) -> None:
        """Make and register it.

        Args:
            name: metric name.
            doc: help text.
            bounds: upper bounds of the buckets, ascending, without infinity.
            registry: where it is registered.
            label: name of its label, if it has one.
        """
        self._name, self._doc, self._bounds, self._label = name, doc, tuple(bounds), label
        self._series: dict[str, _Series] = {} if label else {"": _Series(self._bounds)}
        registry.register(self)

    def observe(self, value: float, label: str = "") -> None:
        """Add a value."""
        series = self._series.get(label)
        if series is None:
            series = self._series[label] = _Series(self._bounds)
        series.pending.append(value)
        if len(series.pending) >= _LOT:
            series.count()

    def observe_all(self, values: Sequence[float], label: str = "") -> None:
        """Add values."""
        series = self._series.get(label)
        if series is None:
            series = self._series[label] = _Series(self._bounds)
        series.pending.extend(values)
        if len(series.pending) >= _LOT:
            series.count()

    def example(self, value: float, trace_id: str, *, now: float, label: str = "") -> None:
        """Show a value that was added by its trace id.

        Args:
            value: of the observation.
            trace_id: W3C trace id, hex.
            now: seconds since 1970.
            label: value of the label.
        """
        self._series[label].example(value, trace_id, now)

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._doc, labels=[self._label] if self._label else [])

    def describe(self) -> list[Any]:
        """The family without samples: registration needs no values."""
        return [self._family()]

    def collect(self) -> Iterator[Any]:
        """The family with cumulative buckets."""
        family = self._family()
        for label, series in tuple(self._series.items()):
            series.count()
            cumulative = np.cumsum(series.counts).tolist()
            names = [*(repr(float(bound)) for bound in self._bounds), "+Inf"]
            # None where a bucket has no exemplar
            buckets: list[Any] = [
                (name, float(count), series.examples.get(i))
                for i, (name, count) in enumerate(zip(names, cumulative, strict=True))
            ]
            family.add_metric([label] if self._label else [], buckets, series.total)
        yield family
