"""Where time, randomness and the outside come into a shim."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar_api.http.runtime import Spans
from tcd.ledger import Ledger
from tcd.risk_av import Controller
from tcd.telemetry import Exporter


@dataclass(frozen=True, slots=True)
class Edges:
    """The real ones by default; tests bring their own.

    Attributes:
        now_us: wall clock, microseconds since 1970.
        random: random bytes.
        ledger: None = in memory.
        controller: None = a new one.
        exporter: None = a new one; the launcher shares it with the batcher.
        checks: name to a function that says "" when ready, else why not.
        triton: what `/version` says of the server.
        spotlight_key: of nonces, 32 bytes; None = from the settings, `rewriting.spotlight_key`.
        spans: None = no tracing.
        folder: for what is kept beside the ledger: trust and patches; None = they end with the process.
        gpu: newest GPU sample, merged into the context of requests that do not bring their own.
    """

    now_us: Callable[[], int] = lambda: time.time_ns() // 1000
    random: Callable[[int], bytes] = os.urandom
    ledger: Ledger | None = None
    controller: Controller | None = None
    exporter: Exporter | None = None
    checks: Mapping[str, Callable[[], str]] | None = None
    triton: Mapping[str, Any] | None = None
    spotlight_key: bytes | None = None
    spans: Spans | None = None
    folder: Path | None = None
    gpu: Callable[[], Mapping[str, float]] | None = None
