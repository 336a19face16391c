"""Under which hypothesis a step is: its key, the pins that it is settled on, and what is reserved for it."""

from __future__ import annotations

import asyncio
import itertools

from sidecar_api import staging
from sidecar_api.blocks import Blocks
from sidecar_api.canary import NOTE, STREAM, Watch
from sidecar_api.cutoff import Cutoff
from sidecar_api.lifecycle import Lifecycle
from sidecar_api.parts import Parts
from sidecar_api.pins import Key
from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.sessions import Session
from sidecar_api.turn import Turn
from tcd.calibration.assets import Canary
from tcd.contract import SUP_START, Flag
from tcd.errors import Unavailable
from tcd.risk_av import Reservation

#: Share of a deadline, and seconds of it, that are kept back for settling and answering.
_MARGIN_SHARE = 0.1
_MARGIN = 0.02
_UNITS = {"session": Flag(0), "request": Flag.UNIT_REQUEST, "block": Flag.UNIT_BLOCK}


def margin(left: float) -> float:
    """Seconds of the `left` ones that are kept back."""
    return min(_MARGIN, _MARGIN_SHARE * max(left, 0.0))


class Hypotheses:
    """Opens the hypotheses of sessions and reserves for them."""

    def __init__(self, parts: Parts, lifecycle: Lifecycle, watch: Watch) -> None:
        """Over the budget of `parts`; `watch` hears of the sessions that become a canary's."""
        self._resolver = parts.resolver
        self._budget = parts.budget
        self._judge = parts.judge
        self._subjects = parts.subjects
        self._lifecycle = lifecycle
        self._watch = watch
        self._unit = parts.settings.unit
        self._numbers = itertools.count(1)
        self._boot = parts.random(8).hex()
        #: Unit of the hypotheses, as rows carry it.
        self.unit_flag = _UNITS[self._unit]

    def routes(self, reservation: Reservation | None) -> bool:
        """Whether a row can trigger: blocks are judged when the session closes."""
        return reservation is not None and self._unit != "block"

    def key(self, session: Session, request: DiagnoseRequest) -> Key:
        """The key of a step; that of a canary where the session is one of its."""
        key = staging.key(request)
        if self._resolver.canary is None and self._watch.trial is None:
            return key
        # as of now: the newest pins may be older than the end of the trial
        canary = self._resolver.current().canary
        self._watch.of(canary)
        if canary is None:
            return key
        if not (session.canary or session.steps or session.pins) and canary.covers(session.digest, key):
            self._try(session, canary)
        return canary.key(key) if session.canary == canary.id else key

    def _try(self, session: Session, canary: Canary) -> None:
        """Make a generation the canary's: neither what it spends nor what it rejects is the guaranteed stream's."""
        home = session.stream
        session.stream = self._subjects.stream(session.subject, unit=self._unit, mark=STREAM)
        session.canary = canary.id
        try:
            self._open_stream(session)
        except Unavailable:
            # no room for another stream: it is judged as all others
            session.stream, session.canary = home, ""
            return
        session.home, session.notes = home, (*session.notes, NOTE)
        self._watch.began(session)

    def _open_stream(self, session: Session) -> None:
        # the stream may have gone to rest since the session began
        tenant = session.subject[0]
        pool = self._subjects.tenant(tenant + (STREAM if session.canary else ""))
        self._budget.open(session.stream, tenant, pool=pool)

    async def reservable(self, turn: Turn) -> str:
        """See that `pin` can reserve at once: empty, or why it cannot (in time).

        Where the budget is leased, the session is settled on its pins first, then a lease is waited for.
        """
        budget, session = self._budget, turn.session
        if turn.lost:
            return turn.lost
        if not budget.leased or not self._wants(turn):
            return ""
        self._open_stream(session)
        left = turn.call.deadline - asyncio.get_running_loop().time()
        try:
            with Cutoff(turn.call.deadline - margin(left), "no lease in time"):
                await budget.prepare(session.stream, length=turn.pins.length)
        except Unavailable:
            return "ledger"
        return ""

    def pin(self, turn: Turn) -> Reservation | None:
        """Reserve the session's hypothesis, or go on with it; None when this step is under none."""
        session, pins = turn.session, turn.pins
        if not self._wants(turn):
            return session.reservation if pins.mask and not session.beyond and pins.p_floor < 1.0 else None
        session.hypothesis = f"{session.digest[7:23]}.{self._boot}.{next(self._numbers)}"
        self._open_stream(session)
        session.reservation = self._budget.reserve(
            session.stream, session.hypothesis, user=session.user, length=pins.length
        )
        turn.cost += session.reservation.cost
        turn.reserved = True
        return session.reservation

    def _wants(self, turn: Turn) -> bool:
        """Settle the session on the step's pins; whether it needs a reservation then."""
        session, pins, tokens = turn.session, turn.pins, turn.staged.tokens
        if not pins.mask:
            return False
        known = session.pins
        # a chain's first record names the pins: other ones are another chain, also the first after none
        if not known.same(pins) if known is not None else session.chain is not None:
            self._lifecycle.end(session, "pin_changed")
            session.sup = (SUP_START, SUP_START)
            session.p = 1.0
            session.blocks = Blocks()
            session.hypothesis = ""
            session.reservation = None
            session.beyond = False
        session.names = staging.names(turn.request)
        session.pins = pins
        if pins.horizon and tokens > pins.horizon and not session.beyond:
            if session.hypothesis:
                self._judge.judge_blocks(session)
                self._budget.close(session.stream, session.hypothesis, "horizon")
            session.beyond = True
        return not session.beyond and pins.p_floor < 1.0 and session.reservation is None
