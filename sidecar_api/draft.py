"""An answer in the making: its components, its claim and checks, its record, its bytes, how it is observed. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from sidecar_api import answer, claims
from sidecar_api.decision import Decision, Facts
from sidecar_api.outcome import Observation
from sidecar_api.receipting import Facts as ReceiptFacts
from sidecar_api.receipting import Receipts, Record
from sidecar_api.schemas import Check, Components
from sidecar_api.turn import JudgeRules, Turn
from tcd.contract import SUP_START
from tcd.errors import VerificationError
from tcd.multivariate import explain
from tcd.receipts import Receipt, records
from tcd.risk_av import StreamView
from tcd.rows import ScoreResult, ScoreRow
from tcd.trust import Logged, record
from tcd.trust.policies import SUBJECT

_encoder = msgspec.json.Encoder()


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


class Draft:
    """An answer in the making: `prepare`, `write`, `sign` and `encode` follow each other.

    What the step changed of its session is taken when the draft is made; `write` moves the session's chain.

    Attributes:
        receipts: the records of the step, signed; None while or where there are none.
        state: how that went: issued, failed or disabled.
    """

    __slots__ = (
        *("_claim", "_components", "_decision", "_failure", "_known", "_opened", "_result", "_row"),
        *("_rules", "_situation", "_step", "_step_facts", "_turn", "_unsigned", "receipts", "state"),
    )
    _components: Components
    _claim: str

    def __init__(
        self,
        turn: Turn,
        row: ScoreRow,
        result: ScoreResult | None,
        *,
        failure: str,
        decision: Decision,
        step: int,
        known: Facts,
        rules: JudgeRules,
        view: StreamView,
    ) -> None:
        """A draft of the answer to `turn`.

        Args:
            turn: settled.
            row: as it was scored.
            result: of the ensemble, None where there is none that counts.
            failure: why there is none, or empty.
            decision: about it.
            step: its number.
            known: what the decision follows from.
            rules: of the server: unit, rule and whether budgets outlive it.
            view: of the session's stream, after the step.
        """
        self._known = known
        self._rules = rules
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
        self._step_facts = self._facts(view)
        self._opened: tuple[Receipt, ...] = ()
        self._unsigned: Record | None = None
        self.receipts: tuple[Receipt, ...] | None = None
        self.state = "disabled"

    def prepare(self) -> None:
        """Make the components and the claim."""
        self._components = answer.components(self._step_facts)
        self._claim = self._guarantee()

    def _facts(self, view: StreamView) -> answer.StepFacts:
        turn, session = self._turn, self._turn.session
        return answer.StepFacts(
            result=self._result,
            pins=turn.pins,
            reservation=turn.reservation,
            view=view,
            p=session.p,
            trigger=session.triggered,
            unit=self._rules.unit,
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
        rules, reservation, written = self._rules, self._turn.reservation, self._turn.session.written
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

    def write(self, writer: Receipts | None) -> None:
        """Write the record of the step; None = receipts are off."""
        turn, session = self._turn, self._turn.session
        rules = turn.rules
        if writer is None or not rules.receipt:
            return
        view = self._step_facts.view
        used = self._result.assets if self._result is not None else (0, 0, 0)
        p, sup = 1.0, (SUP_START, SUP_START)
        if turn.reservation is not None:
            # a block's hypothesis is settled when its session closes
            p, sup = self._step_facts.p if self._rules.unit != "block" else 1.0, self._row.sup
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
            unit=self._rules.unit,
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
            self._opened = () if session.chain is not None else (writer.open(session, session.pins),)
            self._unsigned = writer.decision(session, facts)
            self.state = "issued"
        except VerificationError:
            # the record cannot be written within its limits; the decision stands and says so
            session.chain = None
            self.state = "failed"

    def sign(self, writer: Receipts | None) -> None:
        """Sign the record, where there is one."""
        if writer is None or self._unsigned is None:
            return
        self.receipts = (*self._opened, writer.seal(self._unsigned))

    def abandon(self) -> None:
        """There will be no answer: the session's next record takes this one's place."""
        if self._opened:
            self._turn.session.chain = None
        elif self._unsigned is not None:
            self._turn.session.chain = self._unsigned.chain

    def lose(self) -> None:
        """There will be no receipt: it could not be made durable."""
        self.receipts, self.state = None, "failed"

    def encode(self, why: str, verify_key: str | None) -> bytes:
        """The answer's bytes; `verify_key` is the one that signs, `why` there is no receipt."""
        turn = self._turn
        reservation = turn.reservation
        controller = "" if reservation is not None else "no hypothesis"
        if reservation is not None and reservation.exhausted:
            controller = "budget exhausted"
        ran = claims.Ran(
            controller=controller,
            receipt=self.state,
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
        response = answer.build(
            self._step_facts,
            self._components,
            self._decision,
            labels,
            self.receipts[-1] if self.receipts else None,
            verify_key,
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

    def observation(self, seconds: float) -> Observation:
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
            receipt=self.state,
            receipt_bytes=len(self.receipts[-1].body) if self.receipts else 0,
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
