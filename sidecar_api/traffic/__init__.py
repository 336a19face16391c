"""Traffic replayed: recorded or synthetic requests against a shim, or against two, whose decisions are compared."""

from __future__ import annotations

from sidecar_api.traffic.diff import Diff
from sidecar_api.traffic.drive import Side, Tally, run
from sidecar_api.traffic.lines import Bad, Line, Naming, items_of
from sidecar_api.traffic.outcome import Outcome
from sidecar_api.traffic.report import Replay, replayed

__all__ = ["Bad", "Diff", "Line", "Naming", "Outcome", "Replay", "Side", "Tally", "items_of", "replayed", "run"]
