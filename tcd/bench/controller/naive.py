"""Controllers that are broken on purpose: what the experiments must catch."""

from __future__ import annotations

from tcd.risk_av import ControllerParams


class NoReservation:
    """Reads the budget at the start, writes it back when the p-value is there: concurrent hypotheses overwrite.

    One stream of RAI with the uniform schedule, as a handler without reservations would do it.
    """

    def __init__(self, params: ControllerParams) -> None:
        """An empty stream."""
        self._length = int(params.schedule[1])
        self._cost = params.alpha / self._length
        self._epoch, self._index, self._known = 1, 0, 0

    def begin(self) -> tuple[int, int, float]:
        """Epoch, index and level of a hypothesis that begins now."""
        if self._index >= self._length:
            return self._epoch + 1, 1, self._cost
        return self._epoch, self._index + 1, self._cost * (self._known + 1)

    def end(self, epoch: int, index: int, *, rejected: bool) -> None:
        """Write back what was read at the beginning."""
        if epoch != self._epoch:
            self._known = 0
        self._epoch, self._index = epoch, index
        self._known += rejected
