"""Asking the shim about a generation as its tokens come: what was measured in, decisions out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from tcd.client import ApiError, ClientError, Decision
from tcd.proxy.logprobs import Measured
from tcd.proxy.metrics import ProxyMetrics

#: Values that one request of /diagnose takes.
MOST: Final = 4096
#: Problems that say something of this request, not of the shim.
_OWN: Final = frozenset({"conflict", "validation_failed", "invalid_request", "quota-exceeded"})


class Diagnoser(Protocol):
    """What is asked: a `tcd.client.AsyncClient`."""

    async def diagnose(self, **members: Any) -> Decision:
        """Decide about some tokens."""
        ...


class Judge:
    """Asks the shim; after a failure nobody asks it for a while, so that no answer waits for a shim that is away."""

    def __init__(
        self,
        client: Diagnoser,
        *,
        metrics: ProxyMetrics,
        deadline: float = 1.0,
        pause: float = 1.0,
        entropies: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask `client`.

        Args:
            client: of the shim.
            metrics: where it is counted.
            deadline: seconds of a call, its retries included.
            pause: seconds after a failure during which nothing is asked.
            entropies: send entropies too; they are those of the likeliest tokens only.
            clock: seconds.
        """
        self._client = client
        self._metrics = metrics
        self._deadline = deadline
        self._pause = pause
        self._entropies = entropies
        self._clock = clock
        self._again = -float("inf")

    def generation(self, session: str, members: Mapping[str, Any], *, every: int) -> Generation:
        """A generation that begins."""
        return Generation(self, session, members, every=every)

    async def ask(self, tokens: Sequence[Measured], **members: Any) -> Decision | None:
        """The decision about some tokens; None when there is none."""
        trace = [token.logprob for token in tokens]
        if self._clock() < self._again:
            self._metrics.undecided("skipped", len(trace))
            return None
        if self._entropies and tokens[-1].entropy is not None:
            members["entropy"] = tokens[-1].entropy
        try:
            decision = await self._client.diagnose(
                deadline=self._deadline, trace_vector=trace, tokens_delta=len(trace), **members
            )
        except ClientError as error:
            if not (isinstance(error, ApiError) and error.code in _OWN):
                self._again = self._clock() + self._pause
            self._metrics.undecided("failed", len(trace))
            return None
        self._metrics.diagnosed(len(trace))
        return decision

    def overflowed(self, tokens: int) -> None:
        """Count tokens that came faster than they could be judged."""
        self._metrics.lost(tokens)


class Generation:
    """One choice of one answer.

    Attributes:
        session: its name at the shim.
        tokens: measured so far.
        stop: the decision that ended it.
        failed: a call gave no decision.
    """

    def __init__(self, judge: Judge, session: str, members: Mapping[str, Any], *, every: int) -> None:
        """Judge every `every` tokens."""
        self._judge = judge
        self._members = members
        self._every = every
        self._pending: list[Measured] = []
        self._step = 0
        self._lock = asyncio.Lock()
        self.session = session
        self.tokens = 0
        self.stop: Decision | None = None
        self.failed = False

    def add(self, measured: Sequence[Measured]) -> None:
        """Take tokens in; the oldest are lost when nobody judges them in time."""
        self._pending += measured
        self.tokens += len(measured)
        over = len(self._pending) - MOST
        if over > 0:
            del self._pending[:over]
            self._judge.overflowed(over)

    @property
    def due(self) -> bool:
        """Whether enough tokens wait."""
        return len(self._pending) >= self._every

    async def judged(self, *, rest: bool) -> None:
        """Have what waits judged, `every` tokens a call, one call at a time.

        Args:
            rest: also fewer than `every`.
        """
        async with self._lock:
            while self.stop is None and (self.due or (rest and self._pending)):
                now, self._pending = self._pending[: self._every], self._pending[self._every :]
                decision = await self._judge.ask(now, session=self.session, step_id=self._step, **self._members)
                self._step += 1
                if decision is None:
                    self.failed = True
                elif decision.stop:
                    self.stop = decision
