"""Chains that a failed commit cut: ended by a signed admission of what was lost, once the ledger works again.

The records were issued, but nobody was answered with them. What a crash leaves open is closed at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from sidecar_api.receipting import Receipts
from tcd.background import end
from tcd.errors import TcdError
from tcd.ledger import Ledger
from tcd.receipts import ChainState, Receipt

_LOG = logging.getLogger(__name__)
#: Chains remembered; one more is closed at the next start, without a `gap`.
_MOST: Final = 10_000
_PAUSE: Final = 1.0
Put = Callable[[tuple[Receipt, ...]], asyncio.Future[None]]


class Mender:
    """Ends cut chains. Bound to one event loop."""

    def __init__(self, ledger: Ledger, receipts: Receipts, put: Put, *, pause: float = _PAUSE) -> None:
        """Look into `ledger` every `pause` seconds while a chain waits; `put` makes records durable."""
        self._ledger = ledger
        self._receipts = receipts
        self._put = put
        self._pause = pause
        self._cut: dict[str, tuple[ChainState, str]] = {}
        self._task: asyncio.Task[None] | None = None

    def cut(self, state: ChainState, tenant: str) -> None:
        """A commit of records of a chain failed; `state` is what the chain would have come to."""
        if len(self._cut) >= _MOST:
            return
        self._cut[state.id] = (state, tenant)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """End; what was not mended is closed at the next start."""
        if self._task is not None:
            await end(self._task)

    async def _run(self) -> None:
        try:
            while self._cut:
                await asyncio.sleep(self._pause)
                try:
                    for state, tenant in list(self._cut.values()):
                        await self._mend(state, tenant)
                        del self._cut[state.id]
                except TcdError as error:
                    _LOG.warning("%d cut chains wait for the ledger: %s", len(self._cut), error.detail)
        finally:
            self._task = None

    async def _mend(self, issued: ChainState, tenant: str) -> None:
        stored = await self._ledger.chain(issued.id)
        # of a chain of which nothing was stored nobody ever heard
        if stored is not None and not stored.closed:
            await self._put(self._receipts.cut(stored, tenant, last=issued.seq - 1))
