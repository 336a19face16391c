"""Signs checkpoints of a ledger's log in the background, and has them cosigned, exported and served.

A root is a function of the ledger's durable, append-only heads, so a checkpoint that a crash tore is made again, and
no size is ever signed with two roots. Hashing, files and signing happen in one thread; commits do not wait for it.
Several shims on one ledger take turns; each follows what the others signed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

from sidecar_api.log.witnesses import Witnesses
from tcd.background import end
from tcd.errors import Conflict, TcdError, Unavailable
from tcd.ledger import Checkpoint, Ledger
from tcd.ledger.log_tree import LogTree
from tcd.ledger.shared import SharedLedger
from tcd.ledger.tile_memory import MemoryTiles, TileStore
from tcd.receipts.errors import InconsistentLog, MalformedTile, NoQuorum, Rollback
from tcd.receipts.log_signer import LogSigner

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
#: Heads read and hashed at a time: the ledger's thread and the interpreter are free in between.
_PAGE: Final = 1024
_LONGEST_PAUSE: Final = 60.0
#: Seconds that the ledger has to give the heads of a tile that is no longer in memory.
_REREAD_S: Final = 10.0
#: The claim of whose turn it is; no client's tenant has so many characters.
_TURN: Final = ("tcd/checkpointer" + "-" * 128, "turn")


async def _listed(ledger: Ledger, first: int, count: int) -> Sequence[bytes]:
    return await ledger.heads(first=first, limit=count)


class Metrics(Protocol):
    """Where checkpoints are counted (`tcd.telemetry.transparency.LogMetrics`)."""

    def appended(self, size: int) -> None: ...  # noqa: D102 - named like what happened
    def published(self, size: int, *, time: float) -> None: ...  # noqa: D102
    def made(self, result: str) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Published:
    """A checkpoint that proofs lead to.

    Attributes:
        size: leaves.
        root: 32 bytes.
        note: as it is served, with cosignatures.
        enough: whether a quorum of witnesses cosigned it; True where none is asked for.
    """

    size: int
    root: bytes
    note: bytes
    enough: bool = True


class Checkpointer:
    """The log's one signer in this process. Bound to one event loop."""

    def __init__(
        self,
        ledger: Ledger,
        store: TileStore,
        signer: Callable[[], LogSigner],
        *,
        interval: float,
        witnesses: Witnesses | None,
        hold: bool,
        metrics: Metrics,
        now_us: Callable[[], int],
    ) -> None:
        """Nothing is read or signed before `start`.

        Args:
            ledger: whose receipts are the leaves.
            store: of the tiles.
            signer: the log's keys as of now.
            interval: seconds between checkpoints, at least.
            witnesses: whom to ask; None = nobody.
            hold: keep back what no quorum cosigned.
            metrics: where it is counted.
            now_us: microseconds since 1970.
        """
        self._ledger = ledger
        self._store = store
        self._signer = signer
        self._interval = interval
        self._witnesses = witnesses
        self._hold = hold
        self._metrics = metrics
        self._now_us = now_us
        self._shared = ledger if isinstance(ledger, SharedLedger) else None
        self._thread = ThreadPoolExecutor(1, "tcd-log")
        self._tree: LogTree | None = None
        self._grown = asyncio.Event()
        self._out = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self.newest: Published | None = None
        self.problem = ""
        self.broken = False

    # -- life ----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, inside a running loop."""
        loop = asyncio.get_running_loop()
        if isinstance(self._store, MemoryTiles):
            self._store.heads = partial(self._reread, loop)
        self._task = loop.create_task(self._run())

    def _reread(self, loop: asyncio.AbstractEventLoop, first: int, count: int) -> Sequence[bytes]:
        """Heads of the ledger, for threads other than the loop's."""
        asked = asyncio.run_coroutine_threadsafe(_listed(self._ledger, first, count), loop)
        try:
            return asked.result(_REREAD_S)
        except FutureTimeout:
            asked.cancel()
            msg = "the ledger does not answer"
            raise Unavailable(msg, retry_after=1.0) from None

    def grew(self, size: int) -> None:
        """The ledger has `size` receipts now."""
        self._metrics.appended(size)
        self._grown.set()

    async def stop(self, *, timeout: float) -> None:
        """Sign what is there, for at most `timeout` seconds, and end."""
        if self._task is not None:
            await end(self._task)
            self._task = None
            # the thread may still be at what the task had given it
            await self._do(lambda: None)
            if not self.broken:
                await self._last(timeout)
        await asyncio.to_thread(self._thread.shutdown)
        self._store.close()

    async def _last(self, timeout: float) -> None:
        try:
            await asyncio.wait_for(self._step(), timeout)
        except (TcdError, OSError, asyncio.TimeoutError) as error:
            _LOG.warning("the last receipts are in no checkpoint before the next start: %s", type(error).__name__)

    async def _run(self) -> None:
        while not self.broken:
            self._grown.clear()
            try:
                await self._step()
            except InconsistentLog as error:
                self._failed(error.detail)
                self.broken = True
                _LOG.error("no checkpoint will be signed: %s", error.detail)
                return
            except TcdError as error:
                self._failed(error.detail)
            except OSError as error:
                self._begin_anew()
                self._failed(f"the log's files cannot be used: {error.strerror or type(error).__name__}")
            except Exception as error:  # noqa: BLE001 - a defect below: no reason to end the shim
                self._begin_anew()
                _LOG.exception("the checkpointer failed")
                self._failed(type(error).__name__)
            else:
                self._fine()
            await asyncio.sleep(min(self._interval * 2**self._failures, max(_LONGEST_PAUSE, self._interval)))
            if self._shared is None and not self._failures:
                await self._grown.wait()

    def _begin_anew(self) -> None:
        """Something went wrong in between: go on from what was published, in memory from the ledger."""
        self._tree = None
        self._store.reset()

    def _failed(self, why: str) -> None:
        self._metrics.made("failed")
        self._failures = min(self._failures + 1, 20)
        if why != self.problem:
            self.problem = why
            _LOG.warning("no checkpoint: %s", why)

    def _fine(self) -> None:
        if self.problem:
            _LOG.warning("checkpoints are signed again")
        self.problem, self._failures = "", 0
        if self.newest is not None and not self.newest.enough:
            # asked again later
            self._failures = 1

    async def after(self, size: int, *, timeout: float) -> Published | None:
        """The first checkpoint of more than `size` leaves, None when there is none within `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while self.newest is None or self.newest.size <= size:
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._out.wait(), max(left, 0.0))
            except asyncio.TimeoutError:
                return None
        return self.newest

    async def work(self, job: Callable[[LogTree], _T]) -> _T:
        """Do something with the tree in its thread.

        Raises:
            tcd.errors.Unavailable: there is no tree yet, or no more, or a tile of it cannot be read.
        """
        tree = self._tree
        if tree is None or self.broken:
            msg = "the log is not there yet" if not self.broken else "the log is not served: its operator has to look"
            raise Unavailable(msg, retry_after=self._interval)
        try:
            return await self._do(lambda: job(tree))
        except (MalformedTile, OSError) as error:
            _LOG.error("a tile of the log cannot be read: %s", error)
            msg = "a tile of the log cannot be read"
            raise Unavailable(msg, retry_after=self._interval) from None

    async def _do(self, job: Callable[[], _T]) -> _T:
        try:
            doing = asyncio.get_running_loop().run_in_executor(self._thread, job)
        except RuntimeError as error:
            # the thread is gone
            msg = "the log is stopping"
            raise Unavailable(msg, retry_after=1.0) from error
        return await doing

    # -- one checkpoint ------------------------------------------------------------------------------------

    async def _step(self) -> None:
        if self._tree is None:
            self._tree = await self._do(lambda: LogTree(self._store))
        async with self._turn() as mine:
            stored = await self._ledger.checkpoint()
            await self._follow(self._tree, stored)
            if mine:
                await self._advance(self._tree, 0 if stored is None else stored.size)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[bool]:
        """Whether this shim may sign now: one at a time does."""
        if self._shared is None:
            yield True
            return
        mine = await self._shared.claim(*_TURN)
        try:
            yield mine
        finally:
            if mine:
                await self._shared.unclaim(*_TURN)

    async def _follow(self, tree: LogTree, stored: Checkpoint | None) -> None:
        """Come to the newest checkpoint of the ledger, whoever made it."""
        published = tree.published
        if published is not None and (stored is None or published.size > stored.size):
            msg = (
                f"the exported log has {published.size} leaves, more than the newest checkpoint of the ledger: it was "
            )
            msg += "restored from an older copy; remedy: docs/operations.md, Backup"
            raise Rollback(msg)
        if stored is None:
            return
        if published is not None and self.newest is not None and published.size == self.newest.size == stored.size:
            return
        await self._grow(tree, stored.size)
        if len(tree) < stored.size:
            msg = f"the ledger has {len(tree)} receipts and a checkpoint of {stored.size}: it was altered"
            raise InconsistentLog(msg)
        await self._publish(tree, stored.size, stored.root, stored.note)

    async def _grow(self, tree: LogTree, size: int | None = None) -> None:
        """Read heads up to `size`, or to the end."""
        while size is None or len(tree) < size:
            first = len(tree)
            limit = _PAGE if size is None else min(_PAGE, size - first)
            heads = await self._ledger.heads(first=first, limit=limit)
            if heads:
                await self._do(partial(tree.extend, first, heads))
            if len(heads) < limit:
                return

    async def _advance(self, tree: LogTree, before: int) -> None:
        """Sign what no checkpoint covers, or ask again for missing cosignatures of the newest one."""
        await self._grow(tree)
        size, now = len(tree), self._now_us() // 1_000_000
        if size == before:
            if self.newest is not None and not self.newest.enough:
                note = await self._cosigned(tree, size, self.newest.note)
                if note != self.newest.note:
                    await self._publish(tree, size, self.newest.root, note)
            return

        def sign() -> tuple[bytes, bytes]:
            root = tree.seal()
            return root, self._signer().checkpoint(size, root, time=now)

        root, note = await self._do(sign)
        note = await self._cosigned(tree, size, note)
        if self._hold and not self._enough(note):
            self._metrics.made("no_quorum")
            msg = f"too few witnesses cosigned {size} leaves: held back"
            raise NoQuorum(msg)
        try:
            await self._ledger.put_checkpoint(Checkpoint(size, root, note))
        except Conflict:
            # another shim was first: its checkpoint is followed the next time
            return
        self._metrics.made("signed")
        await self._publish(tree, size, root, note)

    async def _cosigned(self, tree: LogTree, size: int, note: bytes) -> bytes:
        if self._witnesses is None:
            return note
        return await self._witnesses.cosign(note, size=size, prove=lambda old: tree.proofs(size).consistency(old))

    def _enough(self, note: bytes) -> bool:
        return self._witnesses is None or self._witnesses.enough(note)

    async def _publish(self, tree: LogTree, size: int, root: bytes, note: bytes) -> None:
        def publish() -> None:
            tree.seal()
            tree.publish(note)

        await self._do(publish)
        self.newest = Published(size, root, note, self._enough(note))
        self._metrics.published(size, time=self._now_us() / 1e6)
        self._out.set()
        self._out = asyncio.Event()
