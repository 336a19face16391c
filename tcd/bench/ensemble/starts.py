"""From start to ready, beside the same repository whose models Triton first asks for their configuration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tcd.bench.ensemble.peers import spread
from tcd.triton.launcher import LaunchOptions, TritonServer
from tcd.triton.process import group_members


def measure(turns: int) -> dict[str, Any]:
    """Seconds from start to the first answers of every default model, by turns; and who has torch in memory.

    Raises:
        LauncherError: the server does not start.
    """
    seconds: dict[bool, list[float]] = {False: [], True: []}
    holders: list[str] = []
    for turn in range(turns):
        for auto in (False, True) if turn % 2 == 0 else (True, False):
            options = LaunchOptions(http_port=0, grpc_port=0, metrics_port=0, auto_complete=auto)
            start = time.perf_counter()
            with TritonServer(options) as server:
                seconds[auto].append(time.perf_counter() - start)
                assert server.pid is not None  # noqa: S101 - it runs
                holders += with_torch(server.pid)
    pairs = zip(seconds[False], seconds[True], strict=True)
    return {
        "as_it_is": spread(seconds[False]),
        "auto_complete": spread(seconds[True]),
        "ratio": spread([mine / other for mine, other in pairs]),
        "processes_with_torch": sorted(set(holders)),
    }


def with_torch(group: int) -> list[str]:
    """Command lines of a group's processes that have torch's library in memory."""
    found = []
    for pid in group_members(group):
        place = Path(f"/proc/{pid}")
        try:
            if "libtorch" in (place / "maps").read_text():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
        except OSError:
            continue
    return found
