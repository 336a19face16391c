"""The clock: does it go forwards, is it disciplined, is it behind what was already written."""

from __future__ import annotations

import ctypes
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tcd.doctor.finding import Finding

_TIMEX_BYTES: Final = 256
#: Offset of `maxerror` in `struct timex` of 64-bit Linux, and what adjtimex(2) says of an undisciplined clock.
_MAX_ERROR: Final = 24
_UNSYNCHRONISED: Final = 5
_READS: Final = 1000


@dataclass(frozen=True, slots=True)
class Discipline:
    """What the kernel knows; `error_us` is the largest error of the clock, microseconds."""

    synchronised: bool
    error_us: int


def discipline() -> Discipline | None:
    """What adjtimex(2) says; None where it cannot be asked."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
        state = int(libc.adjtimex(buffer))
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    return Discipline(state != _UNSYNCHRONISED, ctypes.c_long.from_buffer(buffer, _MAX_ERROR).value)


def check_clock(
    *, newest_us: int | None, kernel: Discipline | None, clock: Callable[[], int] = time.time_ns
) -> Iterator[Finding]:
    """Findings on the clock.

    Args:
        newest_us: time of the newest receipt in the ledger, microseconds since 1970.
        kernel: see `discipline`.
        clock: nanoseconds since 1970.
    """
    reads = [clock() for _ in range(_READS)]
    back = max((a - b for a, b in itertools.pairwise(reads)), default=0)
    if back > 0:
        detail = f"went back by {back / 1e9:.6f} s while it was read"
        yield Finding("clock", "warn", detail, "slew it (chrony, ntpd -x) instead of stepping it")
    else:
        yield Finding("clock", "ok", "goes forwards")
    if newest_us is not None:
        ahead = newest_us / 1e6 - reads[-1] / 1e9
        if ahead > 1.0:
            remedy = "set the clock right before serving: receipts from its future are refused by verifiers"
            yield Finding("clock and ledger", "fail", f"{ahead:.0f} s behind the newest receipt", remedy)
        else:
            yield Finding("clock and ledger", "ok", f"the newest receipt is {max(0.0, -ahead):.0f} s old")
    if kernel is None:
        yield Finding("time synchronisation", "skip", "the kernel cannot be asked")
    elif not kernel.synchronised:
        remedy = "run chrony or systemd-timesyncd on the host: receipts carry this clock's time"
        yield Finding("time synchronisation", "warn", "the kernel's clock is not synchronised", remedy)
    else:
        yield Finding("time synchronisation", "ok", f"error at most {kernel.error_us / 1e6:.3f} s")
