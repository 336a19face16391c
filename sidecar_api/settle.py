"""From evidence to a durable answer: settle, decide, sign, commit, encode.

The first stage of `conclude` changes all of a step's state; until the last one has handed it to the ledger nothing
runs but stages of other steps. Then it waits for the commit, and degrades the answer when there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from time import perf_counter

import msgspec

from sidecar_api import evidence
from sidecar_api.budget import Budget
from sidecar_api.case import Case
from sidecar_api.commit import Committer
from sidecar_api.cutoff import Cutoff
from sidecar_api.decision import Facts
from sidecar_api.draft import Draft
from sidecar_api.idempotency import Idempotency
from sidecar_api.line import Line
from sidecar_api.mending import Mender
from sidecar_api.outcome import Answer, Observer
from sidecar_api.receipting import Receipts
from sidecar_api.sessions import Session
from sidecar_api.signal_log import SignalLog
from sidecar_api.states import StateKeeper
from sidecar_api.trusting import TrustFeed, parties
from sidecar_api.turn import JudgeRules, Pressure, Turn, decided
from tcd.contract import Status, pack_status
from tcd.errors import Conflict, NotFound, TcdError
from tcd.ledger import Idempotent
from tcd.receipts import Receipt
from tcd.risk_av import CloseReason, Event, LevelMismatch
from tcd.rows import ScoreResult, ScoreRow
from tcd.trust import Node

_LOG = logging.getLogger(__name__)
_ANY_FAILED = pack_status(int(Status.FAILED), int(Status.FAILED), int(Status.FAILED))
#: Seconds that a commit has at least, whatever is left of the deadline: the loop turns once or twice before it begins.
_LEAST = 0.005


class Judge:
    """Concludes steps and closes sessions."""

    def __init__(
        self,
        rules: JudgeRules,
        *,
        budget: Budget,
        receipts: Receipts | None,
        committer: Committer,
        idempotency: Idempotency,
        observer: Observer,
        now_us: Callable[[], int],
        keeper: StateKeeper | None = None,
    ) -> None:
        """Assemble; `receipts` None = receipts are off, `keeper` None = no states are saved."""
        self.rules = rules
        self.receipts = receipts
        self.budget = budget
        self._committer = committer
        self._idempotency = idempotency
        self._observer = observer
        self._now_us = now_us
        self.keeper = keeper
        self.trust: TrustFeed | None = None
        self.mender: Mender | None = None
        self.signals: SignalLog | None = None
        self.pressure = Pressure()
        stages = (self._settled, self._prepared, self._written, self._signed, self._encoded, self._handed)
        self._line: Line[Case] = Line(stages, self._failed)

    # -- evidence ------------------------------------------------------------------------------------------

    @staticmethod
    def problem(turn: Turn, row: ScoreRow, result: ScoreResult) -> str:
        """Why a result cannot be settled, or empty: `assets`, `answer` or `step_failed`."""
        if evidence.problem(row, result, turn.pins):
            return "answer"
        if evidence.foreign_assets(result, turn.pins):
            return "assets"
        return "step_failed" if result.status & _ANY_FAILED else ""

    def _settle(self, turn: Turn, result: ScoreResult) -> str:
        """Move the session by one step; a reason when the controller does not accept the evidence."""
        session = turn.session
        if turn.reservation is not None and self.rules.unit == "block":
            session.sup = result.sup
            session.blocks = session.blocks.step(turn.staged.tokens, turn.staged.trace, turn.staged.entropy)
            session.p = session.blocks.p
        elif turn.reservation is not None:
            stream, name, p, trigger = session.stream, session.hypothesis, result.p_value, result.trigger
            # a hypothesis has its smallest p-value: most steps do not lower it
            if not self.budget.unmoved(stream, name, p=p, trigger=trigger):
                try:
                    settlement = self.budget.settle(stream, name, p=p, trigger=trigger)
                except (LevelMismatch, Conflict, NotFound, ValueError):
                    self.budget.fail(stream, name)
                    return "answer"
                session.p = settlement.p
                session.triggered = session.triggered or settlement.trigger
                turn.first = settlement.first
            # calls of one session may overlap at direct callers
            session.sup = (max(session.sup[0], result.sup[0]), max(session.sup[1], result.sup[1]))
        session.window.commit(turn.staged)
        if self.signals is not None and not turn.caller:
            self.signals.step(session, turn.request)
        session.hold = session.hold.step(turn.rules.hold, score=result.score, alarm=result.verdict, route=result.route)
        session.steps += 1
        if turn.request.step_id is not None:
            session.last_step = turn.request.step_id
        return ""

    # -- conclusion ----------------------------------------------------------------------------------------

    async def conclude(self, turn: Turn, row: ScoreRow, result: ScoreResult | None, failure: str) -> Answer:
        """Settle, decide, commit and answer; together with the steps that come in the same turn of the loop."""
        case = Case(turn, row, result, failure, asyncio.get_running_loop().create_future(), perf_counter())
        self._line.add(case)
        lost = await self._concluded(case)
        if case.error is not None:
            raise case.error
        draft, seconds = case.draft, perf_counter() - case.settled
        turn.stages.add("commit", seconds)
        if lost:
            draft = self._draft(case, case.failure or "ledger")
            draft.lose()
            draft.prepare()
            case.body = draft.encode(lost, self._verify_key)
        else:
            self._observer.commit(seconds=seconds)
            if self.trust is not None and turn.first:
                self.trust.seen(_parties(turn), good=False, evidence=turn.session.hypothesis)
        seen = draft.observation(perf_counter() - turn.began)
        self.pressure.seen(seen.seconds)
        return Answer(case.body, turn.request.session, turn.quota, turn.stages, seen)

    async def _concluded(self, case: Case) -> str:
        """Empty when the step is durable, else why it is not (in time)."""
        try:
            return await self._durable(case.turn, case.done)
        finally:
            # who goes away, or has no time, leaves no step half done: the session is another's from here on
            if not case.passed:
                self._line.hurry(case)

    def _settled(self, case: Case) -> None:
        """First stage: what the step changes. The later ones only write it down."""
        turn, result = case.turn, case.result
        case.passed = True
        case.step = turn.request.step_id if turn.request.step_id is not None else turn.session.steps
        if result is not None:
            case.failure = self._settle(turn, result)
            case.result = None if case.failure else result
        case.facts = self._facts(turn, case.result, case.failure)
        case.draft = self._draft(case, case.failure)
        case.moved = self.budget.unsaved

    def _prepared(self, case: Case) -> None:
        case.draft.prepare()

    def _written(self, case: Case) -> None:
        case.draft.write(self.receipts)

    def _signed(self, case: Case) -> None:
        case.draft.sign(self.receipts)

    def _encoded(self, case: Case) -> None:
        case.body = case.draft.encode("", self._verify_key)

    def _handed(self, case: Case) -> None:
        """Last stage: to the ledger."""
        self._commit(case)
        case.settled = perf_counter()
        case.turn.stages.add("settle", case.settled - case.began)

    def _failed(self, case: Case, error: Exception) -> None:
        """A defect: whoever waits hears of it, and what was settled is in the log all the same."""
        case.error = error
        if case.done.done():
            _LOG.error("a step whose client went away failed", exc_info=error)
        else:
            case.done.set_result(None)
        draft: Draft | None = getattr(case, "draft", None)
        if draft is not None:
            draft.abandon()
        if self.budget.unsaved:
            self.put(())

    def _draft(self, case: Case, failure: str) -> Draft:
        turn, known = case.turn, case.facts
        if failure and not known.failed:
            known = msgspec.structs.replace(known, failed=True)
        return Draft(
            turn,
            case.row,
            case.result,
            failure=failure,
            decision=decided(turn, known),
            step=case.step,
            known=known,
            rules=self.rules,
            view=self.budget.view(turn.session.stream),
        )

    @property
    def _verify_key(self) -> str | None:
        return self.receipts.issuer.verify_key_hex if self.receipts is not None else None

    def _facts(self, turn: Turn, result: ScoreResult | None, failure: str) -> Facts:
        session, floor = turn.session, turn.rules.entropy_floor
        entropy = turn.staged.entropy
        known = Facts(
            tier=result.tier if result is not None else 0,
            route=result.route if result is not None else None,
            trigger=session.triggered,
            alarm=session.hold.on or (result is not None and result.verdict),
            held=session.hold.route,
            floor=floor is not None and entropy.size > 0 and float(entropy[-1]) < floor,
            exhausted=turn.reservation is not None and turn.reservation.exhausted,
            failed=bool(failure),
        )
        if turn.rules.bound is None and not turn.rules.record:
            return known
        view = self.budget.view(session.stream)
        return msgspec.structs.replace(
            known,
            score=result.score if result is not None else 0.0,
            spent=view.spent / view.alpha,
            distrust=self.trust.distrust(_parties(turn)) if self.trust is not None else 0.0,
            pressure=self.pressure.value,
        )

    def _commit(self, case: Case) -> None:
        """Hand over what has to be durable; a step that changed nothing is done."""
        turn, receipts, body = case.turn, case.draft.receipts, case.body
        answers: tuple[Idempotent, ...] = ()
        if turn.claim is not None:
            head = receipts[-1].head_hex if receipts else ""
            answers = (self._idempotency.record(turn.claim, body, head, now_us=self._now_us()),)
        budget, committer = self.budget, self._committer
        if receipts or answers or case.moved or budget.leased or committer.carries:
            session = turn.session
            self.put(receipts or (), answers=answers, lost=lambda: self._lose_chain(session), done=case.done)
        elif not case.done.done():
            case.done.set_result(None)

    def put(
        self,
        receipts: tuple[Receipt, ...],
        *,
        answers: tuple[Idempotent, ...] = (),
        erase: tuple[int, ...] = (),
        lost: Callable[[], None] | None = None,
        done: asyncio.Future[None] | None = None,
    ) -> asyncio.Future[None]:
        """Hand records, and all events of the controller so far, to the ledger; see `Committer.put`."""
        events = self.budget.take_events()
        issuer = self.receipts
        try:
            epochs = issuer.epochs(events, self.budget.tenant) if issuer is not None and events else []
        except Exception:
            # a defect of the issuer; what was spent is in the log all the same
            self._counted(events, self._committer.put(events=events))
            raise

        def failed() -> None:
            if issuer is not None:
                issuer.forget_epochs()
            if lost is not None:
                self._observer.gap()
                lost()

        done = self._committer.put(
            receipts=(*epochs, *receipts) if epochs else receipts,
            events=events,
            answers=answers,
            erase=erase,
            lost=failed,
            done=done,
        )
        self._counted(events, done)
        return done

    def _counted(self, events: tuple[Event, ...], durable: asyncio.Future[None]) -> None:
        if self.keeper is not None and events:
            self.keeper.handed(len(events), durable)

    async def flush(self) -> None:
        """Wait until everything that was put is durable, or failed."""
        await self._committer.flush()

    async def finish(self) -> None:
        """Make everything durable, and save the state where the log ends."""
        self.put(())
        await self.flush()
        if self.keeper is not None and not self._committer.carries:
            await self.keeper.finish()

    async def _durable(self, turn: Turn, committed: asyncio.Future[None]) -> str:
        """Empty when the step is durable, else why it is not (in time)."""
        try:
            with Cutoff(max(turn.call.deadline, asyncio.get_running_loop().time() + _LEAST), "not durable in time"):
                # a client that goes away cancels the waiting, not the commit
                await committed
        except TcdError as error:
            return error.detail
        return ""

    async def reserved(self, turn: Turn) -> str:
        """Make a new reservation durable before there is any evidence: empty, or why it is not (in time).

        A crash can then lose what was spent, but never spend it again. What was leased is durable already.
        """
        if not self.rules.durable or self.budget.leased:
            return ""
        return await self._durable(turn, self.put(()))

    def close(self, session: Session, reason: CloseReason) -> None:
        """End a session's hypothesis and chain."""
        if session.hypothesis:
            self.judge_blocks(session)
            self.budget.close(session.stream, session.hypothesis, reason)
            # a rejection is evidence when it happens; blocks are judged only now
            judged = not session.triggered or self.rules.unit == "block"
            if self.trust is not None and session.steps and judged:
                tenant, _, _ = session.subject
                nodes = parties(session.names[0], tenant, session.user, {"tool": session.tool})
                self.trust.seen(nodes, good=not session.triggered, evidence=session.hypothesis)
        receipts: tuple[Receipt, ...] = ()
        if self.receipts is not None:
            snapshot = self.budget.view(session.stream).snapshot
            closed = self.receipts.close(session, reason, snapshot)
            receipts = (closed,) if closed is not None else ()
        if self.mender is not None and receipts:
            mender, ended = self.mender, receipts[0].next()
            self.put(receipts, lost=lambda: mender.cut(ended, session.subject[0]))
        else:
            self.put(receipts)

    def _lose_chain(self, session: Session) -> None:
        """Its last record never became durable: a new chain begins with the next one."""
        chain, session.chain = session.chain, None
        if chain is not None and self.mender is not None:
            self.mender.cut(chain, session.subject[0])

    def judge_blocks(self, session: Session) -> None:
        """Unit block: the session's e-value meets its level now; it cannot route earlier."""
        reservation, p = session.reservation, session.blocks.p
        if self.rules.unit == "block" and reservation is not None and session.blocks.seen:
            trigger = p <= reservation.alpha
            with contextlib.suppress(Conflict, NotFound):  # already closed at the horizon
                self.budget.settle(session.stream, session.hypothesis, p=p, trigger=trigger)
            session.triggered = session.triggered or trigger


def _parties(turn: Turn) -> tuple[Node, ...]:
    session, context = turn.session, turn.request.context
    tool = context.get("tool")
    if isinstance(tool, str):
        session.tool = tool
    return parties(session.names[0], session.subject[0], session.user, context)
