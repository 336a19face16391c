"""A sample of a session log in bounded memory: whole sessions, by the hash of their group, a share per key. Pure.

Adaptive sampling (Wegman; Flajolet, "On adaptive sampling", Computing 34, 1990): a session is kept while the hash of
its group begins with as many zero bits as the level of its key. When the log exceeds its bounds, the level of the key
that takes most grows by one, which halves what is kept of it. What a session is like plays no part, so that those that
are kept are exchangeable with those to come, as all of them would be; and a key that is rare is kept whole.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import Final

from tcd.calibration.rows import AnyRow, RequestRow
from tcd.calibration.sessions import Collector, Limits
from tcd.calibration.traces import Key, Sequence
from tcd.errors import AssetError

_BITS: Final = 64


def draw(group: str) -> int:
    """64 bits of the hash of a group."""
    return int.from_bytes(hashlib.sha256(f"sample:{group}".encode()).digest()[: _BITS // 8], "big")


class Sample(Collector):
    """A collector that keeps a share of the sessions where all of them are over its bounds.

    Attributes:
        levels: of each key that is thinned: a share of 2^-level of its groups is kept.
    """

    def __init__(self, limits: Limits, *, skip: Callable[[str], bool] = lambda _: False) -> None:
        """Collect within `limits`; sessions of whose names `skip` is true are left out before anything is drawn."""
        super().__init__(limits)
        self._skip = skip
        self._left_out = False
        self.levels: Counter[Key] = Counter()

    def add(self, row: AnyRow) -> None:
        """Take a row, or leave it out.

        Raises:
            AssetError: it does not fit what came before, it is a request as it was sent, or one session is too long.
        """
        if isinstance(row, RequestRow):
            msg = "no row of a session log"
            raise AssetError(msg)
        if self._skip(row.session):
            self._left_out = True
        elif self._drawn(row.group or row.session, self.key_of(row)):
            super().add(row)

    def sequences(self) -> tuple[Sequence, ...]:
        """See `Collector.sequences`."""
        if self._left_out and not self._sessions:
            msg = "no session is left that was not used in their fit, nor excluded"
            raise AssetError(msg)
        return super().sequences()

    def _drawn(self, group: str, key: Key) -> bool:
        return draw(group) >> (_BITS - self.levels[key]) == 0

    def _bound(self) -> None:
        while self._over():
            sizes: Counter[Key] = Counter()
            members: Counter[Key] = Counter()
            for session in self._sessions.values():
                sizes[session.key] += session.size
                members[session.key] += 1
            largest = sizes.most_common(1)[0][0]
            if members[largest] == 1 or self.levels[largest] == _BITS:
                super()._bound()
            self.levels[largest] += 1
            gone = [s for s in self._sessions.values() if s.key == largest and not self._drawn(s.group, largest)]
            for session in gone:
                self._values -= session.size
                del self._sessions[session.name]
