"""The one dataplane: rate limit -> idempotency -> window -> reserve -> score -> settle -> decide -> commit.

All state changes happen between two awaits, so no step of another request comes between; surfaces only
translate to and from this object.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import msgspec

from sidecar_api import staging
from sidecar_api.bindings import Bindings
from sidecar_api.blocks import Blocks
from sidecar_api.budget import Budget
from sidecar_api.canary import NOTE, STREAM, Act, Watch
from sidecar_api.cutoff import Cutoff
from sidecar_api.idempotency import Claim, Idempotency, payload_digest
from sidecar_api.outcome import Answer, Call, Observer, Quota, Stages, SubjectQuotaExceeded
from sidecar_api.pace import Pace
from sidecar_api.patching import Patches
from sidecar_api.pins import Key, Resolver, Shape
from sidecar_api.schemas import MAX_CONTEXT_MEMBERS, DiagnoseRequest
from sidecar_api.sessions import Session, SessionTable
from sidecar_api.settle import Judge
from sidecar_api.subjects import Subjects
from sidecar_api.turn import JudgeRules, Turn
from sidecar_api.windows import Staged
from tcd.background import end
from tcd.calibration.assets import Canary
from tcd.config import Settings
from tcd.contract import SUP_START, Flag
from tcd.errors import Conflict, ScoringError, ScoringTimeout, Unavailable
from tcd.ledger import Idempotent
from tcd.rate_limit import Limit, TokenBuckets, token_cost
from tcd.risk_av import CloseReason, Reservation
from tcd.rows import Scorer, ScoreResult, ScoreRow

_LOG = logging.getLogger(__name__)
#: Share of a deadline, and seconds of it, that are kept back for settling and answering.
_MARGIN_SHARE = 0.1
_MARGIN = 0.02
_SWEEP_SECONDS = 1.0
_UNITS = {"session": Flag(0), "request": Flag.UNIT_REQUEST, "block": Flag.UNIT_BLOCK}
_SWEEP_BATCH = 256


@dataclass(frozen=True, slots=True)
class Parts:
    """What the dataplane is made of; each part is made by `sidecar_api.app`.

    `punctual`: the scorer answers or raises by a row's deadline, whatever happens; else it is cut off.
    """

    settings: Settings
    scorer: Scorer
    resolver: Resolver
    budget: Budget
    judge: Judge
    bindings: Bindings
    sessions: SessionTable
    idempotency: Idempotency
    subjects: Subjects
    observer: Observer
    now_us: Callable[[], int]
    random: Callable[[int], bytes]
    gpu: Callable[[], Mapping[str, float]] | None = None
    patches: Patches | None = None
    punctual: bool = False
    judge_canary: Act | None = None


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
        self._parts = parts
        self._scorer = parts.scorer
        self._limit = Limit(settings.http_rate_cap, settings.http_rate_refill)
        self._buckets = TokenBuckets(self._limit, max_keys=settings.rate_subjects)
        self._overrides = {(o.tenant, o.model_id): o for o in settings.rate_overrides}
        self._numbers = itertools.count(1)
        self._boot = parts.random(8).hex()
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
            # others go on: what stays open would hold up their fold
            for session in self.sessions:
                self.end(session, "abandoned")
                self.sessions.remove(session)
        await self.judge.finish()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(_SWEEP_SECONDS, self.settings.session_idle_s / 2))
            if self.patches is not None:
                self.patches.tick()
            for _ in range(_SWEEP_BATCH):
                session = self.sessions.expired(loop.time())
                if session is None:
                    break
                self.end(session, "idle")
                self.sessions.remove(session)

    def forget_hypotheses(self) -> None:
        """This shim was declared lost: its hypotheses are over, and others closed their chains."""
        for session in self.sessions:
            session.disown("this server was declared lost")

    def end(self, session: Session, reason: CloseReason) -> None:
        """Close a session's hypothesis and its chain of receipts."""
        self.judge.close(session, reason)
        if session.trial is not None:
            self.watch.ended(session)
        if self.judge.signals is not None:
            self.judge.signals.ended(session, whole=reason in {"end", "idle"})
        self._parts.observer.closed(reason=reason)

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
        """Take a step's tokens from its subject's bucket.

        Raises:
            SubjectQuotaExceeded: there are not enough.
        """
        overrides, tenant, model = self._overrides, request.tenant, request.model_id
        limit, divisor = self._limit, self.settings.token_cost_divisor
        key: tuple[str, ...] = (tenant, request.user, request.session)
        if overrides:
            names = ((tenant, model), (tenant, None), (None, model))
            found = next((overrides[name] for name in names if name in overrides), None)
            if found is not None:
                limit = Limit(found.capacity, found.refill)
                divisor = found.divisor or divisor
                # a bucket has one size: another limit is another bucket
                key = (*key, found.tenant or "", found.model_id or "")
        cost = token_cost(request.tokens_delta, divisor=divisor, per_step=True)
        grant = self._buckets.take(key, cost, now=asyncio.get_running_loop().time(), limit=limit)
        if not grant.allowed:
            raise SubjectQuotaExceeded(Quota(limit, grant))
        return Quota(limit, grant)

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
        session = self.session(request, began)
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

    def session(self, request: DiagnoseRequest, now: float) -> Session:
        """The live session of a request's subject, made when there is none.

        Raises:
            Unavailable: there is no room for another one.
        """
        subject = (request.tenant, request.user, request.session)
        session = self.sessions.get(subject, now)
        if session is not None:
            return session
        names = self.subjects
        stream = self._stream(subject)
        self.budget.open(stream, request.tenant, pool=names.tenant(request.tenant))
        while self.sessions.full:
            victim = self.sessions.victim(now)
            self.end(victim, "abandoned")
            self.sessions.remove(victim)
        session = Session(
            subject=subject,
            digest=names.subject(*subject),
            stream=stream,
            user=names.user(request.tenant, request.user),
            names=staging.names(request),
            touched=now,
        )
        self.sessions.add(session)
        return session

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
        for attempt in (1, 2):
            key = self._key(session, request)
            turn.pins = self.resolver.pins(key, shape)
            why = await self.reservable(turn)
            if why:
                # no budget can be had: the policy decides, and nothing is scored
                return await self.judge.conclude(turn, self._row(turn, None), None, why)
            row = self._row(turn, self.pin(turn))
            result, failure = await self._evidence(turn, row)
            if failure == "assets" and attempt == 1 and self.resolver.pins(key, shape, fresh=True).ids != turn.pins.ids:
                continue
            break
        return await self.judge.conclude(turn, row, result, failure)

    def _key(self, session: Session, request: DiagnoseRequest) -> Key:
        """The key of a step; that of a canary where the session is one of its."""
        key = staging.key(request)
        if self.resolver.canary is None and self.watch.trial is None:
            return key
        # as of now: the newest pins may be older than the end of the trial
        canary = self.resolver.current().canary
        self.watch.of(canary)
        if canary is None:
            return key
        if not (session.canary or session.steps or session.pins) and canary.covers(session.digest, key):
            self._try(session, canary)
        return canary.key(key) if session.canary == canary.id else key

    def _try(self, session: Session, canary: Canary) -> None:
        """Make a generation the canary's: neither what it spends nor what it rejects is the guaranteed stream's."""
        home, session.stream = session.stream, self._stream(session.subject, mark=STREAM)
        session.canary = canary.id
        try:
            self._open_stream(session)
        except Unavailable:
            # no room for another stream: it is judged as all others
            session.stream, session.canary = home, ""
            return
        session.home, session.notes = home, (*session.notes, NOTE)
        self.watch.began(session)

    def _stream(self, subject: tuple[str, str, str], *, mark: str = "") -> str:
        tenant, user, _ = subject
        names = self.subjects
        return names.tenant(tenant + mark) if self.settings.unit != "request" else names.user(tenant + mark, user)

    def routes(self, reservation: Reservation | None) -> bool:
        """Whether a row can trigger: blocks are judged when the session closes."""
        return reservation is not None and self.settings.unit != "block"

    @property
    def unit_flag(self) -> Flag:
        """Unit of the hypotheses, as rows carry it."""
        return _UNITS[self.settings.unit]

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
            self.end(session, "end")
            session.restart()
        if not session.steps and request.step_id and not session.notes:
            # its beginning was not seen here: a restart, an eviction, or a client that starts in the middle
            session.notes = ("session joined in the middle",)
        return staging.stage(session.window, request)

    async def reservable(self, turn: Turn) -> str:
        """See that `pin` can reserve at once: empty, or why it cannot (in time).

        Where the budget is leased, the session is settled on its pins first, then a lease is waited for.
        """
        budget, session = self.budget, turn.session
        if turn.lost:
            return turn.lost
        if not budget.leased or not self.wants(turn):
            return ""
        self._open_stream(session)
        left = turn.call.deadline - asyncio.get_running_loop().time()
        try:
            with Cutoff(turn.call.deadline - min(_MARGIN, _MARGIN_SHARE * max(left, 0.0)), "no lease in time"):
                await budget.prepare(session.stream, length=turn.pins.length)
        except Unavailable:
            return "ledger"
        return ""

    def _open_stream(self, session: Session) -> None:
        # the stream may have gone to rest since the session began
        tenant = session.subject[0]
        pool = self.subjects.tenant(tenant + (STREAM if session.canary else ""))
        self.budget.open(session.stream, tenant, pool=pool)

    def pin(self, turn: Turn) -> Reservation | None:
        """Reserve the session's hypothesis, or go on with it; None when this step is under none."""
        session, pins = turn.session, turn.pins
        if not self.wants(turn):
            return session.reservation if pins.mask and not session.beyond and pins.p_floor < 1.0 else None
        session.hypothesis = f"{session.digest[7:23]}.{self._boot}.{next(self._numbers)}"
        self._open_stream(session)
        session.reservation = self.budget.reserve(
            session.stream, session.hypothesis, user=session.user, length=pins.length
        )
        turn.cost += session.reservation.cost
        turn.reserved = True
        return session.reservation

    def wants(self, turn: Turn) -> bool:
        """Settle the session on the step's pins; whether it needs a reservation then."""
        session, pins, tokens = turn.session, turn.pins, turn.staged.tokens
        if not pins.mask:
            return False
        known = session.pins
        # a chain's first record names the pins: other ones are another chain, also the first after none
        if not known.same(pins) if known is not None else session.chain is not None:
            self.end(session, "pin_changed")
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
                self.judge.judge_blocks(session)
                self.budget.close(session.stream, session.hypothesis, "horizon")
            session.beyond = True
        return not session.beyond and pins.p_floor < 1.0 and session.reservation is None

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
            controller=self.routes(reservation),
            unit=self.unit_flag,
        )

    async def _evidence(self, turn: Turn, row: ScoreRow) -> tuple[ScoreResult | None, str]:
        """The ensemble's answer, or None and why there is none. Whatever ends the wait, the cost is kept."""
        loop = asyncio.get_running_loop()
        began, started = loop.time(), perf_counter()
        left = turn.call.deadline - began
        left -= min(_MARGIN, _MARGIN_SHARE * max(left, 0.0))
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
