"""What a rewriting did, and the finding that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tcd.spotlight.policy import Marking, Reason


class Ranges(NamedTuple):
    """Data of one text: byte offsets into its original content."""

    message: int
    part: int
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of `rewrite`.

    Attributes:
        body: what is forwarded; the bytes that came in unless `body_rewritten`.
        body_rewritten: whether `body` differs.
        refused: the policy fails closed and something failed: nothing may be forwarded.
        zones_marked: Data segments that were marked (in shadow mode: would have been).
        byte_delta_total: UTF-8 bytes that the texts grew by.
        marker_collisions: markers drawn that the request contained.
        zone_byte_ranges_per_message: where the Data is, marked before or now.
        marker, nonce: of the request's envelope; "" when nothing is marked.
        marking: the envelope's.
        reminder_added: the system text was extended.
        shadow_mode: the policy's.
        failures: reasons, one per thing that failed.
        zones: segments by kind and origin.
        removed: characters removed from Data, by class.
    """

    body: bytes
    body_rewritten: bool = False
    refused: bool = False
    zones_marked: int = 0
    byte_delta_total: int = 0
    marker_collisions: int = 0
    zone_byte_ranges_per_message: tuple[Ranges, ...] = ()
    marker: str = ""
    nonce: str = ""
    marking: Marking = "none"
    reminder_added: bool = False
    shadow_mode: bool = False
    failures: tuple[Reason, ...] = ()
    zones: Mapping[tuple[str, str], int] = field(default_factory=dict)
    removed: Mapping[str, int] = field(default_factory=dict)

    def finding(self) -> dict[str, Any] | None:
        """The finding `spotlighting_applied`; None when nothing was marked."""
        if not self.zones_marked:
            return None
        return {
            "name": "spotlighting_applied",
            "severity": "info",
            "marker_codepoint": " ".join(f"U+{ord(c):04X}" for c in self.marker),
            "byte_delta": self.byte_delta_total,
            "shadow_mode": self.shadow_mode,
            "zone_byte_ranges": self._ranges(),
        }

    def _ranges(self) -> list[dict[str, Any]]:
        return [
            {"message": r.message, "part": r.part, "ranges": [list(span) for span in r.ranges]}
            for r in self.zone_byte_ranges_per_message
        ]

    @property
    def digest(self) -> str:
        """`sha256:` of the body and of `to_json` without `refused`; as `context.rewrite` it is bound into receipts."""
        told = self.to_json()
        told.pop("refused")
        canonical = json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
        return "sha256:" + hashlib.sha256(hashlib.sha256(self.body).digest() + canonical).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """All of it but the body."""
        finding = self.finding()
        return {
            "body_rewritten": self.body_rewritten,
            "refused": self.refused,
            "zones_marked": self.zones_marked,
            "byte_delta_total": self.byte_delta_total,
            "marker_collisions": self.marker_collisions,
            "zone_byte_ranges_per_message": self._ranges(),
            "marking": self.marking,
            "marker": self.marker,
            "nonce": self.nonce,
            "reminder_added": self.reminder_added,
            "shadow_mode": self.shadow_mode,
            "failures": list(self.failures),
            "zones": [{"kind": k, "origin": o, "count": n} for (k, o), n in sorted(self.zones.items())],
            "removed_characters": dict(sorted(self.removed.items())),
            "findings": [] if finding is None else [finding],
        }
