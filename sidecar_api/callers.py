"""Direct callers: reserve a level, query the ensemble oneself, settle what it answered.

The controller cannot see what a caller computed, so receipts and claims of these decisions say
`evidence=caller`. Everything else is the dataplane's: one hypothesis per generation, debited once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import msgspec
import numpy as np

from sidecar_api import claims, evidence, staging
from sidecar_api.caller_schemas import Outputs, ReserveRequest, ReserveResponse, SettleRequest
from sidecar_api.cutoff import Cutoff
from sidecar_api.idempotency import Claim, Idempotency, payload_digest
from sidecar_api.outcome import Answer, Call, Quota, Stages
from sidecar_api.pins import Pins, Shape
from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.service import Service
from sidecar_api.sessions import Session
from sidecar_api.turn import Turn
from sidecar_api.windows import Staged
from tcd.contract import COMPONENTS, SPECTRUM_RANK, Flag, Signal, detector_key, temperature_bucket
from tcd.errors import Conflict, NotFound, Unavailable, ValidationFailed
from tcd.ledger import Idempotent
from tcd.risk_av import Reservation
from tcd.rows import ScoreResult, ScoreRow

_SIGNALS: Final = {
    "trace": Signal.TRACE,
    "entropy": Signal.ENTROPY,
    "spectrum": Signal.SPECTRUM,
    "features": Signal.FEATURES,
}
_NONE: Final = np.zeros(0, np.float32)
_NO_ROWS: Final = np.zeros((0, 0), np.float32)
_TOKEN_BYTES: Final = 16
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What a reservation was given for; `reservation` None = no hypothesis."""

    token: str
    session: Session
    request: DiagnoseRequest
    pins: Pins
    hypothesis: str
    reservation: Reservation | None


def _result(outputs: Outputs) -> ScoreResult:
    return ScoreResult(
        score=outputs.score[0],
        p_step=(outputs.p_step[0], outputs.p_step[1]),
        sup=(outputs.sup_out[0], outputs.sup_out[1]),
        components=np.array(outputs.components, np.float32).reshape(len(COMPONENTS), 3),
        mv=(outputs.mv[0], outputs.mv[1], outputs.mv[2], outputs.mv[3]),
        p_value=outputs.p_value[0],
        trigger=bool(outputs.trigger[0]),
        verdict=bool(outputs.verdict[0]),
        tier=outputs.tier[0],
        status=outputs.status[0],
        route=(outputs.route[0], outputs.route[1], outputs.route[2], outputs.route[3]),
        assets=(outputs.assets[0], outputs.assets[1], outputs.assets[2]),
    )


def _staged(tokens: int) -> Staged:
    return Staged(_NONE, _NONE, _NONE, _NO_ROWS, (_NONE, _NONE, _NO_ROWS), keep=False, tokens=tokens)


def _as_step(request: ReserveRequest) -> DiagnoseRequest:
    """The step that a reservation is for, as the dataplane knows steps."""
    context: dict[str, str | int | float | bool | None] = {"top_p": request.top_p, "max_tokens": request.max_tokens}
    if request.temperature is not None:
        context["temperature"] = request.temperature
    return DiagnoseRequest(
        step_id=request.step_id,
        model_id=request.model_id,
        gpu_id=request.gpu_id,
        task=request.task,
        lang=request.lang,
        tenant=request.tenant,
        user=request.user,
        session=request.session,
        context=context,
        tokens_delta=request.tokens_delta,
        drift_score=request.drift_score,
    )


class Callers:
    """Reservations of direct callers. Bound to the service's event loop."""

    def __init__(
        self,
        service: Service,
        *,
        idempotency: Idempotency,
        now_us: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        """Serve over `service`, with its idempotency, clock and randomness."""
        self._service = service
        self._idempotency = idempotency
        self._now_us = now_us
        self._random = random
        self._tickets: OrderedDict[str, _Ticket] = OrderedDict()
        self._limit = service.settings.sessions_max

    # -- reserve -------------------------------------------------------------------------------------------

    async def reserve(self, request: ReserveRequest, call: Call) -> bytes:
        """Reserve the level of a generation; durable before it is answered. Reserving again debits nothing.

        Raises:
            SubjectQuotaExceeded: the subject's bucket is empty.
            Conflict: the idempotency key is another request's, or the generation is busy or further on.
            ValidationFailed: features without their width.
            Unavailable: overloaded, stopping, or the ledger cannot be written.
        """
        if ("features" in request.signals) is (request.feature_cols == 0):
            msg = "the width of the feature vectors, and none without features"
            raise ValidationFailed(msg, pointer="/feature_cols")
        with self._service.work():
            step = _as_step(request)
            quota = self._service.charge(step)
            key = call.idempotency_key or request.idempotency_key or (call.request_id if call.given else None)
            if key is None:
                return await self._reserve(request, step, call, quota, None)
            return await self._once(request, step, call, quota, f"reserve:{key}")

    async def _once(self, request: ReserveRequest, step: DiagnoseRequest, call: Call, quota: Quota, key: str) -> bytes:
        with Cutoff(call.deadline, "the first request of this idempotency key is still in flight"):
            found = await self._idempotency.begin(request.tenant, key, payload_digest(request), now_us=self._now_us())
        if isinstance(found, Idempotent):
            return found.answer
        try:
            return await self._reserve(request, step, call, quota, found)
        finally:
            self._idempotency.release(found)

    async def _reserve(
        self, request: ReserveRequest, step: DiagnoseRequest, call: Call, quota: Quota, claim: Claim | None
    ) -> bytes:
        service = self._service
        async with service.place(step, call) as session:
            service.order(session, step)
            if step.step_id == 0 and session.steps:
                service.lifecycle.end(session, "end")
                session.restart()
            turn = Turn(session, step, call, quota, claim, Stages(), perf_counter(), service.rules(step))
            turn.staged = _staged(request.tokens)
            turn.base = staging.base(step)
            bucket = temperature_bucket(request.temperature)
            turn.pins = service.resolver.pins(
                detector_key(step.model_id, step.gpu_id, step.task, step.lang, bucket), _shape(request)
            )
            if await service.hypotheses.reservable(turn):
                msg = "the ledger gives no budget now"
                raise Unavailable(msg, retry_after=1.0)
            reservation = service.hypotheses.pin(turn)
            ticket = self._ticket(turn, reservation)
            body = _encode(self._answer(turn, ticket, reservation))
            answers = () if claim is None else (self._idempotency.record(claim, body, "", now_us=self._now_us()),)
            committed = service.judge.put((), answers=answers)
            with Cutoff(call.deadline, "the reservation is not durable in time"):
                await asyncio.shield(committed)
        return body

    def _ticket(self, turn: Turn, reservation: Reservation | None) -> _Ticket:
        session = turn.session
        known = self._tickets.get(session.ticket)
        same = known is not None and known.session is session and known.hypothesis == session.hypothesis
        # the old token keeps naming the hypothesis that is over
        token = session.ticket if same else self._random(_TOKEN_BYTES).hex()
        ticket = _Ticket(token, session, turn.request, turn.pins, session.hypothesis, reservation)
        self._tickets[token] = ticket
        self._tickets.move_to_end(token)
        session.ticket = token
        while len(self._tickets) > self._limit:
            self._tickets.popitem(last=False)
        return ticket

    def _answer(self, turn: Turn, ticket: _Ticket, reservation: Reservation | None) -> ReserveResponse:
        service, session, pins = self._service, turn.session, turn.pins
        settings = service.settings
        view = service.budget.view(session.stream)
        flags = service.hypotheses.unit_flag | (Flag.CONTROLLER if service.hypotheses.routes(reservation) else Flag(0))
        claimed = claims.claim(
            claims.Situation(
                pins=pins,
                status=None,
                reserved=reservation is not None,
                beyond=session.beyond,
                notes=session.notes,
                degraded="",
            ),
            alpha=view.claim_level,
            unit=settings.unit,
            rule=settings.rule,
            epoch=reservation.epoch if reservation is not None else view.epoch,
            durable=service.judge.rules.durable,
            caller=True,
        )
        return ReserveResponse(
            reservation=ticket.token,
            controller=service.hypotheses.routes(reservation),
            alpha=reservation.alpha if reservation is not None else 0.0,
            sup=list(session.sup),
            key=list(pins.key),
            policy=0,
            flags=int(flags),
            base=list(turn.base),
            unit=settings.unit,
            epoch=reservation.epoch if reservation is not None else view.epoch,
            cost=turn.cost,
            exhausted=reservation.exhausted if reservation is not None else False,
            p_floor=pins.p_floor,
            guarantee=claimed,
            request_id=turn.call.request_id,
        )

    # -- settle --------------------------------------------------------------------------------------------

    async def settle(self, request: SettleRequest, call: Call) -> Answer:
        """Settle one row. The same row again gets the same answer; it is one for as long as answers are kept.

        Raises:
            NotFound: no such reservation (or it is forgotten).
            Conflict: the hypothesis is over, the row was scored with other assets, or the same inputs were
                settled with other outputs: scoring is pure, so one of the two was not the ensemble's.
            ValidationFailed: the outputs are no possible answer to such a row.
        """
        with self._service.work():
            ticket = self._tickets.get(request.reservation)
            if ticket is None:
                msg = "no such reservation"
                raise NotFound(msg)
            key = f"settle:{request.reservation}:{request.inputs}"
            with Cutoff(call.deadline, "the first settlement of these inputs is still in flight"):
                found = await self._idempotency.begin(
                    ticket.request.tenant, key, payload_digest(request), now_us=self._now_us()
                )
            if isinstance(found, Idempotent):
                return Answer(found.answer, ticket.request.session, None, Stages())
            try:
                return await self._settle(request, ticket, call, found)
            finally:
                self._idempotency.release(found)

    async def _settle(self, request: SettleRequest, ticket: _Ticket, call: Call, claim: Claim) -> Answer:
        service, session = self._service, ticket.session
        step = msgspec.structs.replace(ticket.request, step_id=request.step_id)
        quota = service.charge(step)
        async with service.place(step, call) as live:
            if live is not session or session.hypothesis != ticket.hypothesis or session.pins is None:
                msg = "the hypothesis of this reservation is over"
                raise Conflict(msg)
            service.order(session, step)
            turn = Turn(session, step, call, quota, claim, Stages(), perf_counter(), service.rules(step))
            turn.caller = request.inputs
            turn.staged = _staged(max(request.tokens, session.window.tokens + 1))
            turn.base = staging.base(step)
            turn.pins = ticket.pins
            row, result = self._checked(request, ticket, turn)
            answer = await service.judge.conclude(turn, row, result, "")
            if request.end:
                service.lifecycle.remove(session, "end")
                self._tickets.pop(ticket.token, None)
        return answer

    def _checked(self, request: SettleRequest, ticket: _Ticket, turn: Turn) -> tuple[ScoreRow, ScoreResult]:
        session, reservation = ticket.session, ticket.reservation
        sent = (request.sup[0], request.sup[1])
        if any(a > b for a, b in zip(sent, session.sup, strict=True)):
            msg = "a running maximum that was never given"
            raise ValidationFailed(msg, pointer="/sup")
        turn.reservation = reservation
        row = ScoreRow(
            key=turn.pins.key,
            alpha=reservation.alpha if reservation is not None else 0.0,
            sup=sent,
            base=turn.base,
            controller=self._service.hypotheses.routes(reservation),
            unit=self._service.hypotheses.unit_flag,
        )
        result = _result(request.outputs)
        wrong = evidence.problem(row, result, turn.pins)
        if wrong:
            raise ValidationFailed(wrong, pointer="/outputs")
        if evidence.foreign_assets(result, turn.pins):
            msg = "scored with other assets than at the reservation: reserve again"
            raise Conflict(msg)
        return row, result


def _shape(request: ReserveRequest) -> Shape:
    mask = 0
    for name in request.signals:
        mask |= int(_SIGNALS[name])
    short = "spectrum" in request.signals and 0 < request.spectrum_values < SPECTRUM_RANK
    return Shape(mask, request.feature_cols if mask & Signal.FEATURES else 0, short)
