"""CPU time of a process tree, from /proc: what a request costs, whatever else the machine is doing."""

from __future__ import annotations

import os
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the parenthesised command name; empty when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()


def tree(pid: int) -> set[int]:
    """`pid` and all its descendants that live now."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _fields(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = {pid}
    grown = True
    while grown:
        more = {child for child, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def cpu_seconds(pids: set[int]) -> float:
    """User and system CPU seconds used so far by `pids`, their reaped children left out."""
    total = 0
    for pid in pids:
        fields = _fields(pid)
        if fields:
            total += int(fields[11]) + int(fields[12])
    return total / _TICK
