"""A ledger in memory, for tests and for servers that keep no receipts across restarts. Bounded; says what it forgot."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush, nsmallest
from itertools import islice

from tcd.errors import Conflict, Unavailable
from tcd.ledger.rules import KEPT_STATES, check_checkpoint, check_erasure, check_state, erased_by, next_states
from tcd.ledger.values import (
    Appended,
    Batch,
    Checkpoint,
    EventPage,
    Extent,
    Idempotent,
    LedgerStats,
    Limits,
    SavedState,
    StoredReceipt,
    Stub,
)
from tcd.receipts.chain import ChainState
from tcd.receipts.issue import Receipt
from tcd.risk_av.events import Event


class MemoryLedger:
    """`Ledger` in memory. Not durable: a restart loses everything, and the guarantee string must say so."""

    durable = False

    def __init__(self, limits: Limits | None = None) -> None:
        """An empty ledger within `limits`."""
        self._limits = limits if limits is not None else Limits()
        self._size = 0
        self._heads: OrderedDict[str, StoredReceipt] = OrderedDict()
        self._bodies: deque[str] = deque()
        self._events: deque[Event] = deque()
        self._event_count = 0
        self._open: dict[str, ChainState] = {}
        self._closed: OrderedDict[str, ChainState] = OrderedDict()
        self._members: dict[str, deque[str]] = {}
        self._answers: OrderedDict[tuple[str, str], Idempotent] = OrderedDict()
        self._expiries: list[tuple[int, str, str]] = []
        self._bodies_evicted = self._bodies_erased = 0
        self._erased_by: dict[str, int] = {}
        self._chains_evicted = 0
        self._answers_evicted = 0
        self._checkpoints: list[Checkpoint] = []
        self._states: list[SavedState] = []
        self._is_closed = False

    async def append(self, batch: Batch, *, now_us: int, expected_size: int | None = None) -> Appended:
        """See `Ledger.append`."""
        self._check_open()
        if expected_size is not None and expected_size != self._size:
            msg = f"the ledger has {self._size} receipts, not {expected_size}"
            raise Conflict(msg)
        chains = self._checked_chains(batch.receipts)
        self._check_answers(batch.answers, now_us)
        check_erasure(batch.erase, size=self._size)
        # as in a transaction: a refused batch forgets nothing either
        self._forget_expired(now_us)
        first = self._size
        self._erase(batch.erase, erased_by(batch, first))
        for receipt in batch.receipts:
            self._add(receipt)
        for chain in chains.values():
            self._set_chain(chain)
        self._events.extend(batch.events)
        self._event_count += len(batch.events)
        for answer in batch.answers:
            self._answers.pop((answer.tenant, answer.key), None)
            self._answers[answer.tenant, answer.key] = answer
            heappush(self._expiries, (answer.expires_us, answer.tenant, answer.key))
        self._evict()
        return Appended(self._size, self._event_count, tuple(range(first, self._size)))

    def _erase(self, positions: Sequence[int], records: Mapping[int, int]) -> None:
        oldest = self._size - len(self._heads)
        wanted = {position for position in positions if position >= oldest}
        gone: set[str] = set()
        for stored in [s for s in self._heads.values() if s.index in wanted] if wanted else ():
            if stored.receipt is not None:
                self._heads[stored.head] = StoredReceipt(stored.index, stored.head, None, Stub.of(stored.receipt))
                self._bodies_erased += 1
                gone.add(stored.head)
                if stored.index in records:
                    self._erased_by[stored.head] = records[stored.index]
        for name in [name for name, answer in self._answers.items() if answer.head in gone]:
            del self._answers[name]

    async def scrub(self) -> None:
        """See `Ledger.scrub`; memory keeps no copies."""
        self._check_open()

    def _check_open(self) -> None:
        if self._is_closed:
            msg = "the ledger is closed"
            raise Unavailable(msg)

    def _checked_chains(self, receipts: Sequence[Receipt]) -> dict[str, ChainState]:
        """States of the chains after `receipts`; raises before anything is changed."""
        after = next_states(receipts, self._find_chain)
        heads = [receipt.head_hex for receipt in receipts]
        if len(set(heads)) < len(heads) or any(head in self._heads for head in heads):
            msg = "a receipt is there already"
            raise Conflict(msg)
        touched = sum(name in self._open for name in after)
        still_open = sum(not state.closed for state in after.values())
        if len(self._open) - touched + still_open > self._limits.chains:
            msg = f"more than {self._limits.chains} open chains"
            raise Unavailable(msg, retry_after=1.0)
        return after

    def _check_answers(self, answers: Sequence[Idempotent], now_us: int) -> None:
        seen: set[tuple[str, str]] = set()
        for answer in answers:
            name = (answer.tenant, answer.key)
            known = self._answers.get(name)
            if name in seen or (known is not None and known.expires_us > now_us):
                msg = "the idempotency key is taken"
                raise Conflict(msg)
            seen.add(name)

    def _find_chain(self, chain: str) -> ChainState | None:
        return self._open.get(chain) or self._closed.get(chain)

    def _add(self, receipt: Receipt) -> None:
        head = receipt.head_hex
        self._heads[head] = StoredReceipt(self._size, head, receipt)
        self._bodies.append(head)
        self._members.setdefault(receipt.chain, deque()).append(head)
        self._size += 1

    def _set_chain(self, state: ChainState) -> None:
        self._open.pop(state.id, None)
        if state.closed:
            self._closed[state.id] = state
        else:
            self._open[state.id] = state

    def _forget_expired(self, now_us: int) -> None:
        while self._expiries and self._expiries[0][0] <= now_us:
            expires_us, *name = heappop(self._expiries)
            found = self._answers.get((name[0], name[1]))
            # another one may have taken its key since
            if found is not None and found.expires_us == expires_us:
                del self._answers[name[0], name[1]]

    def _evict(self) -> None:
        limits = self._limits
        while len(self._bodies) > limits.bodies:
            head = self._bodies.popleft()
            stored = self._heads[head]
            self._heads[head] = StoredReceipt(stored.index, head, None)
            self._erased_by.pop(head, None)
            if stored.receipt is None:
                self._bodies_erased -= 1
            self._bodies_evicted += 1
            if stored.kept is not None:
                self._drop_member(stored.kept.chain)
        while len(self._heads) > limits.heads:
            self._heads.popitem(last=False)
        while len(self._events) > limits.events:
            self._events.popleft()
        while self._closed and len(self._open) + len(self._closed) > limits.chains:
            self._closed.popitem(last=False)
            self._chains_evicted += 1
        while len(self._answers) > limits.answers:
            self._answers.popitem(last=False)
            self._answers_evicted += 1
        if len(self._expiries) > 2 * limits.answers:
            self._expiries = sorted((a.expires_us, a.tenant, a.key) for a in self._answers.values())

    def _drop_member(self, chain: str) -> None:
        members = self._members[chain]
        members.popleft()
        if not members:
            del self._members[chain]

    async def get(self, head: str) -> StoredReceipt | None:
        """See `Ledger.get`."""
        self._check_open()
        return self._heads.get(head)

    async def erasure(self, index: int) -> StoredReceipt | None:
        """See `Ledger.erasure`."""
        stored = next(iter(self._from(index, 1)), None) if index >= self._size - len(self._heads) else None
        record = None if stored is None else self._erased_by.get(stored.head)
        return None if record is None else next(iter(self._from(record, 1)), None)

    async def answer(self, tenant: str, key: str, *, now_us: int) -> Idempotent | None:
        """See `Ledger.answer`."""
        self._check_open()
        found = self._answers.get((tenant, key))
        return found if found is not None and found.expires_us > now_us else None

    async def chain(self, chain: str) -> ChainState | None:
        """See `Ledger.chain`."""
        self._check_open()
        return self._find_chain(chain)

    async def chain_records(self, chain: str, *, first: int = 0, limit: int = 1024) -> Sequence[StoredReceipt]:
        """See `Ledger.chain_records`; only records whose bodies were not evicted are kept by chain."""
        self._check_open()
        records = (self._heads[head] for head in self._members.get(chain, ()))
        wanted = (record for record in records if record.kept is not None and record.kept.seq >= first)
        return tuple(islice(wanted, limit))

    def _from(self, first: int, limit: int) -> Iterable[StoredReceipt]:
        self._check_open()
        oldest = self._size - len(self._heads)
        if first < oldest:
            msg = f"heads before position {oldest} are no longer kept"
            raise Unavailable(msg)
        return islice(self._heads.values(), first - oldest, first - oldest + limit)

    async def heads(self, *, first: int = 0, limit: int = 65_536) -> Sequence[bytes]:
        """See `Ledger.heads`."""
        return tuple(bytes.fromhex(stored.head) for stored in self._from(first, limit))

    async def records(self, *, first: int = 0, limit: int = 1024) -> Sequence[StoredReceipt]:
        """See `Ledger.records`."""
        return tuple(self._from(first, limit))

    async def open_chains(self, *, after: str = "", limit: int = 1024) -> Sequence[ChainState]:
        """See `Ledger.open_chains`."""
        self._check_open()
        return tuple(self._open[name] for name in nsmallest(limit, (n for n in self._open if n > after)))

    async def put_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See `Ledger.put_checkpoint`."""
        self._check_open()
        newest = self._checkpoints[-1].size if self._checkpoints else 0
        check_checkpoint(checkpoint, newest=newest, size=self._size)
        self._checkpoints.append(checkpoint)
        del self._checkpoints[: -self._limits.checkpoints]

    async def checkpoint(self, *, covering: int | None = None) -> Checkpoint | None:
        """See `Ledger.checkpoint`."""
        self._check_open()
        known = self._checkpoints
        if covering is None:
            return known[-1] if known else None
        at = bisect_right(known, covering, key=lambda c: c.size)
        return known[at] if at < len(known) else None

    async def events(self, *, first: int = 0, limit: int = 10_000) -> EventPage:
        """See `Ledger.events`."""
        self._check_open()
        oldest = self._event_count - len(self._events)
        start = max(first, oldest)
        page = tuple(islice(self._events, start - oldest, start - oldest + limit))
        return EventPage(start, page, max(0, oldest - first))

    async def put_state(self, state: SavedState) -> None:
        """See `Ledger.put_state`."""
        self._check_open()
        newest = self._states[-1].events if self._states else 0
        check_state(state, newest=newest, events=self._event_count)
        self._states = [*self._states, state][-KEPT_STATES:]

    async def states(self) -> Sequence[int]:
        """See `Ledger.states`."""
        self._check_open()
        return tuple(state.events for state in reversed(self._states))

    async def state(self, events: int) -> SavedState:
        """See `Ledger.state`."""
        self._check_open()
        for state in self._states:
            if state.events == events:
                return state
        msg = f"the saved state after {events} events is gone"
        raise Unavailable(msg)

    async def first_records(self, chains: Sequence[str]) -> Mapping[str, StoredReceipt]:
        """See `Ledger.first_records`."""
        self._check_open()
        found = {chain: self._heads[self._members[chain][0]] for chain in chains if chain in self._members}
        return {chain: r for chain, r in found.items() if r.kept is not None and r.kept.seq == 0}

    async def extent(self) -> Extent:
        """See `Ledger.extent`."""
        return Extent(self._size, self._size - len(self._heads))

    async def stats(self) -> LedgerStats:
        """See `Ledger.stats`."""
        return LedgerStats(
            receipts=self._size,
            bodies=len(self._bodies) - self._bodies_erased,
            bodies_evicted=self._bodies_evicted,
            bodies_erased=self._bodies_erased,
            heads_evicted=self._size - len(self._heads),
            events=self._event_count,
            events_evicted=self._event_count - len(self._events),
            chains=len(self._open) + len(self._closed),
            chains_evicted=self._chains_evicted,
            answers=len(self._answers),
            answers_evicted=self._answers_evicted,
        )

    async def close(self) -> None:
        """See `Ledger.close`."""
        self._is_closed = True
