"""What reserve + settle cost, whether that grows with the subjects, and what a subject at rest costs in memory."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tcd.risk_av import Controller, ControllerParams, LeaseHolder


def _cpu(work: Callable[[int], None], count: int, rounds: int = 3) -> float:
    """CPU microseconds of one call, the best of `rounds`."""
    best = float("inf")
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        work(count)
        best = min(best, time.process_time() - began)
    return best / count * 1e6


def _leased(count: int) -> None:
    """Reserve and settle from leases; events are taken in batches of 64, as a group commit does."""
    controller = Controller(ControllerParams(schedule=("uniform", 4 * count)))
    holder = LeaseHolder(controller.lease(stream="s", holder="a", replicas=1))
    for i in range(count):
        name = str(i)
        alpha = holder.reserve(name, "u")
        holder.settle(name, 0.5, trigger=alpha >= 0.5)  # noqa: PLR2004
        if not i & 63:
            holder.take_events()


def _whole(count: int) -> None:
    """Reserve, settle, close and fold in the controller itself."""
    controller = Controller(ControllerParams(schedule=("uniform", 1_000_000), keep_closed=64))
    for i in range(count):
        name = str(i)
        alpha = controller.reserve(stream="s", hypothesis=name, user="u").alpha
        controller.settle(stream="s", hypothesis=name, p=0.5, trigger=alpha >= 0.5)  # noqa: PLR2004
        controller.close(stream="s", hypothesis=name, reason="end")
        if not i & 63:
            controller.take_events()


def _accepted(count: int) -> None:
    """The controller's end of a lease: check and fold a holder's events."""
    controller = Controller(ControllerParams(schedule=("uniform", 4 * count), keep_closed=64))
    holder = LeaseHolder(controller.lease(stream="s", holder="a", replicas=1))
    for i in range(count):
        name = str(i)
        alpha = holder.reserve(name, "u")
        holder.settle(name, 0.5, trigger=alpha >= 0.5)  # noqa: PLR2004
        holder.close(name, "end")
        controller.accept(holder.take_events())
        controller.take_events()


def rss() -> int:
    """Resident bytes of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    msg = "/proc/self/status has no VmRSS"
    raise OSError(msg)


def subject(number: int) -> str:
    """A stream's name as the shim makes it."""
    return f"sha256:{number:064x}"


def visit(controller: Controller, number: int) -> None:
    """One request of a subject that was at rest: wake, reserve, settle, close, rest."""
    stream = subject(number)
    alpha = controller.reserve(stream=stream, hypothesis=f"h{controller.state(stream).reserved_total}").alpha
    name = controller.open_hypotheses(stream)[0]
    controller.settle(stream=stream, hypothesis=name, p=0.5, trigger=alpha >= 0.5)  # noqa: PLR2004
    controller.close(stream=stream, hypothesis=name, reason="end")
    controller.rest(stream=stream)
    controller.take_events()


def growth(subjects: int, visits: int = 2000) -> dict[str, Any]:
    """Bytes per subject at rest (measured RSS) and CPU per request at 10^3 subjects and at every power of ten up."""
    controller = Controller(ControllerParams(schedule=("uniform", 10)))
    rng = np.random.default_rng(3)
    gc.collect()
    before = rss()
    per_request: dict[str, float] = {}
    made = 0
    size = 1000
    while made < subjects:
        size = min(size, subjects)
        for number in range(made, size):
            visit(controller, number)
        made = size
        some = rng.integers(made, size=visits).tolist()
        began = time.process_time()
        for number in some:
            visit(controller, number)
        per_request[str(made)] = round((time.process_time() - began) / visits * 1e6, 1)
        size *= 10
    gc.collect()
    return {
        "subjects": controller.count,
        "rss_bytes_per_subject": round((rss() - before) / subjects, 1),
        "us_per_request": per_request,
    }


def measure(*, subjects: int, count: int = 50_000) -> dict[str, Any]:
    """Everything; `subjects` 0 leaves the memory out."""
    us = {
        "reserve+settle from a lease": _cpu(_leased, count),
        "reserve+settle+close+fold in the controller": _cpu(_whole, count // 5),
        "the same by a lease, controller's end included": _cpu(_accepted, count // 5),
    }
    out: dict[str, Any] = {"cpu_us": {name: round(value, 2) for name, value in us.items()}}
    out["per_second"] = {name: round(1e6 / value) for name, value in us.items()}
    if subjects:
        # a process of its own: pages that this one has freed would hide the growth
        command = [sys.executable, "-m", "tcd.bench.controller.cost", str(subjects)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        out["at_rest"] = json.loads(done.stdout)
    return out


if __name__ == "__main__":
    print(json.dumps(growth(int(sys.argv[1]))))
