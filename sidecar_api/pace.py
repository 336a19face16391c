"""How fast decisions are made of late, and so how long one more would wait. Pure: the clock is an argument.

A number of requests is a poor bound of a queue: 256 of them are a sixth of a second where 1,500 are decided in one, and
two seconds where 130 are.
"""

from __future__ import annotations

from typing import Final

#: Seconds of work that a measurement takes.
_STRETCH: Final = 0.5
#: Decisions that it needs at least.
_ENOUGH: Final = 16
#: What is remembered of a faster pace, per measurement.
_MEMORY: Final = 0.9
#: Decisions at once from which their pace is what the server can do: a few at a time are decided more slowly than many,
#: and say nothing about how long many would wait.
DEEP: Final = 32


class Pace:
    """Decisions per second of the time in which there was any work, when there was much of it."""

    __slots__ = ("_at_once", "_busy", "_ended", "_since", "_work", "rate")

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._work = 0
        self._since = 0.0
        self._busy = 0.0
        self._ended = 0
        self._at_once = 0
        self.rate = 0.0

    def begun(self, now: float) -> None:
        """A decision begins."""
        if not self._work:
            self._since = now
        self._work += 1

    def ended(self, now: float) -> None:
        """A decision was made, or given up."""
        self._at_once += self._work
        self._work -= 1
        self._ended += 1
        if not self._work or now - self._since >= _STRETCH:
            self._busy += now - self._since
            self._since = now
        if self._busy >= _STRETCH and self._ended >= _ENOUGH:
            measured = self._ended / self._busy
            # of those that end together the last one leaves none behind: half of them on average
            if 2 * self._at_once >= DEEP * self._ended:
                self.rate = max(measured, _MEMORY * self.rate + (1.0 - _MEMORY) * measured)
            elif self.rate:
                self.rate = max(measured, self.rate)
            self._busy, self._ended, self._at_once = 0.0, 0, 0

    def wait(self, ahead: int) -> float:
        """Seconds until `ahead` decisions are made; 0 while nothing is known."""
        return ahead / self.rate if self.rate else 0.0
