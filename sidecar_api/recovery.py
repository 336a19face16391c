"""What a shim does before it serves from a ledger that was used before.

The controller's state is the fold of the event log, so nothing that was spent comes back. A saved state stands for the
events before it; one that is damaged, or that the later events do not follow from, is passed over.

Hypotheses that were open when the process ended are closed as abandoned: their cost is kept, their last settled p-value
is folded. The windows of their sessions are gone, so their chains end too; chains of epochs go on.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

from sidecar_api.receipting import Receipts
from sidecar_api.settle import Judge
from tcd.errors import Unavailable
from tcd.ledger import Ledger, StoredReceipt
from tcd.receipts import ChainState, Receipt
from tcd.risk_av import Controller, ControllerParams, ReplayError

_LOG = logging.getLogger(__name__)
_PAGE = 4096
_CHAINS = 512


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was found.

    Attributes:
        events: of the log.
        saved: how many of them a saved state stood for, 0 = all were folded.
        streams: with a budget.
        hypotheses, chains: closed as abandoned.
    """

    events: int
    saved: int
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
    events, saved = await restore(ledger, controller)
    if judge.keeper is not None:
        judge.keeper.begin(events, saved)
    _configure(controller, wanted, fresh=events == 0)
    hypotheses = 0
    for stream in controller.streams:
        for hypothesis in controller.open_hypotheses(stream):
            controller.close(stream=stream, hypothesis=hypothesis, reason="abandoned")
            hypotheses += 1
    await judge.put(())
    chains = await _chains(ledger, judge, judge.receipts) if judge.receipts is not None else 0
    return Recovered(events, saved, len(controller.streams), hypotheses, chains)


async def restore(ledger: Ledger, controller: Controller) -> tuple[int, int]:
    """Bring the controller to where the log ends: events of the log, and those that a saved state stood for."""
    for saved in await ledger.states():
        candidate = Controller(controller.params)
        try:
            candidate.restore((await ledger.state(saved)).data)
            events = await _fold(ledger, candidate, saved)
        except (ReplayError, Unavailable) as error:
            _LOG.warning("the saved state after %d events is passed over: %s", saved, error)
            continue
        controller.take_over(candidate)
        return events, saved
    return await _fold(ledger, controller, 0), 0


async def _fold(ledger: Ledger, controller: Controller, first: int) -> int:
    """Fold the events from position `first` on; where the log ends."""
    while True:
        page = await ledger.events(first=first, limit=_PAGE)
        controller.fold(page.events)
        first += len(page.events)
        if len(page.events) < _PAGE:
            return first


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
        firsts = await ledger.first_records([state.id for state in page])
        for state in page:
            tenant, members = opened(firsts.get(state.id))
            over: ChainState | None = state
            if members.get("scope") == "epoch":
                over = receipts.adopt(members["stream"], members["epoch"], state)
            if over is not None:
                ends.append(receipts.abandon(over, tenant))
        if ends:
            await judge.put(tuple(ends))
        closed += len(ends)
    return closed


def opened(first: StoredReceipt | None) -> tuple[str, dict[str, Any]]:
    """Tenant of a chain and the `open` member of its first record; empty when that was erased."""
    if first is None or first.receipt is None:
        return "-" if first is None or first.stub is None else first.stub.tenant, {}
    body = json.loads(first.receipt.body)
    return body["tenant"], body.get("open", {})
