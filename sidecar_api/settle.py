"""From evidence to a durable answer: settle, decide, sign, commit, encode.

`conclude` changes all of a step's state without an await; then it waits for the commit, and degrades the
answer when there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import msgspec

from sidecar_api import answer, claims, evidence
from sidecar_api.budget import Budget
from sidecar_api.commit import Committer
from sidecar_api.cutoff import Cutoff
from sidecar_api.decision import Bound, Decision, Facts, RouteTuple, Rules, decide, decide_by
from sidecar_api.idempotency import Claim, Idempotency
from sidecar_api.mending import Mender
from sidecar_api.outcome import Answer, Call, Observation, Observer, Quota, Stages
from sidecar_api.pins import Pins
from sidecar_api.receipting import Facts as ReceiptFacts
from sidecar_api.receipting import Receipts
from sidecar_api.schemas import Check, Components, DiagnoseRequest
from sidecar_api.sessions import Session
from sidecar_api.states import StateKeeper
from sidecar_api.trusting import TrustFeed, parties
from sidecar_api.windows import HoldRules, Staged
from tcd.contract import SUP_START, Status, pack_status
from tcd.errors import Conflict, NotFound, TcdError, VerificationError
from tcd.ledger import Idempotent
from tcd.multivariate import explain
from tcd.receipts import Receipt, records
from tcd.risk_av import CloseReason, LevelMismatch, Reservation, RuleName
from tcd.rows import ScoreResult, ScoreRow
from tcd.trust import Logged, Node, record
from tcd.trust.policies import SUBJECT

_ANY_FAILED = pack_status(int(Status.FAILED), int(Status.FAILED), int(Status.FAILED))
_encoder = msgspec.json.Encoder()


@dataclass(slots=True)
class Turn:
    """One step on its way through the dataplane; the members without a default are known from the start.

    `rules` are those in force when the step began: a reload in between does not change them. `lost` says why nothing
    can be reserved for it, or is empty. `caller` is the digest of the inputs that a direct caller sent to the ensemble,
    empty for the shim's own rows.
    """

    session: Session
    request: DiagnoseRequest
    call: Call
    quota: Quota
    claim: Claim | None
    stages: Stages
    began: float
    rules: JudgeRules
    staged: Staged = field(init=False)
    pins: Pins = field(init=False)
    base: RouteTuple = field(init=False)
    reservation: Reservation | None = None
    cost: float = 0.0
    reserved: bool = False
    first: bool = False
    caller: str = ""
    lost: str = ""


@dataclass(frozen=True, slots=True)
class JudgeRules:
    """What a conclusion follows from: the settings, and the policy of the subject where there is one.

    Attributes:
        decision: the settings' part of a decision.
        hold, entropy_floor: how scores become alarms.
        unit, rule, durable: of the controller.
        policy_ref, policy: name and digest of the policy.
        config_hash: digest of the settings.
        receipt, witness: whether decisions have receipts, and these have witness segments.
        bound: the table that decides; None = the settings do.
        deadline: seconds that a decision may take at most by policy.
        record: whether decisions go into the decision log.
        patches: names of the patches in force.
    """

    decision: Rules
    hold: HoldRules
    entropy_floor: float | None
    unit: str
    rule: RuleName
    durable: bool
    policy_ref: str
    policy: str
    config_hash: str
    receipt: bool = True
    witness: bool = True
    bound: Bound | None = None
    deadline: float = math.inf
    record: bool = False
    patches: tuple[str, ...] = ()


@dataclass(slots=True)
class Pressure:
    """Latency of late over its objective: an average whose memory is about a hundred decisions."""

    objective: float = math.inf
    value: float = 0.0

    def seen(self, seconds: float) -> None:
        """A decision took so long."""
        self.value += 0.01 * (seconds / self.objective - self.value)


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
        self._budget = budget
        self._committer = committer
        self._idempotency = idempotency
        self._observer = observer
        self._now_us = now_us
        self.keeper = keeper
        self.trust: TrustFeed | None = None
        self.mender: Mender | None = None
        self.pressure = Pressure()

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
            if not self._budget.unmoved(stream, name, p=p, trigger=trigger):
                try:
                    settlement = self._budget.settle(stream, name, p=p, trigger=trigger)
                except (LevelMismatch, Conflict, NotFound, ValueError):
                    self._budget.fail(stream, name)
                    return "answer"
                session.p = settlement.p
                session.triggered = session.triggered or settlement.trigger
                turn.first = settlement.first
            # calls of one session may overlap at direct callers
            session.sup = (max(session.sup[0], result.sup[0]), max(session.sup[1], result.sup[1]))
        session.window.commit(turn.staged)
        session.hold = session.hold.step(turn.rules.hold, score=result.score, alarm=result.verdict, route=result.route)
        session.steps += 1
        if turn.request.step_id is not None:
            session.last_step = turn.request.step_id
        return ""

    # -- conclusion ----------------------------------------------------------------------------------------

    async def conclude(self, turn: Turn, row: ScoreRow, result: ScoreResult | None, failure: str) -> Answer:
        """Settle, decide, commit and answer."""
        began = perf_counter()
        session = turn.session
        step = turn.request.step_id if turn.request.step_id is not None else session.steps
        if result is not None:
            failure = self._settle(turn, result)
            result = None if failure else result
        facts = self._facts(turn, result, failure)
        decision = _decided(turn, facts)
        draft = _Draft(self, turn, row, result, failure, decision, step, facts)
        receipt, state = draft.receipt()
        body = draft.encode(receipt, state, "")
        committed = self._commit(turn, receipt, body)
        settled = perf_counter()
        turn.stages.add("settle", settled - began)
        lost = "" if committed is None else await self._durable(turn, committed)
        seconds = perf_counter() - settled
        turn.stages.add("commit", seconds)
        if lost:
            failure = failure or "ledger"
            facts = msgspec.structs.replace(facts, failed=True)
            decision = _decided(turn, facts)
            draft = _Draft(self, turn, row, result, failure, decision, step, facts)
            receipt, state = None, "failed"
            body = draft.encode(None, state, lost)
        else:
            self._observer.commit(seconds=seconds)
            if self.trust is not None and turn.first:
                self.trust.seen(_parties(turn), good=False, evidence=session.hypothesis)
        seen = draft.observation(receipt, state, perf_counter() - turn.began)
        self.pressure.seen(seen.seconds)
        return Answer(body, turn.request.session, turn.quota, turn.stages, seen)

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
        view = self._budget.view(session.stream)
        return msgspec.structs.replace(
            known,
            score=result.score if result is not None else 0.0,
            spent=view.spent / view.alpha,
            distrust=self.trust.distrust(_parties(turn)) if self.trust is not None else 0.0,
            pressure=self.pressure.value,
        )

    def _commit(self, turn: Turn, receipts: tuple[Receipt, ...] | None, body: bytes) -> asyncio.Future[None] | None:
        """What to wait for; None = the step changed nothing that has to be durable."""
        answers: tuple[Idempotent, ...] = ()
        if turn.claim is not None:
            head = receipts[-1].head_hex if receipts else ""
            answers = (self._idempotency.record(turn.claim, body, head, now_us=self._now_us()),)
        budget, committer = self._budget, self._committer
        if not (receipts or answers or budget.unsaved or budget.leased or committer.carries):
            return None
        session = turn.session
        return self.put(receipts or (), answers=answers, lost=lambda: self._lose_chain(session))

    def put(
        self,
        receipts: tuple[Receipt, ...],
        *,
        answers: tuple[Idempotent, ...] = (),
        erase: tuple[int, ...] = (),
        lost: Callable[[], None] | None = None,
    ) -> asyncio.Future[None]:
        """Hand records, and all events of the controller so far, to the ledger."""
        events = self._budget.take_events()
        issuer = self.receipts
        epochs = issuer.epochs(events, self._budget.tenant) if issuer is not None and events else []

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
        )
        if self.keeper is not None and events:
            self.keeper.handed(len(events), done)
        return done

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
            with Cutoff(max(turn.call.deadline, asyncio.get_running_loop().time() + 0.001), "not durable in time"):
                # a client that goes away cancels the waiting, not the commit
                await committed
        except TcdError as error:
            return error.detail
        return ""

    async def reserved(self, turn: Turn) -> str:
        """Make a new reservation durable before there is any evidence: empty, or why it is not (in time).

        A crash can then lose what was spent, but never spend it again. What was leased is durable already.
        """
        if not self.rules.durable or self._budget.leased:
            return ""
        return await self._durable(turn, self.put(()))

    def close(self, session: Session, reason: CloseReason) -> None:
        """End a session's hypothesis and chain."""
        if session.hypothesis:
            self.judge_blocks(session)
            self._budget.close(session.stream, session.hypothesis, reason)
            # a rejection is evidence when it happens; blocks are judged only now
            judged = not session.triggered or self.rules.unit == "block"
            if self.trust is not None and session.steps and judged:
                tenant, _, _ = session.subject
                nodes = parties(session.names[0], tenant, session.user, {"tool": session.tool})
                self.trust.seen(nodes, good=not session.triggered, evidence=session.hypothesis)
        receipts: tuple[Receipt, ...] = ()
        if self.receipts is not None:
            snapshot = self._budget.view(session.stream).snapshot
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
                self._budget.settle(session.stream, session.hypothesis, p=p, trigger=trigger)
            session.triggered = session.triggered or trigger

    # -- parts of an answer, for the draft -----------------------------------------------------------------

    @property
    def budget(self) -> Budget:
        """The controller's front."""
        return self._budget


def _parties(turn: Turn) -> tuple[Node, ...]:
    session, context = turn.session, turn.request.context
    tool = context.get("tool")
    if isinstance(tool, str):
        session.tool = tool
    return parties(session.names[0], session.subject[0], session.user, context)


def _decided(turn: Turn, facts: Facts) -> Decision:
    decision = _by_rules(turn, facts)
    if not turn.rules.patches:
        return decision
    names = tuple(f"patch:{name}"[:64] for name in turn.rules.patches)
    return msgspec.structs.replace(decision, tags=(*decision.tags, *names)[:16])


def _by_rules(turn: Turn, facts: Facts) -> Decision:
    bound = turn.rules.bound
    if bound is None:
        return decide(turn.rules.decision, facts, policy=turn.pins.policy, base=turn.base)
    whose: dict[str, Any] = {}
    if bound.asks:
        request = turn.request
        whose = {**{name: getattr(request, name) for name in SUBJECT}, "context": request.context}
    return decide_by(bound, facts, policy=turn.pins.policy, base=turn.base, whose=whose)


def _risk(facts: Facts) -> records.Risk:
    return records.Risk(
        tier=facts.tier,
        alarm=facts.alarm,
        floor=facts.floor,
        failed=facts.failed,
        spent=facts.spent,
        distrust=facts.distrust,
        pressure=facts.pressure,
    )


class _Draft:
    """An answer in the making; encoded once, or twice when the commit fails."""

    __slots__ = (
        *("_claim", "_components", "_decision", "_failure", "_judge", "_known", "_result", "_row", "_situation"),
        *("_step", "_step_facts", "_turn"),
    )
    _components: Components
    _step_facts: answer.StepFacts

    def __init__(
        self,
        judge: Judge,
        turn: Turn,
        row: ScoreRow,
        result: ScoreResult | None,
        failure: str,
        decision: Decision,
        step: int,
        known: Facts,
    ) -> None:
        self._known = known
        self._judge = judge
        self._turn = turn
        self._row = row
        self._result = result
        self._failure = failure
        self._decision = decision
        self._step = step
        self._situation = claims.Situation(
            pins=turn.pins,
            status=result.status if result is not None else None,
            reserved=turn.reservation is not None,
            beyond=turn.session.beyond,
            notes=turn.session.notes,
            degraded=failure,
        )
        self._step_facts = self._facts()
        self._components = answer.components(self._step_facts)
        self._claim = self._guarantee()

    def _facts(self) -> answer.StepFacts:
        turn, session = self._turn, self._turn.session
        return answer.StepFacts(
            result=self._result,
            pins=turn.pins,
            reservation=turn.reservation,
            view=self._judge.budget.view(session.stream),
            p=session.p,
            trigger=session.triggered,
            unit=self._judge.rules.unit,
            sanitized=turn.call.sanitized,
            mask=turn.pins.mask,
            tokens=session.window.tokens,
            top=self._explained(),
            kept=session.written.answer,
        )

    def _explained(self) -> Sequence[tuple[int, float]]:
        """Only where the monitor triggers: nobody asks why a vector is near. A caller's own rows are not seen here."""
        result, monitor = self._result, self._turn.pins.monitor
        if result is None or monitor is None or not result.mv[2]:
            return ()
        return explain(monitor, self._row.features)

    def _guarantee(self) -> str:
        rules, reservation, written = self._judge.rules, self._turn.reservation, self._turn.session.written
        view = self._step_facts.view
        epoch = reservation.epoch if reservation is not None else view.epoch
        made_of = (self._situation, view.claim_level, rules.unit, rules.rule, epoch, rules.durable, self._turn.caller)
        if written.claim is None or written.claim[0] != made_of:
            text = claims.claim(
                self._situation,
                alpha=view.claim_level,
                unit=rules.unit,
                rule=rules.rule,
                epoch=epoch,
                durable=rules.durable,
                caller=bool(self._turn.caller),
            )
            written.claim = (made_of, text)
        return written.claim[1]

    def _checks(self, ran: claims.Ran) -> list[Check]:
        written, made_of = self._turn.session.written, (self._situation, ran)
        if written.checks is None or written.checks[0] != made_of:
            written.checks = (made_of, claims.checks(self._situation, ran))
        return written.checks[1]

    def receipt(self) -> tuple[tuple[Receipt, ...] | None, str]:
        """The records of the step, and how that went: issued, failed or disabled."""
        turn, session, writer = self._turn, self._turn.session, self._judge.receipts
        rules = turn.rules
        if writer is None or not rules.receipt:
            return None, "disabled"
        view = self._step_facts.view
        used = self._result.assets if self._result is not None else (0, 0, 0)
        p, sup = 1.0, (SUP_START, SUP_START)
        if turn.reservation is not None:
            # a block's hypothesis is settled when its session closes
            p, sup = session.p if self._judge.rules.unit != "block" else 1.0, self._row.sup
        facts = ReceiptFacts(
            request=turn.request,
            staged=turn.staged,
            components=self._components,
            decision=self._decision,
            score=self._result.score if self._result is not None else 0.0,
            threshold=turn.pins.threshold,
            step=self._step,
            status=self._result.status if self._result is not None else 0,
            reservation=turn.reservation,
            unit=self._judge.rules.unit,
            p_floor=turn.pins.p_floor,
            p=p,
            sup=sup,
            eproc=view.snapshot,
            guarantee=self._claim,
            assets=used,
            policy=rules.policy,
            config=rules.config_hash,
            witness=rules.witness,
            caller=turn.caller,
            risk=None if rules.bound is None else _risk(self._known),
        )
        try:
            opened = () if session.chain is not None else (writer.open(session, session.pins),)
            return (*opened, writer.decision(session, facts)), "issued"
        except VerificationError:
            # the record cannot be written within its limits; the decision stands and says so
            session.chain = None
            return None, "failed"

    def encode(self, receipts: tuple[Receipt, ...] | None, state: str, why: str) -> bytes:
        """The answer's bytes."""
        turn, judge = self._turn, self._judge
        reservation = turn.reservation
        controller = "" if reservation is not None else "no hypothesis"
        if reservation is not None and reservation.exhausted:
            controller = "budget exhausted"
        ran = claims.Ran(
            controller=controller,
            receipt=state,
            receipt_reason=why,
            idempotent=turn.claim is not None,
            tokens=bool(turn.request.token_ids),
            extra=self._extra(),
        )
        labels = answer.Labels(
            request_id=turn.call.request_id,
            policy_ref=turn.rules.policy_ref,
            config_hash=turn.rules.config_hash,
            guarantee=self._claim,
            step=self._step,
            checks=self._checks(ran),
        )
        writer = judge.receipts
        response = answer.build(
            self._step_facts,
            self._components,
            self._decision,
            labels,
            receipts[-1] if receipts else None,
            writer.issuer.verify_key_hex if writer is not None else None,
        )
        return _encoder.encode(response)

    def _extra(self) -> tuple[Check, ...]:
        rules = self._turn.rules
        out: list[Check] = []
        if rules.entropy_floor is not None:
            there = self._turn.staged.entropy.size > 0
            out.append(
                Check(name="entropy_floor", status="ran" if there else "skipped", reason="" if there else "absent")
            )
        if rules.hold.cooldown:
            out.append(Check(name="hysteresis", status="ran"))
        return tuple(out)

    def observation(self, receipts: tuple[Receipt, ...] | None, state: str, seconds: float) -> Observation:
        """The decision as metrics and logs see it."""
        turn, decision, av = self._turn, self._decision, self._components.av
        return Observation(
            request_id=turn.call.request_id,
            trace_id=turn.call.trace_id,
            surface=turn.call.surface,
            subject=turn.session.digest,
            action=decision.action,
            enforced=decision.enforced,
            cause=decision.cause,
            verdict=decision.verdict,
            trigger=decision.trigger,
            score=self._result.score if self._result is not None else 0.0,
            p_value=turn.session.p,
            e_value_log10=av.e_value_log10,
            wealth_ratio=av.budget_remaining / av.alpha,
            cost=turn.cost,
            first=turn.first,
            exhausted=av.exhausted,
            degraded=self._failure,
            receipt=state,
            receipt_bytes=len(receipts[-1].body) if receipts else 0,
            seconds=seconds,
            stages=turn.stages.seconds,
            step=self._step,
            policy=turn.rules.policy_ref.partition("@")[0],
            record=self._record() if turn.rules.record else None,
        )

    def _record(self) -> dict[str, Any]:
        """A line of the decision log: it names the subject, so that a policy can be tried on it."""
        turn, request, decision = self._turn, self._turn.request, self._decision
        return record(
            Logged(
                subject={name: getattr(request, name) for name in SUBJECT},
                risk=self._known.risk,
                context=request.context,
                action=decision.action,
                enforced=decision.enforced,
                ref=turn.rules.policy_ref,
            ),
            cause=decision.cause,
            request_id=turn.call.request_id,
        )
