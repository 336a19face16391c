"""The one dataplane: rate limit -> idempotency -> window -> reserve -> score -> settle -> decide -> commit.

What a step changes it changes without an await, in a few places: staged, reserved, concluded. Surfaces only
translate to and from this object.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any

import msgspec

from sidecar_api import staging
from sidecar_api.canary import Watch
from sidecar_api.cutoff import Cutoff
from sidecar_api.hypotheses import Hypotheses, margin
from sidecar_api.idempotency import Claim, payload_digest
from sidecar_api.lifecycle import Lifecycle
from sidecar_api.line import abreast
from sidecar_api.outcome import Answer, Call, Quota, Stages
from sidecar_api.pace import Pace
from sidecar_api.parts import Parts
from sidecar_api.pins import Shape
from sidecar_api.quotas import Quotas
from sidecar_api.schemas import MAX_CONTEXT_MEMBERS, DiagnoseRequest
from sidecar_api.sessions import Session
from sidecar_api.turn import JudgeRules, Turn
from sidecar_api.windows import Staged
from tcd.background import end
from tcd.calibration.assets import Canary
from tcd.errors import Conflict, ScoringError, ScoringTimeout, Unavailable
from tcd.ledger import Idempotent
from tcd.risk_av import Reservation
from tcd.rows import ScoreResult, ScoreRow

_LOG = logging.getLogger(__name__)
_SWEEP_SECONDS = 1.0


async def _only_log(canary: Canary, verdict: str, figures: Mapping[str, Any]) -> None:
    _LOG.warning("the canary %s is %s: %s", canary.id, verdict, figures)


class Service:
    """Decides. Bound to one event loop."""

    def __init__(self, parts: Parts) -> None:
        """Assemble."""
        settings = parts.settings
        self.settings = settings
        self.sessions = parts.sessions
        self.resolver = parts.resolver
        self.judge = parts.judge
        self.bindings = parts.bindings
        self.patches = parts.patches
        self.budget = parts.budget
        self.subjects = parts.subjects
        self.watch = Watch(parts.judge_canary or _only_log, slo=lambda: self.settings.slo_ms / 1000.0)
        self.lifecycle = Lifecycle(parts, self.watch)
        self.hypotheses = Hypotheses(parts, self.lifecycle, self.watch)
        self.quotas = Quotas(settings)
        self._parts = parts
        self._scorer = parts.scorer
        self._sweeper: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self.in_flight = 0
        self.pace = Pace()
        self.draining = False

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to close idle sessions; inside a running loop."""
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def drain(self, *, timeout: float) -> bool:
        """Refuse new steps and wait for those in flight; whether all of them ended in time."""
        self.draining = True
        if not self.in_flight:
            return True
        self._settled.clear()
        await asyncio.wait([asyncio.ensure_future(self._settled.wait())], timeout=timeout)
        return not self.in_flight

    async def stop(self, *, timeout: float) -> None:
        """Drain, stop closing sessions, make everything durable."""
        await self.drain(timeout=timeout)
        if self._sweeper is not None:
            await end(self._sweeper)
        if self.budget.leased:
            self.lifecycle.abandon()
        await self.judge.finish()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(_SWEEP_SECONDS, self.settings.session_idle_s / 2))
            if self.patches is not None:
                self.patches.tick()
            self.lifecycle.sweep(loop.time())

    # -- the call ------------------------------------------------------------------------------------------

    async def diagnose(self, request: DiagnoseRequest, call: Call) -> Answer:
        """Decide about one step.

        Raises:
            SubjectQuotaExceeded: the subject's bucket is empty.
            Conflict: the step is out of order, another one is in flight, or the idempotency key is another's.
            ValidationFailed: the step does not fit the session.
            Unavailable: overloaded or stopping.
            ScoringTimeout: the deadline passed before anything was reserved.
        """
        # `work()` without its generator
        self._begin()
        try:
            quota = self.charge(request)
            key = call.idempotency_key or request.idempotency_key or (call.request_id if call.given else None)
            if key is None:
                return await self._turn(request, call, quota, None)
            return await self._once(request, call, quota, key)
        finally:
            self._end()

    def rules(self, request: DiagnoseRequest) -> JudgeRules:
        """The rules of a request, as they are now; it keeps them until it is answered."""
        rules, patches = self.bindings.of(request), self.patches
        if patches is None or not patches.active:
            return rules
        return patches.rules(rules, self.subjects.subject(request.tenant, request.user, request.session))

    @contextmanager
    def work(self) -> Iterator[None]:
        """A request in work: a drain waits for it.

        Raises:
            Unavailable: the server is stopping.
        """
        self._begin()
        try:
            yield
        finally:
            self._end()

    def _begin(self) -> None:
        if self.draining:
            msg = "the server is stopping"
            raise Unavailable(msg, retry_after=1.0)
        self.in_flight += 1

    def _end(self) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self._settled.set()

    def charge(self, request: DiagnoseRequest) -> Quota:
        """See `Quotas.charge`; now."""
        return self.quotas.charge(request, now=asyncio.get_running_loop().time())

    async def _once(self, request: DiagnoseRequest, call: Call, quota: Quota, key: str) -> Answer:
        payload = payload_digest(request)
        idempotency = self._parts.idempotency
        try:
            with Cutoff(call.deadline, "the first request of this idempotency key is still in flight"):
                found = await idempotency.begin(request.tenant, key, payload, now_us=self._parts.now_us())
        except ScoringTimeout:
            raise
        except Unavailable:
            # nobody can say whether this was decided before: the policy decides, and nothing is debited
            return await self._turn(request, call, quota, None, lost="ledger")
        if isinstance(found, Idempotent):
            return Answer(found.answer, request.session, quota, Stages({"decode": call.decode}))
        try:
            return await self._turn(request, call, quota, found)
        finally:
            idempotency.release(found)

    async def _turn(
        self, request: DiagnoseRequest, call: Call, quota: Quota, claim: Claim | None, *, lost: str = ""
    ) -> Answer:
        started = perf_counter()
        rules = self.rules(request)
        if rules.deadline < math.inf:
            latest = asyncio.get_running_loop().time() + rules.deadline
            call = msgspec.structs.replace(call, deadline=min(call.deadline, latest))
        # `place()` without its generator
        session = await self._take(request, call)
        clock = asyncio.get_running_loop().time
        self.pace.begun(clock())
        try:
            stages = Stages({"decode": call.decode, "queue": perf_counter() - started})
            turn = Turn(session, self._with_gpu(request), call, quota, claim, stages, started - call.decode, rules)
            turn.lost = lost
            return await self._step(turn)
        finally:
            self.pace.ended(clock())
            self._give_back(session)

    def _with_gpu(self, request: DiagnoseRequest) -> DiagnoseRequest:
        """The request with the newest GPU sample in its context, where it has not its own and there is room."""
        if self._parts.gpu is None:
            return request
        context = {**self._parts.gpu(), **request.context}
        if len(context) > MAX_CONTEXT_MEMBERS:
            return request
        return msgspec.structs.replace(request, context=context)

    @asynccontextmanager
    async def place(self, request: DiagnoseRequest, call: Call) -> AsyncIterator[Session]:
        """The one place in flight of a request's session, made when there is none.

        Raises:
            Conflict: another step is in flight.
            ScoringTimeout: the deadline has passed.
            Unavailable: there is no room for another session.
        """
        session = await self._take(request, call)
        try:
            yield session
        finally:
            self._give_back(session)

    async def _take(self, request: DiagnoseRequest, call: Call) -> Session:
        settings = self.settings
        began = asyncio.get_running_loop().time()
        session = self.lifecycle.session(request, began)
        left = call.deadline - began
        if left <= 0:
            msg = "the deadline passed before the step began"
            raise ScoringTimeout(msg)
        wait = min(settings.session_wait_ms / 1000.0, left) if settings.session_busy == "wait" else 0.0
        await session.acquire(wait=wait, waiters=settings.session_waiters)
        return session

    def _give_back(self, session: Session) -> None:
        session.release()
        self.sessions.measure(session)

    # -- the step ------------------------------------------------------------------------------------------

    async def _step(self, turn: Turn) -> Answer:
        answer = await self._decided(turn)
        if self.watch.trial is not None and answer.observation is not None:
            seen = answer.observation
            self.watch.stepped(turn.session, seconds=seen.seconds, degraded=bool(seen.degraded))
        return answer

    async def _decided(self, turn: Turn) -> Answer:
        session, request = turn.session, turn.request
        self.order(session, request)
        staged = self._stage(session, request)
        shape = Shape.of(staged.mask, staged.features.shape[1], staged.spectrum.shape[0])
        turn.staged = staged
        turn.base = staging.base(request)
        await abreast()
        # a reload may have come in between: rules, pins and reservation are of one version
        turn.rules = self.rules(request)
        for attempt in (1, 2):
            key = self.hypotheses.key(session, request)
            turn.pins = self.resolver.pins(key, shape)
            why = await self.hypotheses.reservable(turn)
            if why:
                # no budget can be had: the policy decides, and nothing is scored
                return await self.judge.conclude(turn, self._row(turn, None), None, why)
            row = self._row(turn, self.hypotheses.pin(turn))
            result, failure = await self._evidence(turn, row)
            if failure == "assets" and attempt == 1 and self.resolver.pins(key, shape, fresh=True).ids != turn.pins.ids:
                continue
            break
        return await self.judge.conclude(turn, row, result, failure)

    @staticmethod
    def order(session: Session, request: DiagnoseRequest) -> None:
        """Refuse a step that is not above the session's last one.

        Raises:
            Conflict: it is not.
        """
        step = request.step_id
        if step is not None and step > 0 and session.last_step is not None and step <= session.last_step:
            msg = f"step {step} is not above {session.last_step}, the last one of this session"
            raise Conflict(msg)

    def _stage(self, session: Session, request: DiagnoseRequest) -> Staged:
        if request.step_id == 0 and (session.steps or session.last_step is not None):
            self.lifecycle.end(session, "end")
            session.restart()
        if not session.steps and request.step_id and not session.notes:
            # its beginning was not seen here: a restart, an eviction, or a client that starts in the middle
            session.notes = ("session joined in the middle",)
        return staging.stage(session.window, request)

    def _row(self, turn: Turn, reservation: Reservation | None) -> ScoreRow:
        staged = turn.staged
        turn.reservation = reservation
        return ScoreRow(
            trace=staged.trace,
            entropy=staged.entropy,
            spectrum=staged.spectrum,
            features=staged.features,
            key=turn.pins.key,
            alpha=reservation.alpha if reservation is not None else 0.0,
            sup=turn.session.sup,
            base=turn.base,
            controller=self.hypotheses.routes(reservation),
            unit=self.hypotheses.unit_flag,
        )

    async def _evidence(self, turn: Turn, row: ScoreRow) -> tuple[ScoreResult | None, str]:
        """The ensemble's answer, or None and why there is none. Whatever ends the wait, the cost is kept."""
        loop = asyncio.get_running_loop()
        began, started = loop.time(), perf_counter()
        left = turn.call.deadline - began
        left -= margin(left)
        result: ScoreResult | None = None
        failure = "cancelled"
        try:
            if turn.reserved:
                if await self.judge.reserved(turn):
                    failure = "ledger"
                    return None, failure
                # a second attempt under new assets goes on with it, or reserves anew
                turn.reserved = False
            if self._parts.punctual and turn.call.gate is None:
                # the reservation took of it
                result = await self._scorer.score(row, timeout=left - (loop.time() - began))
            else:
                with Cutoff(began + left, "the row was not scored by its deadline"):
                    if turn.call.gate is not None:
                        await turn.call.gate.arrive()
                        left -= loop.time() - began
                    result = await self._scorer.score(row, timeout=left)
            failure = self.judge.problem(turn, row, result)
        except ScoringTimeout:
            failure = "timeout"
        except ScoringError:
            failure = "scoring"
        except Unavailable:
            failure = "overload"
            raise
        except Exception:  # noqa: BLE001 - the boundary of the scoring step: reported in the answer, counted, logged
            _LOG.exception("the scorer failed")
            failure = "scoring"
        finally:
            turn.stages.add("score", perf_counter() - started)
            if failure and turn.reservation is not None:
                self.budget.fail(turn.session.stream, turn.session.hypothesis)
        return (None if failure else result), failure
