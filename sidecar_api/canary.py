"""The watch over a calibration on trial: ends it when its alarm rate or its SLO is off, promotes it when it holds.

Whether a candidate's p-values are too small or too large is judged by two betting tests of the sessions' final p-values
(Waudby-Smith and Ramdas, JRSS B 86, 2024): their wealth is at least 1/delta with probability delta at most at any time
if the rate is as allowed, so looking after every session costs nothing. Sessions count in the order in which they
began, as reservations do: counted as they end, the ones that a trigger cut short would come first.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sidecar_api.sessions import Session
from tcd.calibration.assets import Canary
from tcd.detector.windows import BLOCK

_LOG: Final = logging.getLogger(__name__)
#: Note of a canary's sessions, hence in their guarantee: `none (canary)`.
NOTE: Final = "canary"
#: What the tenant's name is continued with in the name of the canary's stream; no tenant can be called so.
STREAM: Final = "\x00canary"
#: Probability that a good candidate is ever rolled back for its alarms, half of it for each side.
DELTA: Final = 0.01
#: A session is a hit when its p-value is at most this; of benign ones at most this share are.
LEVEL: Final = 0.05
#: Share of hits that is allowed: the level and as many really faulty sessions.
NOISY: Final = 0.1
#: At least this share has a p-value of at most a half; about half of them should.
MUTE: Final = 0.25
_HALF: Final = 0.5
#: Stakes, as shares of the largest that cannot lose everything.
_STAKES: Final = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
#: Sessions that are under way or wait for an older one. When it is full the oldest counts as it stands.
_WAITING: Final = 65_536
_LEAST_STEPS: Final = 50
_SLOW: Final = 0.05
_ERRORS: Final = 3.0
Verdict = Literal["", "noisy", "mute", "slow", "passed"]


@dataclass(slots=True)
class Bets:
    """Wealth against "the mean of x in [0, 1] is at most `allowed`", a mixture over stakes; in logarithms."""

    allowed: float
    logs: list[float] = field(default_factory=lambda: [0.0] * len(_STAKES))

    def add(self, x: float) -> None:
        """Bet once."""
        for i, share in enumerate(_STAKES):
            self.logs[i] += math.log1p(share / self.allowed * (x - self.allowed))

    @property
    def log_wealth(self) -> float:
        """Natural logarithm of the wealth."""
        top = max(self.logs)
        return top + math.log(sum(math.exp(value - top) for value in self.logs) / len(self.logs))


@dataclass(slots=True)
class Service:
    """Steps and those of them that were late or degraded."""

    steps: int = 0
    bad: int = 0

    @property
    def share(self) -> float:
        """Of bad ones."""
        return self.bad / self.steps if self.steps else 0.0

    @property
    def error(self) -> float:
        """Standard error of the share, if steps were independent."""
        return math.sqrt(self.share * (1.0 - self.share) / self.steps) if self.steps else 0.0


@dataclass(slots=True, eq=False)
class _Seen:
    """One session of the canary, in the order of their beginnings."""

    p: float = 1.0
    tokens: int = 0
    over: bool = False

    @property
    def settled(self) -> bool:
        """Whether both of its outcomes can no longer change."""
        return self.over or self.p <= LEVEL


@dataclass(slots=True)
class Trial:
    """What is known about one candidate. Pure.

    Attributes:
        canary: the candidate.
        judged, hits, halves: sessions that counted, with p-values of at most `LEVEL`, and of at most a half.
        noisy, mute: the two tests.
        mine, others: steps of the canary's sessions and of all others.
        over: whether a verdict was carried out, or tried to be: it is not tried again.
    """

    canary: Canary
    judged: int = 0
    hits: int = 0
    halves: int = 0
    noisy: Bets = field(default_factory=lambda: Bets(NOISY))
    mute: Bets = field(default_factory=lambda: Bets(1.0 - MUTE))
    mine: Service = field(default_factory=Service)
    others: Service = field(default_factory=Service)
    waiting: deque[_Seen] = field(default_factory=deque)
    over: bool = False

    def begin(self) -> _Seen:
        """A session of the canary begins."""
        if len(self.waiting) >= _WAITING:
            self.waiting[0].over = True
            self.fold()
        seen = _Seen()
        self.waiting.append(seen)
        return seen

    def fold(self) -> None:
        """Count the oldest sessions whose outcome is known. One too short for a p-value counts for nothing."""
        while self.waiting and self.waiting[0].settled:
            seen = self.waiting.popleft()
            if seen.tokens < BLOCK:
                continue
            hit, half = seen.p <= LEVEL, seen.p <= _HALF
            self.judged += 1
            self.hits += hit
            self.halves += half
            self.noisy.add(float(hit))
            self.mute.add(1.0 - half)

    @property
    def verdict(self) -> Verdict:
        """What is to be done now; empty = go on."""
        limit = math.log(2.0 / DELTA)
        if self.noisy.log_wealth >= limit:
            return "noisy"
        if self.mute.log_wealth >= limit:
            return "mute"
        if min(self.mine.steps, self.others.steps) >= _LEAST_STEPS:
            # of a machine that is late for everybody the candidate is not the reason
            error = math.hypot(self.mine.error, self.others.error)
            if self.mine.share > self.others.share + _SLOW + _ERRORS * error:
                return "slow"
        return "passed" if self.judged >= self.canary.sessions else ""

    def to_json(self) -> dict[str, Any]:
        """For people."""
        return {
            "candidate": self.canary.id,
            "share": self.canary.share,
            "sessions": self.canary.sessions,
            "judged": self.judged,
            "hits": self.hits,
            "level": LEVEL,
            "allowed": NOISY,
            "halves": self.halves,
            "wealth_noisy": round(math.exp(min(self.noisy.log_wealth, 50.0)), 6),
            "wealth_mute": round(math.exp(min(self.mute.log_wealth, 50.0)), 6),
            "steps": self.mine.steps,
            "bad_share": round(self.mine.share, 6),
            "bad_share_of_others": round(self.others.share, 6),
            "waiting": len(self.waiting),
        }


#: Does what a verdict says, once: (candidate, verdict, figures).
Act = Callable[[Canary, Verdict, dict[str, Any]], Awaitable[None]]


class Watch:
    """Follows the trial of one shim. Bound to its event loop."""

    def __init__(self, act: Act, *, slo: Callable[[], float]) -> None:
        """Carry out verdicts by `act`; a step slower than `slo` seconds is late."""
        self._act, self._slo = act, slo
        self.trial: Trial | None = None
        self._acting: asyncio.Task[None] | None = None

    def of(self, canary: Canary | None) -> Trial | None:
        """The trial of the canary in force."""
        if canary is None:
            self.trial = None
        elif self.trial is None or self.trial.canary.id != canary.id:
            self.trial = Trial(canary)
        return self.trial

    def began(self, session: Session) -> None:
        """A generation becomes the canary's."""
        if self.trial is not None:
            session.trial = self.trial.begin()

    def stepped(self, session: Session, *, seconds: float, degraded: bool) -> None:
        """A step was answered."""
        trial = self.trial
        if trial is None:
            return
        service = trial.mine if session.trial is not None else trial.others
        service.steps += 1
        service.bad += degraded or seconds > self._slo()
        if session.trial is not None:
            session.trial.p = min(session.trial.p, session.p)
            session.trial.tokens = session.window.tokens
            self._look(trial)

    def ended(self, session: Session) -> None:
        """A generation, or its hypothesis, ended."""
        seen, session.trial = session.trial, None
        if seen is not None:
            seen.over = True
            if self.trial is not None:
                self._look(self.trial)

    def _look(self, trial: Trial) -> None:
        trial.fold()
        verdict = trial.verdict
        if verdict and not trial.over:
            trial.over = True
            self._acting = asyncio.get_running_loop().create_task(self._carry_out(trial, verdict))

    async def _carry_out(self, trial: Trial, verdict: Verdict) -> None:
        try:
            await self._act(trial.canary, verdict, trial.to_json())
        finally:
            self._acting = None
