"""Counters of request rewriting."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from tcd.spotlight import Outcome


class SpotlightMetrics:
    """What rewriting did, without subjects and without text."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the counters."""
        self._zones = Counter(
            "tcd_spotlighting_zones", "Segments of requests.", ["kind", "origin", "shadow"], registry=registry
        )
        self._delta = Counter(
            "tcd_spotlighting_byte_delta", "Bytes that marking added to texts.", ["shadow"], registry=registry
        )
        self._collisions = Counter(
            "tcd_spotlighting_marker_collision", "Markers drawn that the request contained.", registry=registry
        )
        self._failures = Counter(
            "tcd_spotlighting_failures", "What could not be rewritten.", ["reason"], registry=registry
        )
        self._removed = Counter(
            "tcd_spotlighting_removed_characters", "Hidden characters taken out.", ["class"], registry=registry
        )

    def outcome(self, outcome: Outcome) -> None:
        """Count one rewriting."""
        shadow = "true" if outcome.shadow_mode else "false"
        for (kind, origin), count in outcome.zones.items():
            self._zones.labels(kind, origin, shadow).inc(count)
        # stripped tags may make a text shorter
        self._delta.labels(shadow).inc(max(0, outcome.byte_delta_total))
        self._collisions.inc(outcome.marker_collisions)
        for reason in outcome.failures:
            self._failures.labels(reason).inc()
        for name, count in outcome.removed.items():
            self._removed.labels(name).inc(count)
