"""Metrics of the transparency log."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class LogMetrics:
    """Checkpoints and cosignatures. Witnesses are named as in the policy file, so there are few."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Make the series in `registry`."""
        self._size = Gauge("tcd_log_size", "Leaves of the newest checkpoint.", registry=registry)
        self._pending = Gauge("tcd_log_pending", "Receipts that no checkpoint covers yet.", registry=registry)
        self._time = Gauge(
            "tcd_log_checkpoint_timestamp_seconds", "When the newest checkpoint was published.", registry=registry
        )
        self._checkpoints = Counter("tcd_log_checkpoints", "Checkpoints by result.", ["result"], registry=registry)
        self._cosigned = Counter(
            "tcd_log_cosignatures", "Cosignatures by witness and result.", ["witness", "result"], registry=registry
        )
        self._appended = 0
        self._covered = 0

    def appended(self, size: int) -> None:
        """The ledger has `size` receipts."""
        self._appended = max(self._appended, size)
        self._pending.set(self._appended - self._covered)

    def published(self, size: int, *, time: float) -> None:
        """A checkpoint of `size` leaves is out since `time` (seconds since 1970)."""
        self._covered = size
        self._size.set(size)
        self._time.set(time)
        self.appended(size)

    def made(self, result: str) -> None:
        """A checkpoint was `signed`, or `failed`, or is held back for want of a `no_quorum`."""
        self._checkpoints.labels(result).inc()

    def cosigned(self, witness: str, *, fine: bool) -> None:
        """A witness answered, or did not."""
        self._cosigned.labels(witness, "cosigned" if fine else "failed").inc()
