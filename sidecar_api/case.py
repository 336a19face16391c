"""A step that is being concluded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sidecar_api.decision import Facts
from sidecar_api.draft import Draft
from sidecar_api.turn import Turn
from tcd.rows import ScoreResult, ScoreRow


@dataclass(slots=True, eq=False)
class Case:
    """A step that is being concluded.

    Attributes:
        turn, row: of the step.
        result: of the ensemble, None where none counts; `failure` says why.
        done: what its answer waits for.
        began: `perf_counter` when there was evidence; `settled` when all was handed over.
        passed: whether it has begun to change the session.
        step: its number.
        facts, draft, body: of the answer.
        moved: whether the controller has events that must become durable first.
        error: a defect on the way.
    """

    turn: Turn
    row: ScoreRow
    result: ScoreResult | None
    failure: str
    done: asyncio.Future[None]
    began: float
    settled: float = 0.0
    passed: bool = False
    step: int = 0
    facts: Facts = field(init=False)
    draft: Draft = field(init=False)
    body: bytes = b""
    moved: bool = False
    error: Exception | None = None
