"""Two ledgers under the same arbitrary batches: SQLite, which crashes and starts again, is what memory is."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tcd.errors import TcdError
from tcd.ledger import Batch, Checkpoint, MemoryLedger, SavedState, SqliteLedger
from tcd.receipts import ChainState, Receipt, chain_id
from tcd.risk_av import Controller, ControllerParams
from tests.unit.ledger.records import answer, issue

T = TypeVar("T")
PARAMS = ControllerParams(schedule=("uniform", 4), keep_closed=3)
NAMES = st.sampled_from(["a", "b", "c"])


class LedgerMachine(RuleBasedStateMachine):
    """The memory ledger and a controller that never dies are the model."""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp())
        self.lives = 0
        self.memory = MemoryLedger()
        self.sqlite = SqliteLedger(self.directory / "0")
        self.controller = Controller(PARAMS)
        self.chains: dict[str, ChainState] = {}
        self.forks: list[Receipt] = []
        self.now = 0
        self.tag = 0
        self.saved: dict[int, bytes] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def both(self, name: str, *values: Any, **options: Any) -> Any:
        """The same call on both: the same result, or the same kind of error."""
        ours, theirs = (self.result(getattr(each, name)(*values, **options)) for each in (self.memory, self.sqlite))
        assert ours == theirs
        return ours

    def result(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return self.run(work)
        except TcdError as error:
            return type(error)

    def next_of(self, name: str, *, close: bool) -> list[Receipt]:
        """The next record of a chain, with its first one before it where there is none; another chain when closed."""
        self.tag += 1
        state = self.chains.get(name)
        fresh = []
        if state is None or state.closed:
            fresh = [issue(ChainState(chain_id("session", name, str(self.tag))), "open")]
            state = fresh[0].next()
        return [*fresh, issue(state, "close" if close else "gap", self.tag)]

    @rule(names=st.lists(NAMES, max_size=3, unique=True), close=st.booleans(), reserve=st.integers(0, 3))
    def append(self, names: list[str], reserve: int, *, close: bool) -> None:
        made = {name: self.next_of(name, close=close) for name in names}
        for _ in range(reserve):
            self.tag += 1
            hypothesis = str(self.tag)
            level = self.controller.reserve(stream=f"s{self.tag % 2}", hypothesis=hypothesis).alpha
            p = (0.001, 0.5)[self.tag % 2]
            self.controller.settle(stream=f"s{self.tag % 2}", hypothesis=hypothesis, p=p, trigger=p <= level)
            if self.tag % 3:
                self.controller.close(stream=f"s{self.tag % 2}", hypothesis=hypothesis, reason="end")
        events = self.controller.take_events()
        size = self.run(self.memory.stats()).receipts
        receipts = tuple(receipt for of_one in made.values() for receipt in of_one)
        done = self.both("append", Batch(receipts, events), now_us=self.now, expected_size=size)
        assert done.size == size + len(receipts)
        for name, of_one in made.items():
            self.chains[name] = of_one[-1].next()
            self.forks.append(of_one[-1])

    @rule(key=NAMES, payload=NAMES, keep=st.integers(1, 5), later=st.integers(-2, 4))
    def remember(self, key: str, payload: str, keep: int, later: int) -> None:
        """Answers, with a clock that may go back."""
        self.now = max(0, self.now + later)
        given = answer(key, expires=self.now + keep, payload=payload)
        self.both("append", Batch(answers=(given,)), now_us=self.now)

    @precondition(lambda self: self.forks)
    @rule(data=st.data())
    def append_what_does_not_follow(self, data: st.DataObject) -> None:
        """A record again: nothing of its batch may stay, neither here nor there."""
        again = data.draw(st.sampled_from(self.forks[-6:]))
        events = self.run(self.memory.stats()).events
        batch = Batch((again,), (), (answer("new", expires=self.now + 9),))
        assert isinstance(self.both("append", batch, now_us=self.now), type)
        assert self.run(self.sqlite.stats()).events == events
        assert self.both("answer", "t", "new", now_us=self.now) is None

    @rule(places=st.lists(st.integers(0, 12), max_size=4), scrub=st.booleans())
    def erase(self, places: list[int], *, scrub: bool) -> None:
        """Bodies go, once or again; what was never there refuses the whole batch."""
        self.both("append", Batch(erase=tuple(places)), now_us=self.now)
        if scrub:
            self.both("scrub")

    @rule(size=st.integers(0, 40))
    def checkpoint(self, size: int) -> None:
        self.both("put_checkpoint", Checkpoint(size, bytes([size]) * 32, b"note %d" % size))

    @rule()
    def save(self) -> None:
        events = self.run(self.memory.stats()).events
        data = self.controller.save()
        if self.both("put_state", SavedState(events, data)) is None:
            self.saved[events] = data

    @rule(clean=st.booleans())
    def start_again(self, *, clean: bool) -> None:
        """After a crash the file system has what was written, whether or not SQLite was let go of it."""
        old = self.sqlite
        if clean:
            self.run(old.close())
        self.lives += 1
        shutil.copytree(
            self.directory / str(self.lives - 1),
            self.directory / str(self.lives),
            ignore=shutil.ignore_patterns("*-shm", "*.lock"),
        )
        if not clean:
            self.run(old.close())
        self.sqlite = SqliteLedger(self.directory / str(self.lives))
        restored = Controller(PARAMS)
        page = self.run(self.sqlite.events())
        states = self.run(self.sqlite.states())
        if states:
            restored.restore(self.run(self.sqlite.state(states[0])).data)
        restored.fold(page.events[states[0] if states else 0 :])
        assert restored.save() == self.controller.save()
        assert Controller.replay(page.events, PARAMS).save() == restored.save()

    @invariant()
    def they_say_the_same(self) -> None:
        heads = self.both("heads")
        for head in heads[-3:]:
            self.both("get", head.hex())
        self.both("records", first=len(heads) // 3, limit=5)
        self.both("events")
        self.both("open_chains")
        self.both("checkpoint")
        self.both("checkpoint", covering=len(heads) // 2)
        for events in self.both("states"):
            assert self.both("state", events).data == self.saved[events]
        ids = [state.id for state in self.chains.values()]
        self.both("first_records", ids)
        for chain in ids:
            self.both("chain", chain)
            self.both("chain_records", chain, first=1)
        for key in ("a", "b", "c"):
            self.both("answer", "t", key, now_us=self.now)
        ours, theirs = (self.run(ledger.stats()) for ledger in (self.memory, self.sqlite))
        assert (ours.receipts, ours.events, ours.bodies) == (theirs.receipts, theirs.events, theirs.bodies)
        assert ours.bodies_erased == theirs.bodies_erased

    def teardown(self) -> None:
        if hasattr(self, "sqlite"):
            self.run(self.sqlite.close())
            self.loop.close()
            shutil.rmtree(self.directory)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=12, stateful_step_count=25, deadline=None, derandomize=True)
