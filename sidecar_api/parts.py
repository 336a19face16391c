"""What the dataplane is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sidecar_api.bindings import Bindings
from sidecar_api.budget import Budget
from sidecar_api.canary import Act
from sidecar_api.idempotency import Idempotency
from sidecar_api.outcome import Observer
from sidecar_api.patching import Patches
from sidecar_api.pins import Resolver
from sidecar_api.sessions import SessionTable
from sidecar_api.settle import Judge
from sidecar_api.subjects import Subjects
from tcd.config import Settings
from tcd.rows import Scorer


@dataclass(frozen=True, slots=True)
class Parts:
    """Each part is made by `sidecar_api.assembly`.

    `punctual`: the scorer answers or raises by a row's deadline, whatever happens; else it is cut off.
    """

    settings: Settings
    scorer: Scorer
    resolver: Resolver
    budget: Budget
    judge: Judge
    bindings: Bindings
    sessions: SessionTable
    idempotency: Idempotency
    subjects: Subjects
    observer: Observer
    now_us: Callable[[], int]
    random: Callable[[int], bytes]
    gpu: Callable[[], Mapping[str, float]] | None = None
    patches: Patches | None = None
    punctual: bool = False
    judge_canary: Act | None = None
