"""What a shim does before it serves from a ledger that was used before.

The controller's state is the fold of the event log, so nothing that was spent comes back. Hypotheses that were open
when the process ended are closed as abandoned: their cost is kept, their last settled p-value is folded. The windows
of their sessions are gone, so their chains end too; chains of epochs go on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sidecar_api.receipting import Receipts
from sidecar_api.settle import Judge
from tcd.ledger import Ledger
from tcd.receipts import ChainState, Receipt
from tcd.risk_av import Controller, ControllerParams

_PAGE = 4096
_CHAINS = 512


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found.

    Attributes:
        events: of the log.
        streams: with a budget.
        hypotheses, chains: closed as abandoned.
    """

    events: int
    streams: int
    hypotheses: int
    chains: int


async def recover(ledger: Ledger, judge: Judge) -> Recovered:
    """Bring the judge's controller to where the log ends, and close what cannot go on.

    Args:
        ledger: with the log, possibly empty.
        judge: with a controller that has no streams yet; its parameters are the settings'.

    Raises:
        ReplayError: an event does not follow from the ones before: the ledger was altered.
        Unavailable: the ledger cannot be read or written.
    """
    controller = judge.budget.controller
    wanted = controller.params
    events = 0
    while True:
        page = await ledger.events(first=events, limit=_PAGE)
        controller.fold(page.events)
        events += len(page.events)
        if len(page.events) < _PAGE:
            break
    _configure(controller, wanted, fresh=events == 0)
    hypotheses = 0
    for stream in controller.streams:
        for hypothesis in controller.open_hypotheses(stream):
            controller.close(stream=stream, hypothesis=hypothesis, reason="abandoned")
            hypotheses += 1
    await judge.put(())
    chains = await _chains(ledger, judge, judge.receipts) if judge.receipts is not None else 0
    return Recovered(events, len(controller.streams), hypotheses, chains)


def _configure(controller: Controller, wanted: ControllerParams, *, fresh: bool) -> None:
    """Log the settings' parameters where they are not the log's; streams keep the length their calibration gave."""
    if not fresh and controller.params == wanted:
        return
    schedules = {stream: controller.params_of(stream).schedule for stream in controller.streams}
    before = controller.params.schedule
    controller.configure(wanted)
    for stream, schedule in schedules.items():
        if schedule not in {before, wanted.schedule} and schedule[0] == wanted.schedule[0]:
            controller.configure(wanted.with_schedule(schedule), stream=stream)


async def _chains(ledger: Ledger, judge: Judge, receipts: Receipts) -> int:
    """Close the chains of sessions and operators, go on with those of epochs; how many were closed."""
    closed, after = 0, ""
    while page := await ledger.open_chains(after=after, limit=_CHAINS):
        after = page[-1].id
        ends: list[Receipt] = []
        for state in page:
            tenant, opened = await _first(ledger, state)
            over: ChainState | None = state
            if opened.get("scope") == "epoch":
                over = receipts.adopt(opened["stream"], opened["epoch"], state)
            if over is not None:
                ends.append(receipts.abandon(over, tenant))
        if ends:
            await judge.put(tuple(ends))
        closed += len(ends)
    return closed


async def _first(ledger: Ledger, state: ChainState) -> tuple[str, dict[str, Any]]:
    """Tenant of a chain and the `open` member of its first record; empty when that was erased."""
    for stored in await ledger.chain_records(state.id, limit=1):
        if stored.receipt is not None:
            body = json.loads(stored.receipt.body)
            return body["tenant"], body.get("open", {})
    return "-", {}
