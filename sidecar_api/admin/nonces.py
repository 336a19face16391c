"""Nonces that were used: bounded, and when there is no room nothing gets in."""

from __future__ import annotations

import heapq

from tcd.errors import Unavailable


class Nonces:
    """Used nonces of each key, until their signatures have expired."""

    def __init__(self, *, limit: int = 100_000) -> None:
        """Remember `limit` of them."""
        self._limit = limit
        self._used: set[tuple[str, str]] = set()
        self._ends: list[tuple[float, tuple[str, str]]] = []

    def claim(self, keyid: str, nonce: str, *, until: float, now: float) -> bool:
        """Use a nonce; whether this is the first time.

        Raises:
            Unavailable: there is no room.
        """
        while self._ends and self._ends[0][0] < now:
            self._used.discard(heapq.heappop(self._ends)[1])
        key = (keyid, nonce)
        if key in self._used:
            return False
        if len(self._used) >= self._limit:
            msg = "too many signed requests at once"
            raise Unavailable(msg, retry_after=60.0)
        self._used.add(key)
        heapq.heappush(self._ends, (until, key))
        return True
