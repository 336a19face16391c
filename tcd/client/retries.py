"""When a call is made again (stamina): what may pass, within the deadline, not sooner than the server says."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import stamina

from tcd.client.errors import ApiError, DeadlineExceeded, TransportFailed

#: Problems that may pass: a limit, an overload, a busy session (which says when to come again).
_PASSING: Final = frozenset({"quota-exceeded", "unavailable", "scoring_unavailable"})


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how long.

    Attributes:
        attempts: calls at most, the first one included.
        wait_initial, wait_max, wait_jitter: seconds between them.
    """

    attempts: int = 4
    wait_initial: float = 0.05
    wait_max: float = 1.0
    wait_jitter: float = 0.05


@dataclass(frozen=True, slots=True)
class Budget:
    """The time of one logical call.

    Attributes:
        until: `time.monotonic` of its deadline.
        key: idempotency key of all its attempts: whichever gets through decides, the rest hear its answer.
    """

    until: float
    key: str

    @classmethod
    def of(cls, seconds: float, key: str | None) -> Budget:
        """A deadline from now on."""
        return cls(time.monotonic() + seconds, key or uuid.uuid4().hex)

    @property
    def left(self) -> float:
        """Seconds left.

        Raises:
            DeadlineExceeded: none.
        """
        left = self.until - time.monotonic()
        if left <= 0:
            msg = "the deadline passed"
            raise DeadlineExceeded(msg)
        return left

    def attempts(self, retries: Retries) -> Any:
        """Attempts of stamina, to be iterated with `for` or `async for`."""
        return stamina.retry_context(
            on=self._hook(),
            attempts=retries.attempts,
            timeout=max(self.until - time.monotonic(), 0.001),
            wait_initial=retries.wait_initial,
            wait_max=retries.wait_max,
            wait_jitter=retries.wait_jitter,
        )

    def _hook(self) -> Callable[[Exception], bool | float]:
        def again(error: Exception) -> bool | float:
            if isinstance(error, TransportFailed):
                return True
            if not isinstance(error, ApiError):
                return False
            after = error.retry_after
            if error.code not in _PASSING and not (error.code == "conflict" and after is not None):
                return False
            if after is None:
                return True
            # waiting longer than the deadline helps nobody
            return after if after < self.until - time.monotonic() else False

        return again
