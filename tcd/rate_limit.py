"""Token buckets per subject, bounded in number. Pure: the clock is an argument.

A bucket is one float, the time at which it will be full again. Only full buckets are ever forgotten, so
that eviction refills none; when none is full, a new subject has to wait for the next that will be.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import NamedTuple


class Limit(NamedTuple):
    """A bucket's size in tokens and its refill in tokens per second."""

    capacity: float
    refill: float

    @property
    def window(self) -> float:
        """Seconds an empty bucket needs to be full."""
        return self.capacity / self.refill


class Grant(NamedTuple):
    """The answer of a bucket.

    Attributes:
        allowed: whether the cost was taken.
        remaining: tokens left.
        reset: seconds until the bucket is full.
        retry_after: seconds until the same cost could be taken; 0 when allowed.
    """

    allowed: bool
    remaining: float
    reset: float
    retry_after: float


def token_cost(tokens_delta: int, *, divisor: float, per_step: bool) -> float:
    """Cost of a request: max(0, tokens)/divisor, at least 1/divisor on per-step surfaces and 1 elsewhere."""
    return max(max(0, tokens_delta) / divisor, 1 / divisor if per_step else 1.0)


class TokenBuckets:
    """Token buckets by key, at most `max_keys` of them."""

    __slots__ = ("_full_at", "_heap", "_limit", "_max_keys", "_sequence")

    def __init__(self, limit: Limit, *, max_keys: int) -> None:
        """Make an empty table; `limit` is used where `take` names none."""
        self._limit = limit
        self._max_keys = max_keys
        self._full_at: dict[Hashable, float] = {}
        # (a lower bound of the time the bucket is full, tie-breaker, key): exactly one entry per bucket
        self._heap: list[tuple[float, int, Hashable]] = []
        self._sequence = 0

    def __len__(self) -> int:
        """Number of buckets that are kept."""
        return len(self._full_at)

    def take(self, key: Hashable, cost: float, *, now: float, limit: Limit | None = None) -> Grant:
        """Take `cost` tokens from the key's bucket, or none.

        Args:
            key: the subject.
            cost: tokens; above the capacity it is charged as a full bucket.
            now: seconds on any monotonic clock.
            limit: the key's limits where they differ from the table's; always the same for one key.
        """
        capacity, refill = limit or self._limit
        full_at = self._full_at.get(key)
        if full_at is None and len(self._full_at) >= self._max_keys:
            wait = self._evict(now)
            if wait > 0:
                return Grant(allowed=False, remaining=0.0, reset=wait, retry_after=wait)
        missing = 0.0 if full_at is None or full_at <= now else (full_at - now) * refill
        cost = min(capacity, cost)
        lacking = missing + cost - capacity
        # the product above is rounded: without the slack a bucket that is full to the last bit refuses its capacity
        if lacking > 1e-9 * capacity:
            left = max(0.0, capacity - missing)
            return Grant(allowed=False, remaining=left, reset=missing / refill, retry_after=lacking / refill)
        missing += cost
        reset = missing / refill
        filled = now + reset
        if full_at is None:
            self._sequence += 1
            heapq.heappush(self._heap, (filled, self._sequence, key))
        self._full_at[key] = filled
        left = capacity - missing
        # by place: names cost as much as the rest
        return Grant(True, max(0.0, left), reset, 0.0)

    def _evict(self, now: float) -> float:
        """Forget one full bucket and return 0, or the seconds until one is full."""
        while True:
            bound, sequence, key = self._heap[0]
            if bound > now:
                return bound - now
            full_at = self._full_at[key]
            if full_at <= now:
                heapq.heappop(self._heap)
                del self._full_at[key]
                return 0.0
            heapq.heapreplace(self._heap, (full_at, sequence, key))
