"""Carries out what a canary's watch found: a record in the log, then the manifest of the live directory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from sidecar_api.canary import Act, Verdict
from sidecar_api.settle import Judge
from tcd.calibration import canary as trials
from tcd.calibration.assets import Canary
from tcd.errors import TcdError
from tcd.telemetry import LogWriter

_ACTOR: Final = "canary"


def canary_act(live: Path, judge: Judge, logs: LogWriter) -> Act:
    """Ends or completes the trial in `live`; each act is an `admin` record of the log before it is done."""

    async def act(canary: Canary, verdict: Verdict, figures: dict[str, Any]) -> None:
        passed = verdict == "passed"
        action = "calibration.canary.promote" if passed else f"calibration.canary.rollback.{verdict}"
        done, why = False, ""
        try:
            await _record(judge, action, canary.id)
            done = await asyncio.to_thread(trials.complete if passed else trials.end, live, canary.id)
        except (TcdError, OSError) as error:
            why = error.detail if isinstance(error, TcdError) else str(error.strerror)
            await _record(judge, f"{action}.failed", canary.id)
        logs.write("warning", "canary", action=action, done=done, why=why, **figures)

    return act


async def _record(judge: Judge, action: str, digest: str) -> None:
    receipts = judge.receipts
    if receipts is not None:
        await judge.put(receipts.admin(action, digest, actor=_ACTOR), lost=receipts.forget_acts)
