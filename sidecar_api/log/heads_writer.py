"""`heads` records: now and then one root over the newest record of every open chain.

Whoever holds a chain can then tell whether records were cut off its end. Each entry was its chain's newest record at
some moment between the last `heads` record and this one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from sidecar_api.receipting import Receipts
from tcd.background import end
from tcd.errors import NotFound, TcdError
from tcd.ledger import Ledger
from tcd.receipts import ChainState, Receipt
from tcd.receipts.heads import Heads, HeadsProof

_LOG = logging.getLogger(__name__)
_PAGE = 1024
Put = Callable[[tuple[Receipt, ...]], asyncio.Future[None]]


@dataclass(frozen=True, slots=True)
class Committed:
    """A durable `heads` record and what is under its root."""

    record: Receipt
    heads: Heads
    states: dict[str, ChainState]


class HeadsWriter:
    """Writes `heads` records of a ledger. Bound to one event loop."""

    def __init__(self, ledger: Ledger, receipts: Receipts, put: Put, *, every: float) -> None:
        """Write a record every `every` seconds; `put` makes records durable."""
        self._ledger = ledger
        self._receipts = receipts
        self._put = put
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self.newest: Committed | None = None

    def start(self) -> None:
        """Begin, inside a running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End; the last record stays the newest one."""
        if self._task is not None:
            await end(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.write()
            except TcdError as error:
                _LOG.warning("no heads record: %s", error.detail)

    async def write(self) -> None:
        """Write a record of the chains that are open, where there are some.

        Raises:
            TcdError: the ledger cannot be read, or did not take it.
        """
        states: dict[str, ChainState] = {}
        after = ""
        while page := await self._ledger.open_chains(after=after, limit=_PAGE):
            after = page[-1].id
            states |= {state.id: state for state in page}
        if not states:
            return
        heads = await asyncio.to_thread(Heads, states.values())
        made = self._receipts.heads(heads.members())
        try:
            await self._put(made)
        except TcdError:
            self._receipts.forget_heads()
            raise
        self.newest = Committed(made[-1], heads, states)

    def prove(self, chain: str) -> tuple[Committed, ChainState, HeadsProof]:
        """The newest record, the state of a chain (by its id) under it, and where that is.

        Raises:
            NotFound: there is no record yet, or the chain was not open then.
        """
        newest = self.newest
        state = None if newest is None else newest.states.get(chain)
        if newest is None or state is None:
            msg = "no heads record has this chain"
            raise NotFound(msg)
        return newest, state, newest.heads.prove(chain)
