"""How long a start takes by the length of the log: folding all of it, and from the newest saved state."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tcd.ledger import SqliteLedger
from tcd.risk_av import Controller, ControllerParams

TENANTS: Final = 100
#: Sessions per commit while the log is made; how it is made is not measured.
_TOGETHER: Final = 1500
_PAGE: Final = 4096


def sessions(controller: Controller, first: int, count: int) -> None:
    """Sessions of all tenants in turn: reserved, settled, closed."""
    for number in range(first, first + count):
        stream, name = f"sha256:{number % TENANTS:064x}", f"h{number}"
        alpha = controller.reserve(stream=stream, hypothesis=name, user="u").alpha
        p = (number * 7919 % 9973 + 1) / 9974
        controller.settle(stream=stream, hypothesis=name, p=p, trigger=p <= alpha)
        controller.close(stream=stream, hypothesis=name, reason="end")


async def _start(directory: Path, *, saved: bool) -> tuple[dict[str, Any], str]:
    from sidecar_api.recovery import restore

    ledger = SqliteLedger(directory)
    controller = Controller()
    began, cpu = time.perf_counter(), time.process_time()
    stood = 0
    if saved:
        events, stood = await restore(ledger, controller)
    else:
        events = 0
        while page := (await ledger.events(first=events, limit=_PAGE)).events:
            controller.fold(page)
            events += len(page)
    took = {
        "seconds": round(time.perf_counter() - began, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "folded": events - stood,
    }
    await ledger.close()
    return took, controller.digest()


async def measure(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """One log that grows to each of `sizes` events (ascending), started from at each of them."""
    from sidecar_api.commit import Committer
    from sidecar_api.states import StateKeeper
    from tcd.config import Settings

    every = int(Settings.model_fields["state_every"].default)
    controller = Controller(ControllerParams(schedule=("uniform", 10)))
    out: list[dict[str, Any]] = []
    made = number = 0
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text) / "data"
        for size in sizes:
            ledger = SqliteLedger(directory)
            committer = Committer(ledger, now_us=lambda: 0)
            keeper = StateKeeper(ledger, controller, every=every)
            keeper.begin(made, max(await ledger.states(), default=0))
            while made < size:
                sessions(controller, number, _TOGETHER)
                number += _TOGETHER
                events = controller.take_events()
                made += len(events)
                done = committer.put(events=events)
                keeper.handed(len(events), done)
                await done
                await asyncio.sleep(0)
            await keeper.settled()
            kept = await ledger.states()
            state = len((await ledger.state(kept[0])).data) if kept else 0
            began = time.thread_time()
            frozen = controller.freeze()
            pause = time.thread_time() - began
            frozen.encode()
            written = time.thread_time() - began - pause
            await ledger.close()
            whole, one = await _start(directory, saved=False)
            newest, other = await _start(directory, saved=True)
            if not one == other == controller.digest():
                msg = "a start came to another state"
                raise RuntimeError(msg)
            row = {"events": made, "whole_log": whole, "saved_state": newest, "state_bytes": state}
            out.append(
                {
                    **row,
                    "pause_ms": round(pause * 1e3, 2),
                    "encode_ms": round(written * 1e3, 1),
                    "bytes": (directory / "ledger.sqlite").stat().st_size,
                }
            )
    return out
