"""The PostgreSQL ledger: durable, for several shims at once.

Every append is one transaction under the lock of the head row: positions of receipts and events have no holes,
and a member that was fenced writes nothing. Whether a commit happened whose answer was lost is found out by the
number of the member's last batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final

from tcd.errors import ConfigError, Conflict, Unavailable
from tcd.ledger.postgres_append import Ends, LockedRoot, ends, hold, write
from tcd.ledger.postgres_connect import LOST, connect, failures, name_of, pool
from tcd.ledger.postgres_reader import Reader, state_digest
from tcd.ledger.postgres_schema import upgrade
from tcd.ledger.rules import KEPT_STATES, check_checkpoint, check_state
from tcd.ledger.shared import Fenced, InDoubt, Work
from tcd.ledger.values import Appended, Batch, Checkpoint, SavedState
from tcd.risk_av.events import Event

#: How long a commit in doubt is asked about before the caller is told so.
_DOUBT_TRIES: Final = 20
_DOUBT_PAUSE: Final = 0.1
#: Seconds that the rows of erased bodies may take to be freed.
_VACUUM_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Events whose commit nobody has confirmed; `again`: the next `append` begins with them."""

    events: tuple[Event, ...]
    again: bool


class PostgresLedger(Reader):
    """`SharedLedger` in a PostgreSQL database; bound to one event loop."""

    durable = True

    def __init__(self, url: str, *, replica: str = "", subjects: bytes = b"", origin: str = "") -> None:
        """Nothing is connected yet: see `open`.

        Args:
            url: `postgresql://user:password@host:port/database`, as libpq takes it; never shown.
            replica: name of this shim; another member of that name is its predecessor. Empty = it has none.
            subjects: fingerprint of the key that names streams; empty = not checked.
            origin: of the log that the receipts name; empty = not checked.
        """
        super().__init__()
        self._url = url
        self._replica = replica
        self._subjects = subjects
        self._origin = origin
        self._turn = asyncio.Lock()
        self._writer: Any = None
        self._claims: Any = None
        self._claiming = asyncio.Lock()
        self._giving: set[asyncio.Future[None]] = set()
        self._last = Ends(0, 0, 0)
        self._doubt: _Doubt | None = None
        self._landed: tuple[Event, ...] = ()
        self.epoch = 0
        self.identity = b""

    @classmethod
    async def open(cls, url: str, *, replica: str = "", subjects: bytes = b"", origin: str = "") -> PostgresLedger:
        """Connect, bring the tables up to date, join.

        Raises:
            ConfigError: it cannot be reached or used, is of a newer version, or other shims name subjects or the
                log in another way.
        """
        ledger = cls(url, replica=replica, subjects=subjects, origin=origin)
        try:
            await upgrade(lambda: connect(url))
            ledger._pool = await pool(url)
            await ledger.join()
        except (ConfigError, Conflict):
            await ledger.close()
            raise
        except Exception as error:  # noqa: BLE001 - the driver's many ways to fail; the text may hold the URL
            await ledger.close()
            detail = error.detail if isinstance(error, Unavailable) else name_of(error)
            msg = f"the ledger's database cannot be used: {detail}; remedy: see that it runs and that ledger names it"
            raise ConfigError(msg) from None
        return ledger

    # -- connections ---------------------------------------------------------------------------------------

    async def _connected(self) -> Any:
        """The writing connection, made anew where it was lost."""
        if self._writer is None or self._writer.is_closed():
            with failures("written"):
                self._writer = await connect(self._url)
        return self._writer

    async def close(self) -> None:
        """See `Ledger.close`; waits for what is being written."""
        if self._closed:
            return
        self._closed = True
        async with self._turn:
            for connection in (self._writer, self._claims):
                if connection is not None:
                    with contextlib.suppress(*LOST):
                        await connection.close(timeout=2.0)
        self.disconnect()

    # -- membership ----------------------------------------------------------------------------------------

    async def join(self) -> int:
        """See `SharedLedger.join`."""
        async with self._turn:
            self._check_open()
            connection = await self._connected()
            with failures("written"):
                async with connection.transaction():
                    row = await connection.fetchrow(
                        "SELECT ledger, subjects, origin, members, size, events FROM tcd_head FOR UPDATE"
                    )
                    self.identity, subjects, origin, members, size, events = row
                    self._check_names(subjects, origin)
                    epoch = members + 1
                    await connection.execute(
                        "UPDATE tcd_head SET members = $1, subjects = coalesce(subjects, $2), "
                        "origin = coalesce(origin, $3)",
                        *(epoch, self._subjects or None, self._origin or None),
                    )
                    await connection.execute(
                        "INSERT INTO tcd_member VALUES ($1, $2, true, clock_timestamp(), 0, $3, $4)",
                        *(epoch, self._replica, size, events),
                    )
            self.epoch, self._last = epoch, Ends(0, size, events)
            self._doubt, self._landed = None, ()
            return self.epoch

    def _check_names(self, subjects: bytes | None, origin: str | None) -> None:
        if self._subjects and subjects is not None and subjects != self._subjects:
            msg = "the other shims of this ledger name tenants by another key: each would give a budget of its own; "
            msg += "remedy: the same TCD_ATTEST_SK_HEX (or TCD_SUBJECT_KEY_HEX) on all of them"
            raise ConfigError(msg)
        if self._origin and origin is not None and origin != self._origin:
            msg = f"this ledger is the log {origin!r}; remedy: the same TCD_ORIGIN on all of its shims"
            raise ConfigError(msg)

    async def leave(self) -> None:
        """See `SharedLedger.leave`."""
        async with self._turn:
            connection = await self._connected()
            with failures("written"):
                await connection.execute("UPDATE tcd_member SET live = false WHERE epoch = $1", self.epoch)

    async def beat(self) -> None:
        """See `SharedLedger.beat`."""
        query = "UPDATE tcd_member SET seen = clock_timestamp() WHERE epoch = $1 AND live RETURNING epoch"
        async with self._read() as connection:
            if await connection.fetchval(query, self.epoch) is None:
                msg = "this shim was declared lost: it has to join again"
                raise Fenced(msg, retry_after=1.0)

    # -- writing -------------------------------------------------------------------------------------------

    async def append(self, batch: Batch, *, now_us: int, expected_size: int | None = None) -> Appended:
        """See `Ledger.append`.

        Raises:
            Fenced: this member was retired.
            InDoubt: see there.
        """

        async def whole(root: LockedRoot, size: int) -> Batch:
            del root
            if expected_size is not None and expected_size != size:
                msg = f"the ledger has {size} receipts, not {expected_size}"
                raise Conflict(msg)
            return batch

        return await self._append(whole, now_us, again=True)

    async def transact(self, work: Work, *, now_us: int) -> Appended:
        """See `SharedLedger.transact`."""

        async def made(root: LockedRoot, size: int) -> Batch:
            del size
            return await work(root)

        return await self._append(made, now_us, again=False)

    async def _append(self, make: Any, now_us: int, *, again: bool) -> Appended:
        # what was made before `join` is refused after it
        epoch = self.epoch
        async with self._turn:
            self._check_open()
            connection = await self._connected()
            transaction = connection.transaction()
            with failures("written"):
                try:
                    await transaction.start()
                    held = await hold(connection, epoch)
                    await self._settle_doubt(connection, held.batch)
                    root = LockedRoot(connection, held.events)
                    batch = await make(root, held.size)
                    known = self._known(batch) if again else 0
                    batch = replace(batch, events=batch.events[known:])
                    after = await write(root, held, epoch, batch, now_us)
                except BaseException:
                    await self._roll_back(transaction)
                    raise
            await self._commit(transaction, _Doubt(batch.events, again))
            self._last = after
            if known:
                self._landed = ()
            first = after.size - len(batch.receipts)
            return Appended(after.size, after.events, tuple(range(first, after.size)), known)

    async def _roll_back(self, transaction: Any) -> None:
        try:
            await transaction.rollback()
        except BaseException:  # noqa: BLE001 - whatever it is: a transaction that cannot be ended ends with its connection
            self._writer.terminate()

    async def _commit(self, transaction: Any, doubt: _Doubt) -> None:
        """Commit; where the answer is lost, ask a new connection whether it happened.

        Raises:
            InDoubt: there is none to ask.
            Unavailable: it did not happen.
        """
        self._doubt = doubt
        try:
            await transaction.commit()
        except BaseException as error:
            self._writer.terminate()
            if not isinstance(error, Exception):
                raise
            happened = await self._ask()
            if happened is None:
                msg = f"the ledger was lost while it was written: {name_of(error)}"
                raise InDoubt(msg, retry_after=1.0) from None
            self._doubt = None
            if not happened:
                msg = f"the ledger cannot be written: {name_of(error)}"
                raise Unavailable(msg, retry_after=1.0) from None
        self._doubt = None

    async def _ask(self) -> bool | None:
        """Whether the batch in doubt was committed; None when nobody can say so far."""
        for _ in range(_DOUBT_TRIES):
            try:
                connection = await self._connected()
                # with the lock of the log the old session is over, one way or the other
                async with connection.transaction():
                    await connection.fetchrow("SELECT size FROM tcd_head FOR UPDATE")
                    return (await ends(connection, self.epoch)).batch > self._last.batch
            except Exception:  # noqa: BLE001, PERF203 - every way of not being there yet
                await asyncio.sleep(_DOUBT_PAUSE)
        return None

    async def _settle_doubt(self, connection: Any, batch: int) -> None:
        """Under the lock: a batch in doubt is there, or never will be."""
        if self._doubt is not None and batch > self._last.batch:
            self._last = await ends(connection, self.epoch)
            if self._doubt.again:
                # after those of an earlier one in doubt, which this one came without
                self._landed += self._doubt.events
        self._doubt = None

    def _known(self, batch: Batch) -> int:
        """Events that the batch begins with and that turned out to be in the log."""
        count = len(self._landed)
        return count if batch.events[:count] == self._landed else 0

    async def scrub(self) -> None:
        """See `Ledger.scrub`: frees the room of deleted rows; their bytes stay in files until it is used again.

        What overwrites at once (`VACUUM FULL`) locks out every shim, so it is the operator's to choose.
        """
        async with self._read() as connection:
            # however long it takes; the pool resets the setting
            await connection.execute("SET statement_timeout = 0")
            await connection.execute("VACUUM tcd_body, tcd_answer", timeout=_VACUUM_S)

    async def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See `Ledger.put_checkpoint`."""
        async with self._turn:
            self._check_open()
            connection = await self._connected()
            with failures("written"):
                async with connection.transaction():
                    size = await connection.fetchval("SELECT size FROM tcd_head FOR UPDATE")
                    newest = await connection.fetchval("SELECT max(size) FROM tcd_checkpoint")
                    check_checkpoint(checkpoint, newest=newest or 0, size=size)
                    await connection.execute(
                        "INSERT INTO tcd_checkpoint VALUES ($1, $2, $3)",
                        *(checkpoint.size, checkpoint.root, checkpoint.note),
                    )

    async def put_state(self, state: SavedState) -> None:
        """See `Ledger.put_state`; the log is not held up meanwhile."""
        kept = await self.states()
        async with self._read() as connection:
            events = await connection.fetchval("SELECT events FROM tcd_head")
        check_state(state, newest=max(kept, default=0), events=events)
        oldest = kept[KEPT_STATES - 2] if len(kept) >= KEPT_STATES else 0
        with failures("written"):
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute("DELETE FROM tcd_state WHERE events < $1 OR events > $2", oldest, events)
                await connection.execute(
                    "INSERT INTO tcd_state VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                    *(state.events, state_digest(state), state.data),
                )

    # -- claims of idempotency keys ------------------------------------------------------------------------

    async def _claim_query(self, function: str, tenant: str, key: str) -> bool:
        digest = hashlib.sha256(self.identity + f"{len(tenant)}:{tenant}:{key}".encode()).digest()
        async with self._claiming:
            self._check_open()
            with failures("read"):
                if self._claims is None or self._claims.is_closed():
                    self._claims = await connect(self._url)
                found = await self._claims.fetchval(
                    f"SELECT {function}($1)", int.from_bytes(digest[:8], "big", signed=True)
                )
        return bool(found)

    async def claim(self, tenant: str, key: str) -> bool:
        """See `SharedLedger.claim`: an advisory lock of the session, which ends with it."""
        asked = asyncio.ensure_future(self._claim_query("pg_try_advisory_lock", tenant, key))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            # nobody would give back what is granted after this
            task = asyncio.ensure_future(self._give_back(asked, tenant, key))
            self._giving.add(task)
            task.add_done_callback(self._giving.discard)
            raise

    async def _give_back(self, asked: asyncio.Future[bool], tenant: str, key: str) -> None:
        with contextlib.suppress(Unavailable):
            if await asked:
                await self.unclaim(tenant, key)

    async def unclaim(self, tenant: str, key: str) -> None:
        """See `SharedLedger.unclaim`."""
        await self._claim_query("pg_advisory_unlock", tenant, key)
