"""What a bench's processes take of a machine's cores, and how much of that is the load itself."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tcd.triton.process import usage


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds per second of the shim, of its Triton, and of what makes the load."""

    shim: float
    triton: float
    load: float


def of_children() -> float:
    """CPU seconds of the processes that this one started, as far as they have ended."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


class Meter:
    """Marks, and the CPU between two of them.

    The kernel counts a process in ticks of 10 ms: 2 of 1,000 between marks that are five seconds apart.
    """

    def __init__(
        self,
        parts: Mapping[str, Iterable[int]],
        *,
        load: Callable[[], float] = time.process_time,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Nothing is marked yet.

        Args:
            parts: processes of `shim` and `triton`.
            load: CPU seconds so far of what makes the load: by default this process.
            clock: seconds.
        """
        self._parts = {name: tuple(pids) for name, pids in parts.items()}
        self._load = load
        self._clock = clock
        self._marks: list[tuple[float, Cpu]] = []

    def mark(self) -> None:
        """Remember what was spent until now."""
        spent = {name: usage(self._parts.get(name, ())).cpu_seconds for name in ("shim", "triton")}
        self._marks.append((self._clock(), Cpu(**spent, load=self._load())))

    def between(self, number: int) -> Cpu:
        """Of the stretch from a mark to the next one; 0 = from the first."""
        (began, before), (ended, after) = self._marks[number : number + 2]
        took = ended - began
        return Cpu(
            (after.shim - before.shim) / took, (after.triton - before.triton) / took, (after.load - before.load) / took
        )
