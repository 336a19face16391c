"""`Idempotency-Key`: the second time a mutation is sent, it gets the first one's answer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from tcd.errors import Conflict

_MOST: Final = 10_000


@dataclass(slots=True)
class _Entry:
    """One mutation: the digest of its request, and its answer once there is one."""

    request: str
    answer: tuple[int, Any] | None = None


class Once:
    """Answers by principal and key, the newest of them."""

    def __init__(self) -> None:
        """Know nothing."""
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def run(
        self, principal: str, key: str, request: str, work: Callable[[], Awaitable[tuple[int, Any]]]
    ) -> tuple[int, Any]:
        """The answer of `work`, which runs once; one that fails may be tried again.

        Raises:
            Conflict: the key was used for another request, or its request is still running.
        """
        at = (principal, key)
        known = self._entries.get(at)
        if known is not None:
            if known.request != request:
                msg = "the idempotency key was used for another request"
                raise Conflict(msg)
            if known.answer is None:
                msg = "a request with this idempotency key is being worked on"
                raise Conflict(msg, retry_after=1.0)
            return known.answer
        entry = self._entries[at] = _Entry(request)
        try:
            entry.answer = await work()
        except BaseException:
            del self._entries[at]
            raise
        while len(self._entries) > _MOST:
            self._entries.popitem(last=False)
        return entry.answer
