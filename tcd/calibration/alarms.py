"""How false alarms are counted: one holds its successors back, as in a detector that starts afresh after an alarm."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Steps after an alarm in which another is the same one.
REARM: Final = 32


def alarm_count(flags: NDArray[np.bool_], rearm: int = REARM) -> int:
    """Alarms among the consecutive steps (n,) of one session; `rearm` 0 counts every flagged step."""
    found, last = 0, -np.inf
    for step in np.flatnonzero(flags).tolist():
        if step - last > rearm:
            found, last = found + 1, step
    return found
