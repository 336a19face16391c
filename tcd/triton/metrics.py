"""Custom metrics of the models on Triton's /metrics: rows, batch sizes, failures, status bits.

Each touch of a metric is a round trip to the server's process, so counts are gathered and go out at most
every `FLUSH_SECONDS`. Triton's own histograms take one observation a time, so that of batch sizes is made of
counters with the names and labels that a histogram has.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd.contract import Status

#: The health canary runs each second, so no count waits much longer than that.
FLUSH_SECONDS: Final = 0.5
#: Rows of an execution and the label `le` of their bucket.
BUCKETS: Final = (*((size, str(size)) for size in (1, 2, 4, 8, 16, 32, 64, 128, 256)), (math.inf, "+Inf"))
#: Plain integers: the operators of IntFlag are slow.
_BITS: Final = tuple((int(s), str(s.name).lower()) for s in Status if s)


class ModelMetrics:
    """Metric objects of one model instance."""

    def __init__(self, pb: Any, model: str) -> None:
        """Register the metrics.

        Args:
            pb: `triton_python_backend_utils`, as Triton gives it to the stub.
            model: name of the model, the label of all series.
        """
        family = pb.MetricFamily
        self._families = {
            "rows": family("tcd_model_rows_total", "Rows computed by a model", family.COUNTER),
            "failures": family("tcd_model_failures_total", "Rows or asset reloads that failed", family.COUNTER),
            "status": family("tcd_model_status_total", "Rows by status bit of their step", family.COUNTER),
            "bucket": family("tcd_model_batch_rows_bucket", "Executions of at most `le` rows", family.COUNTER),
            "sum": family("tcd_model_batch_rows_sum", "Rows of all executions", family.COUNTER),
            "count": family("tcd_model_batch_rows_count", "Executions", family.COUNTER),
        }
        label = {"model": model}
        self._rows = self._families["rows"].Metric(labels=label)
        self._failures = self._families["failures"].Metric(labels=label)
        self._sum = self._families["sum"].Metric(labels=label)
        self._count = self._families["count"].Metric(labels=label)
        self._buckets = [self._families["bucket"].Metric(labels=label | {"le": name}) for _, name in BUCKETS]
        self._model = model
        self._status: dict[str, Any] = {}
        self._waiting_rows = 0
        self._waiting_sizes: list[int] = []
        self._waiting_failures = 0
        self._waiting_status: list[NDArray[np.generic]] = []
        self._waiting_bits = np.zeros(len(_BITS), np.int64)
        self._due = 0.0

    def batch(self, rows: int, status: NDArray[np.generic] | None) -> None:
        """Count a batch of rows and the status bits of its step."""
        self._waiting_rows += rows
        self._waiting_sizes.append(rows)
        if status is not None:
            # a copy: the batch that it is a view of can be large
            self._waiting_status.append(status.copy())

    def count_in(self, bits: NDArray[np.int64]) -> None:
        """Rows by status bit are counted in `bits` by others, who find it zero after each flush."""
        self._waiting_bits = bits

    def failure(self, reason: str) -> None:
        """Count a failure and write its reason to the server's log."""
        self._waiting_failures += 1
        sys.stderr.write(f"{self._model}: {reason}\n")

    def flush_if_due(self) -> None:
        """Send the counts when the last time is long enough ago."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + FLUSH_SECONDS
            self.flush()

    def flush(self) -> None:
        """Send the counts."""
        if self._waiting_sizes:
            self._rows.increment(float(self._waiting_rows))
            self._sum.increment(float(self._waiting_rows))
            self._count.increment(float(len(self._waiting_sizes)))
            for (most, _), metric in zip(BUCKETS, self._buckets, strict=True):
                within = sum(rows <= most for rows in self._waiting_sizes)
                if within:
                    metric.increment(float(within))
            self._waiting_rows = 0
            self._waiting_sizes.clear()
        if self._waiting_failures:
            self._failures.increment(float(self._waiting_failures))
            self._waiting_failures = 0
        if self._waiting_status:
            status = np.concatenate(self._waiting_status, axis=None).astype(np.int32)
            self._waiting_bits += [np.count_nonzero(status & bit) for bit, _ in _BITS]
            self._waiting_status.clear()
        if self._waiting_bits.any():
            self._count_status(self._waiting_bits.tolist())
            self._waiting_bits[:] = 0

    def _count_status(self, rows: list[int]) -> None:
        """Send how many rows have each status bit."""
        for (_, name), hits in zip(_BITS, rows, strict=True):
            if hits and name not in self._status:
                labels = {"model": self._model, "status": name}
                self._status[name] = self._families["status"].Metric(labels=labels)
            if hits:
                self._status[name].increment(float(hits))
