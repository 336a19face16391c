"""What receipts and the durable ledger cost the shim per /diagnose: CPU with both, with receipts alone, with neither.

The shim is `tcd.bench.inprocess`, without sockets and Triton. With `--against DIR` another checkout is measured in
turns with this one, each in a process of its own, so that only the ratios matter on a busy machine. Asserts nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import uvloop

from tcd.bench import inprocess

ROOT = Path(__file__).parents[2]
SESSIONS = 256
KINDS = ("receipts, SQLite", "receipts, memory", "no receipts")


async def _measured(kind: str, requests: int, rounds: int) -> tuple[float, float]:
    """CPU microseconds per decision of the process, and of the event loop's thread: the medians of the rounds."""
    process, loop = [], []
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) if kind == KINDS[0] else None
        async with inprocess.app(where, receipts_enable=kind != KINDS[2]) as shim:
            gc.collect()
            gc.freeze()
            # as `tcd serve`
            gc.set_threshold(20_000, 20, 20)
            for turn in range(rounds + 1):
                began = time.thread_time()
                spent = await inprocess.decide(shim, requests, lambda i: (f"tenant{i % 8}", f"run-{i % SESSIONS}"))
                if turn:
                    process.append(1e6 * spent / requests)
                    loop.append(1e6 * (time.thread_time() - began) / requests)
    return median(process), median(loop)


def _pieces() -> dict[str, float]:
    """Microseconds of the parts of one record, the fastest of many in a loop: warm caches."""
    # another checkout may not have them
    from tcd.receipts import decisions, ed25519, filling  # noqa: PLC0415

    async def one() -> None:
        async with inprocess.app(None) as shim:
            await inprocess.decide(shim, 2560, lambda i: (f"tenant{i % 8}", f"run-{i % SESSIONS}"))

    with mock.patch.object(decisions, "fill", side_effect=filling.fill) as fill:
        uvloop.new_event_loop().run_until_complete(one())
    template, objects, *rest = fill.call_args.args
    exact = filling.Objects(objects.request, objects.components, 1)
    ways = {"openssl": ed25519.openssl, "libsodium": getattr(ed25519, "libsodium", None)}
    signs = {name: way(bytes(32))[1] for name, way in ways.items() if way is not None}
    calls: dict[str, Callable[[], Any]] = {
        "the record by the kernels": lambda: filling.fill(template, objects, *rest),
        "the record by Python, of objects that are RFC 8785": lambda: filling.by_python(template, exact, *rest),
        **{f"a signature by {name}": partial(sign, bytes(100)) for name, sign in signs.items()},
    }
    return {name: 1e6 * min(_timed(call) for _ in range(20)) for name, call in calls.items()}


def _timed(call: Callable[[], Any], repetitions: int = 300) -> float:
    began = time.thread_time()
    for _ in range(repetitions):
        call()
    return (time.thread_time() - began) / repetitions


def _in(root: Path, kind: str, args: argparse.Namespace) -> tuple[float, float]:
    """`_measured` in a process of its own, of the packages of `root`."""
    command = [sys.executable, __file__, "--worker", kind, f"--requests={args.requests}", f"--rounds={args.rounds}"]
    env = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, env=env, cwd=root, check=True, capture_output=True, text=True)
    process, loop = json.loads(done.stdout.splitlines()[-1])
    return process, loop


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="another checkout, its kernels built")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        mine = uvloop.new_event_loop().run_until_complete(_measured(args.worker, args.requests, args.rounds))
        sys.stdout.write(json.dumps(mine) + "\n")
        return
    roots = [ROOT] if args.against is None else [args.against.resolve(), ROOT]
    taken: dict[tuple[Path, str], list[tuple[float, float]]] = {(root, kind): [] for kind in KINDS for root in roots}
    for _ in range(args.turns):
        for (root, kind), found in taken.items():
            found.append(_in(root, kind, args))
    for root in roots:
        sys.stdout.write(f"{root}\n")
        for kind in KINDS:
            process, loop = zip(*taken[root, kind], strict=True)
            spread = f"{min(process):.0f} to {max(process):.0f}"
            loops = f"{median(loop):5.0f} in the loop"
            sys.stdout.write(f"  {kind:18} {median(process):5.0f} us of CPU per decision ({spread}), {loops}\n")
        cost = [a[0] - b[0] for a, b in zip(taken[root, KINDS[0]], taken[root, KINDS[2]], strict=True)]
        sys.stdout.write(f"  {'both cost':18} {median(cost):5.0f} us ({min(cost):.0f} to {max(cost):.0f})\n")
    for name, micros in _pieces().items():
        sys.stdout.write(f"{micros:5.1f} us  {name}\n")


if __name__ == "__main__":
    main()
