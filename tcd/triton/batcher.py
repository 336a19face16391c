"""The adaptive micro-batcher: Triton's cost is per request, so rows that wait anyway travel together.

No timer: the first arrival schedules a flush in the same loop tick; while `in_flight` batches are out,
rows queue; a returning batch flushes the queue. The bounded queue is the only admission control.

How many go out at once is a choice: where server and shim share two cores, a second call only takes the time of the
first one, and rows that wait for it share the next one's price. The same is true of a commit of the rows before them
(`follow`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from tcd import deadlines
from tcd.contract import DIAGNOSE, Model
from tcd.errors import ScoringError, ScoringTimeout, Unavailable
from tcd.rows import ScoreResult, ScoreRow, pack, unpack
from tcd.triton.client import InferenceClient, ScoringUnreachable
from tcd.triton.trace import TRACEPARENT

_Widths = tuple[int, int, int, int]
_NO_ROW = ScoreRow()
#: Weight of the newest batch in the moving average of batch durations.
_SMOOTHING = 0.2
#: Rows that are answered in one turn of the event loop, whatever batches they came in: what follows an answer costs a
#: fraction of a millisecond each.
_SLICE = 16
#: Usual durations of a call after which it is slow: then others need not wait for it.
_SLOW = 4.0
#: Seconds that rows wait for a commit at most: usual ones take a few milliseconds.
_PATIENCE = 0.05
_MIN_RETRY_AFTER = 0.05
_MAX_RETRY_AFTER = 5.0


class BatchObserver(Protocol):
    """What metrics are made of; called in the event loop, must not block."""

    def batch(self, *, rows: int, seconds: float, outcome: str) -> None:
        """One call of the server ended: `ok`, `timeout`, `unreachable` or `error`."""
        ...

    def queue(self, *, depth: int) -> None:
        """The queue holds `depth` rows now."""
        ...

    def refused(self, *, reason: str) -> None:
        """A row was refused: `full` or `draining`."""
        ...


@dataclass(slots=True)
class BatcherStats:
    """Counters since the start."""

    rows: int = 0
    batches: int = 0
    failed_batches: int = 0
    retried_rows: int = 0
    refused: int = 0
    expired: int = 0
    dropped: int = 0


@dataclass(slots=True, eq=False)
class _Pending:
    row: ScoreRow
    widths: _Widths
    order: int
    deadline: float
    future: asyncio.Future[ScoreResult]
    trace: str
    batcher: MicroBatcher | None

    def expire(self) -> None:
        """See `tcd.deadlines.Expiring`."""
        if self.batcher is not None:
            self.batcher.expired(self)


class MicroBatcher:
    """`tcd.rows.Scorer` that sends rows of equal widths to the ensemble in batches.

    Bound to the event loop of its first `score`.
    """

    def __init__(
        self,
        client: InferenceClient,
        *,
        model: Model | str = DIAGNOSE,
        max_batch: int = 128,
        in_flight: int = 4,
        eager: int | None = None,
        together: int = 0,
        queue_limit: int = 2048,
        observer: BatchObserver | None = None,
    ) -> None:
        """Make a batcher.

        Args:
            client: whatever runs the ensemble; the batcher does not close it.
            model: the ensemble.
            max_batch: rows of one call at most.
            in_flight: calls under way at most; rows that come meanwhile queue.
            eager: calls that go out as soon as there is a row, None = all of them; one more, up to `in_flight`, goes
                only with a row that comes while the newest one is slow: nobody waits for a call that hangs.
            together: rows that wait for a commit under way (see `follow`) until there are so many of them; 0 = none do.
            queue_limit: rows that may wait; one more is refused with `Unavailable`.
            observer: told about batches, queue depth and refusals.
        """
        self._client = client
        self._model = model
        self._max_batch = max_batch
        self._slots = in_flight
        self._eager = in_flight if eager is None else eager
        self._together = together
        self._committing: Callable[[], int] = lambda: 0
        self._patience: asyncio.TimerHandle | None = None
        self._patient = True
        self._sent = 0.0
        self._queue_limit = queue_limit
        self._observer = observer
        self._groups: dict[_Widths, OrderedDict[int, _Pending]] = {}
        self._order = count()
        self._depth = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: deque[tuple[_Pending, ScoreResult]] = deque()
        self._answering = False
        self._scheduled = False
        self._draining = False
        self._idle: asyncio.Event | None = None
        self._batch_seconds = 0.005
        self._deadlines: deadlines.Deadlines | None = None
        self.stats = BatcherStats()

    @property
    def depth(self) -> int:
        """Rows that wait."""
        return self._depth

    @property
    def in_flight(self) -> int:
        """Batches that are out."""
        return len(self._tasks)

    async def score(self, row: ScoreRow, *, timeout: float) -> ScoreResult:
        """Score one row; see `tcd.rows.Scorer`.

        Raises:
            Unavailable: the queue is full or draining; `retry_after` says when to come again.
            ScoringTimeout: no answer within `timeout`.
            ScoringError: the ensemble failed, on the retry too.
        """
        if self._draining or self._depth >= self._queue_limit:
            raise self._refuse()
        loop = asyncio.get_running_loop()
        due, widths, order = loop.time() + timeout, row.widths, next(self._order)
        pending = _Pending(row, widths, order, due, loop.create_future(), TRACEPARENT.get(), self)
        if self._deadlines is None:
            self._deadlines = deadlines.of(loop)
        self._deadlines.watch(due, pending)
        group = self._groups.get(widths)
        if group is None:
            group = self._groups[widths] = OrderedDict()
        group[order] = pending
        self._set_depth(self._depth + 1)
        if not self._scheduled and self._may_send():
            self._scheduled = True
            loop.call_soon(self._flush)
        try:
            return await pending.future
        except asyncio.CancelledError:
            if self._remove(pending):
                self.stats.dropped += 1
            raise
        finally:
            # kept until its deadline: without the row
            pending.batcher = None
            pending.row = _NO_ROW

    def follow(self, committing: Callable[[], int]) -> None:
        """Let rows wait for the commit of those before them, where that pays; `committed` says that one has ended.

        A call that goes out beside a commit takes few rows and the same CPU as one after it, which takes more: those
        that came meanwhile. With less than `together` requests in all there would be no more.

        Args:
            committing: tells how many answers wait for their commit.
        """
        self._committing = committing

    def committed(self) -> None:
        """A commit has ended: rows need not wait for it any more."""
        if self._groups and not self._scheduled and self._may_send():
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    async def drain(self, *, timeout: float) -> bool:
        """Refuse new rows and wait for those under way.

        Args:
            timeout: seconds after which the rest fails with `Unavailable`.

        Returns:
            Whether every row was answered.
        """
        self._draining = True
        if not self._depth and not self._tasks and not self._answers:
            return True
        self._idle = asyncio.Event()
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except asyncio.TimeoutError:
            for group in list(self._groups.values()):
                for pending in list(group.values()):
                    self._remove(pending)
                    self._settle(pending, ScoringError("the server is stopping", retry_after=1.0))
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            return False
        return True

    def _refuse(self) -> Unavailable:
        reason = "draining" if self._draining else "full"
        self.stats.refused += 1
        if self._observer:
            self._observer.refused(reason=reason)
        if self._draining:
            return Unavailable("the server is stopping", retry_after=1.0)
        waves = self._depth / (self._max_batch * self._slots)
        wait = min(_MAX_RETRY_AFTER, max(_MIN_RETRY_AFTER, waves * self._batch_seconds))
        return Unavailable(f"{self._depth} rows are waiting already", retry_after=wait)

    def _set_depth(self, depth: int) -> None:
        self._depth = depth
        if self._observer:
            self._observer.queue(depth=depth)

    def _remove(self, pending: _Pending) -> bool:
        """Take a row out of the queue; False when it is not there any more."""
        group = self._groups.get(pending.widths)
        if group is None or group.pop(pending.order, None) is None:
            return False
        if not group:
            del self._groups[pending.widths]
        self._set_depth(self._depth - 1)
        self._note_idle()
        return True

    def expired(self, pending: _Pending) -> None:
        """A row's deadline has passed."""
        self._remove(pending)
        if not pending.future.done():
            self.stats.expired += 1
            pending.future.set_exception(ScoringTimeout("the row was not scored by its deadline"))

    @staticmethod
    def _settle(pending: _Pending, outcome: ScoreResult | ScoringError) -> None:
        if pending.future.done():
            return
        if isinstance(outcome, ScoringError):
            # an exception object per row: a shared one would collect every waiter's traceback
            pending.future.set_exception(type(outcome)(outcome.detail, retry_after=outcome.retry_after))
        else:
            pending.future.set_result(outcome)

    def _may_send(self) -> bool:
        out = len(self._tasks)
        if out < self._eager:
            return not self._waits_for_commit()
        return out < self._slots and asyncio.get_running_loop().time() - self._sent > _SLOW * self._batch_seconds

    def _waits_for_commit(self) -> bool:
        if not self._depth < self._together <= self._depth + self._committing():
            return False
        if self._patience is None:
            self._patience = asyncio.get_running_loop().call_later(_PATIENCE, self._lose_patience)
        return self._patient

    def _lose_patience(self) -> None:
        """The commit takes too long."""
        self._patient = False
        self._flush()

    def _flush(self) -> None:
        self._scheduled = False
        while self._groups and self._may_send():
            self._sent = asyncio.get_running_loop().time()
            if self._patience is not None:
                self._patience.cancel()
                self._patience, self._patient = None, True
            task = asyncio.get_running_loop().create_task(self._run(self._take()))
            self._tasks.add(task)
            task.add_done_callback(self._returned)

    def _take(self) -> list[_Pending]:
        """The oldest row and those of its widths that came next."""
        widths = min(self._groups, key=lambda w: next(iter(self._groups[w])))
        group = self._groups[widths]
        batch = [group.popitem(last=False)[1] for _ in range(min(self._max_batch, len(group)))]
        if not group:
            del self._groups[widths]
        self._set_depth(self._depth - len(batch))
        return batch

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._flush()
        self._note_idle()

    def _note_idle(self) -> None:
        if self._idle is not None and not self._depth and not self._tasks and not self._answers:
            self._idle.set()

    async def _run(self, batch: list[_Pending]) -> None:
        try:
            results = await self._call(batch)
        except ScoringTimeout as error:
            # the call had the longest of the rows' deadlines: nobody has time for another
            for pending in batch:
                self._settle(pending, error)
        except ScoringError as error:
            try:
                await self._retry(batch, error)
            finally:
                self._give_up(batch)
        except BaseException:
            # cancelled by drain(), or a defect: nobody may be left waiting
            self._give_up(batch)
            raise
        else:
            self._answers.extend(zip(batch, results, strict=True))
            if not self._answering:
                self._answer()

    def _give_up(self, batch: Sequence[_Pending]) -> None:
        for pending in batch:
            self._settle(pending, ScoringError("the batch was given up"))

    def _answer(self) -> None:
        """Answer a slice of what came back, of all batches together, and the next one when the loop has turned.

        Who was answered goes on, and what came in meanwhile is read, before the next are answered.
        """
        answers = self._answers
        for _ in range(min(_SLICE, len(answers))):
            self._settle(*answers.popleft())
        self._answering = bool(answers)
        if answers:
            asyncio.get_running_loop().call_soon(self._answer)
        else:
            self._note_idle()

    async def _call(self, batch: Sequence[_Pending]) -> list[ScoreResult]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        outcome = "error"
        # in the batch's own task
        TRACEPARENT.set(next((p.trace for p in batch if p.trace), ""))
        try:
            tensors = pack([p.row for p in batch])
            outputs = await self._client.infer(
                tensors, model=self._model, timeout=max(p.deadline for p in batch) - started
            )
            results = unpack(outputs)
            if len(results) != len(batch):
                msg = f"{len(results)} results for {len(batch)} rows"
                raise ScoringError(msg)
            outcome = "ok"
        except ScoringTimeout:
            outcome = "timeout"
            raise
        except ScoringUnreachable:
            outcome = "unreachable"
            raise
        finally:
            self._count(len(batch), loop.time() - started, outcome)
        return results

    def _count(self, rows: int, seconds: float, outcome: str) -> None:
        self.stats.batches += 1
        if outcome == "ok":
            self.stats.rows += rows
            self._batch_seconds += _SMOOTHING * (seconds - self._batch_seconds)
        else:
            self.stats.failed_batches += 1
        if self._observer:
            self._observer.batch(rows=rows, seconds=seconds, outcome=outcome)

    async def _retry(self, batch: Sequence[_Pending], error: ScoringError) -> None:
        """Each row once more, alone, while its deadline allows; a server that is away is asked only once."""
        for pending in batch:
            if pending.future.done():
                continue
            self.stats.retried_rows += 1
            try:
                [result] = await self._call([pending])
                self._settle(pending, result)
            except ScoringError as again:
                self._settle(pending, again)
                if isinstance(error, ScoringUnreachable) and isinstance(again, ScoringUnreachable):
                    for rest in batch:
                        self._settle(rest, again)
                    return
