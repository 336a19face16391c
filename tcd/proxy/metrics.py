"""Counters of the proxy, without subjects and without text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tcd.spotlight import Outcome
from tcd.telemetry.spotlighting import SpotlightMetrics


class ProxyMetrics:
    """What the proxy did."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the counters."""
        self.registry = registry
        self._spotlighting = SpotlightMetrics(registry)
        self._requests = Counter(
            "tcd_proxy_requests", "Requests to the routes that are rewritten.", ["route", "outcome"], registry=registry
        )
        self._failures = Counter(
            "tcd_proxy_upstream_failures", "Requests that the upstream did not finish.", ["reason"], registry=registry
        )
        self._rewriting = Histogram(
            "tcd_proxy_rewrite_seconds",
            "Time from the whole request to its forwarding.",
            buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
            registry=registry,
        )
        self._tokens = Counter(
            "tcd_proxy_tokens", "Tokens with a log-probability, judged or not.", ["outcome"], registry=registry
        )
        self._diagnoses = Counter("tcd_proxy_diagnoses", "Calls of /diagnose.", ["outcome"], registry=registry)
        self._unjudged = Counter(
            "tcd_proxy_unjudged", "Generations or parts of them that were not judged.", ["reason"], registry=registry
        )
        self._stopped = Counter("tcd_proxy_stopped", "Generations that were ended.", ["action"], registry=registry)
        self.open = Gauge("tcd_proxy_generations_open", "Answers that are being watched.", registry=registry)

    def request(self, route: str, outcome: str) -> None:
        """Count a request: `forwarded`, `rewritten`, `refused`, `disconnected`, `failed`."""
        self._requests.labels(route, outcome).inc()

    def failed(self, reason: str) -> None:
        """Count a request that the upstream did not finish."""
        self._failures.labels(reason).inc()

    def rewritten(self, outcome: Outcome, seconds: float) -> None:
        """Count a rewriting."""
        self._spotlighting.outcome(outcome)
        self._rewriting.observe(seconds)

    def diagnosed(self, tokens: int) -> None:
        """Count a decision about some tokens."""
        self._diagnoses.labels("decided").inc()
        self._tokens.labels("judged").inc(tokens)

    def undecided(self, outcome: str, tokens: int) -> None:
        """Count a call that gave no decision (`failed`, or `skipped` while the shim is away), and its tokens."""
        self._diagnoses.labels(outcome).inc()
        self._tokens.labels("lost").inc(tokens)

    def lost(self, tokens: int) -> None:
        """Count tokens that were never sent."""
        self._tokens.labels("lost").inc(tokens)

    def unjudged(self, reason: str) -> None:
        """Count an answer that could not be judged, or not to its end."""
        self._unjudged.labels(reason).inc()

    def stopped(self, action: str) -> None:
        """Count a generation that was ended."""
        self._stopped.labels(action).inc()
