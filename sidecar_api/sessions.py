"""Live sessions: one step in flight each, bounded in number and bytes, idle ones closed.

A table entry is a whole session's state on this server; it never holds budgets, those are the controller's.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sidecar_api.answer import KeptAv
from sidecar_api.blocks import Blocks
from sidecar_api.pins import Pins
from sidecar_api.schemas import Check
from sidecar_api.windows import Hold, SessionWindow
from tcd.contract import SUP_START
from tcd.errors import Conflict, Unavailable
from tcd.receipts import ChainState
from tcd.receipts import decisions as records
from tcd.risk_av import Reservation

Subject = tuple[str, str, str]
#: Bytes of a session beside its windows.
_OVERHEAD = 2048


@dataclass(slots=True, eq=False)
class Written:
    """Parts of a session's answers and records that were made once, each with what it was made of."""

    subject: tuple[tuple[str, ...], records.Subject] | None = None
    av: tuple[Reservation | None, float, str, records.Av] | None = None
    claim: tuple[Any, str] | None = None
    checks: tuple[Any, list[Check]] | None = None
    answer: KeptAv = field(default_factory=KeptAv)


@dataclass(slots=True, eq=False)
class Session:
    """One generation.

    Attributes:
        subject: tenant, user, session.
        digest: keyed digest of the subject.
        stream: name of the stream its hypotheses belong to.
        user: keyed digest of the user, for the credit cap.
        names: model_id, gpu_id, task, lang of its newest step.
        window, sup, hold: windows, running maxima and hysteresis, changed at settle only.
        steps: settled steps; `last_step` the newest step_id seen.
        pins, hypothesis, reservation: of the open hypothesis, None without one.
        p: p-value of the hypothesis (frozen past the horizon).
        triggered: whether the session was ever rejected (latched).
        beyond: past the calibration's horizon: no more hypotheses.
        notes: why no claim can be made about this session.
        chain: where its receipts stand, None before the first.
        generation: counts the chains of one subject and model, so that no two share an id.
        touched: time of its last step, on the loop's clock.
        ticket: reservation token of a direct caller, or empty.
        blocks: evidence of the unit `block`.
        written: parts of its records.
        tool: named by the context of a step, or empty.
        nbytes: bytes it counted for in the table.
        recorded: what the signal log keeps of it, `sidecar_api.signal_log.Recording`; None = nothing.
        canary: id of the candidate on trial that its generation is judged by, or empty; `home` its own stream then.
        trial: its place in that trial, `sidecar_api.canary`.
    """

    subject: Subject
    digest: str
    stream: str
    user: str
    names: tuple[str, str, str, str]
    touched: float
    window: SessionWindow = field(default_factory=SessionWindow)
    sup: tuple[float, float] = (SUP_START, SUP_START)
    hold: Hold = field(default_factory=Hold)
    steps: int = 0
    last_step: int | None = None
    pins: Pins | None = None
    hypothesis: str = ""
    reservation: Reservation | None = None
    p: float = 1.0
    triggered: bool = False
    beyond: bool = False
    notes: tuple[str, ...] = ()
    chain: ChainState | None = None
    nbytes: int = 0
    ticket: str = ""
    tool: str = ""
    blocks: Blocks = field(default_factory=Blocks)
    written: Written = field(default_factory=Written)
    recorded: Any = None
    canary: str = ""
    home: str = ""
    trial: Any = None
    busy: bool = False
    waiters: deque[asyncio.Future[None]] = field(default_factory=deque)

    @property
    def idle(self) -> bool:
        """Whether no step is in flight or waits."""
        return not self.busy and not self.waiters

    async def acquire(self, *, wait: float, waiters: int) -> None:
        """Take the one place in flight.

        Args:
            wait: seconds to wait for it; 0 = not at all.
            waiters: steps that may wait at once.

        Raises:
            Conflict: another step is in flight.
        """
        if not self.busy:
            self.busy = True
            return
        if wait <= 0 or len(self.waiters) >= waiters:
            msg = "a step of this session is in flight"
            raise Conflict(msg, retry_after=0.05)
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self.waiters.append(turn)
        timer = loop.call_later(wait, _give_up, turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # cancelled in the moment it got the place
                self.release()
            elif turn in self.waiters:
                self.waiters.remove(turn)
            raise
        finally:
            timer.cancel()

    def release(self) -> None:
        """Give the place to the next that waits."""
        while self.waiters:
            turn = self.waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.busy = False

    def disown(self, note: str) -> None:
        """Its hypothesis and its chain are somebody else's to end; it goes on without a claim."""
        self.pins = None
        self.hypothesis = ""
        self.reservation = None
        self.chain = None
        self.ticket = ""
        self.notes = (*self.notes, note) if note not in self.notes else self.notes

    def restart(self) -> None:
        """Forget the generation: a new one begins under the same name."""
        self.window = SessionWindow()
        self.sup = (SUP_START, SUP_START)
        self.hold = Hold()
        self.steps = 0
        self.last_step = None
        self.pins = None
        self.hypothesis = ""
        self.reservation = None
        self.p = 1.0
        self.blocks = Blocks()
        self.triggered = False
        self.beyond = False
        self.notes = ()
        self.chain = None
        if self.canary:
            self.stream, self.canary = self.home, ""


def _give_up(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(Conflict("a step of this session is in flight", retry_after=0.05))


class SessionTable:
    """All live sessions in the order of their last use."""

    def __init__(self, *, limit: int, limit_bytes: int, idle: float, min_idle: float) -> None:
        """An empty table.

        Args:
            limit: sessions at most.
            limit_bytes: bytes of all windows at most.
            idle: seconds after which a session is over.
            min_idle: seconds after which a full table may end the longest idle one.
        """
        self._sessions: OrderedDict[Subject, Session] = OrderedDict()
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._idle = idle
        self._min_idle = min_idle
        self.nbytes = 0

    def __len__(self) -> int:
        """Number of sessions."""
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        """Sessions, longest idle first."""
        return iter(tuple(self._sessions.values()))

    def get(self, subject: Subject, now: float) -> Session | None:
        """A live session, touched."""
        session = self._sessions.get(subject)
        if session is not None:
            self._sessions.move_to_end(subject)
            session.touched = now
        return session

    @property
    def full(self) -> bool:
        """Whether a new session needs room."""
        return len(self._sessions) >= self._limit or self.nbytes >= self._limit_bytes

    def victim(self, now: float) -> Session:
        """The session that a full table may end.

        Raises:
            Unavailable: none is idle for long enough.
        """
        for session in self._sessions.values():
            if session.idle and now - session.touched >= self._min_idle:
                return session
            if session.idle:
                break
        msg = f"{len(self._sessions)} sessions are live already"
        raise Unavailable(msg, retry_after=1.0)

    def expired(self, now: float) -> Session | None:
        """The longest idle session, when it is over."""
        for session in self._sessions.values():
            if now - session.touched < self._idle:
                return None
            if session.idle:
                return session
        return None

    def add(self, session: Session) -> None:
        """Add a session."""
        self._sessions[session.subject] = session
        self.measure(session)

    def measure(self, session: Session) -> None:
        """Count the bytes of a session anew."""
        nbytes = session.window.nbytes + _OVERHEAD
        self.nbytes += nbytes - session.nbytes
        session.nbytes = nbytes

    def remove(self, session: Session) -> None:
        """Forget a session."""
        if self._sessions.get(session.subject) is session:
            del self._sessions[session.subject]
            self.nbytes -= session.nbytes
