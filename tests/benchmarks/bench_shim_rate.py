"""Latencies and CPU of several checkouts below capacity, in turns; asserts nothing.

Below capacity rows travel in small batches, so a request costs up to four times the CPU that it costs at 64
connections: what is compared here is not what `bench_shim_turns.py` compares. Two modes: requests that leave when
they are due (`--rate`), and a lone caller beside the naive shim (`--lone`), for whom the first step of a session,
whose reservation is a commit of its own, is told apart from later ones. At a rate all sessions begin in a turn that
does not count.

On a machine that is busy with something else, `--real-time` (root, Linux) lets the servers and this process go before
all others while they are measured; below 95 % of the machine, which the kernel keeps back for the others.

`python tests/benchmarks/bench_shim_rate.py BEFORE AFTER --rate 750 --real-time` (each with its own .venv).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import uvloop

from tcd.bench import shim
from tcd.bench.openloop import Phase, Shot, drive
from tcd.bench.overload import bodies
from tcd.triton.process import tree

_LONE_SESSIONS = 4
_QUANTILES = (0.5, 0.9, 0.99)


@dataclass
class Checkout:
    """A server under test and what was measured on it: (CPU us, rows per call, p50, p90, p99) per turn."""

    port: int
    pid: int
    grpc: str = ""
    turns: list[tuple[float, ...]] = field(default_factory=list)
    waits: dict[str, list[float]] = field(default_factory=dict)


def _serve(stack: contextlib.ExitStack, folder: Path, name: str, where: str) -> Checkout:
    command = ["env", "-C", where, f"PYTHONPATH={where}", f"{where}/.venv/bin/python", "-m", "tcd.cli.main", "serve"]
    command += ["--port", "0", "--triton-port", "0", "--data-dir", str(folder / name)]
    log = folder / f"{name}.log"
    with shim._environment({"TCD_LOG_LEVEL": "warning"}):
        process = stack.enter_context(shim._process(command, log))
    text = shim._wait(process, log, r"(?m)^ready ")
    port, grpc = re.search(r"(?m)^shim +http://[^:]+:(\d+)", text), re.search(r"\(gRPC ([^,]+),", text)
    assert port is not None
    assert grpc is not None
    return Checkout(int(port[1]), process.pid, grpc[1])


@contextlib.contextmanager
def _before_others(pids: set[int], *, wanted: bool) -> Iterator[None]:
    def schedule(*how: str) -> None:
        for pid in pids | {os.getpid()} if wanted else ():
            subprocess.run(["chrt", "-a", *how, str(pid)], check=False, capture_output=True)

    schedule("-r", "-p", "1")
    try:
        yield
    finally:
        schedule("-o", "-p", "0")


def _cpu(pid: int) -> float:
    """Seconds of CPU of all threads, by the scheduler's clock: a tick of `/proc/PID/stat` is ten milliseconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _calls(port: int) -> tuple[float, float]:
    """Calls of the ensemble so far, and their rows."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = [re.findall(rf"(?m)^tcd_triton_batch_size_{n}(?:{{.*}})? (\S+)$", text) for n in ("count", "sum")]
    return sum(map(float, found[0])), sum(map(float, found[1]))


def _at_rate(one: Checkout, args: argparse.Namespace, label: str, seconds: float) -> None:
    loop = uvloop.new_event_loop()
    with _before_others(tree(one.pid), wanted=args.real_time):
        cpu, calls = _cpu(one.pid), _calls(one.port)
        phases = (Phase(args.rate, seconds),)
        shots: list[Shot] = loop.run_until_complete(drive("127.0.0.1", one.port, phases, bodies(label)))
        cpu, after = _cpu(one.pid) - cpu, _calls(one.port)
    loop.close()
    waits = sorted(1e3 * shot.latency for shot in shots)
    quantiles = [waits[int(q * (len(waits) - 1))] for q in _QUANTILES]
    rows = (after[1] - calls[1]) / max(1.0, after[0] - calls[0])
    one.turns.append((1e6 * cpu / len(shots), rows, *quantiles))


def _alone(one: Checkout, args: argparse.Namespace, label: str, pids: set[int]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", one.port)
    with _before_others(pids, wanted=args.real_time):
        for kind in ("first", "later"):
            make = bodies(f"{label}{kind}")
            waits = one.waits.setdefault(kind, [])
            for number in range(args.lone):
                content = make(number if kind == "first" else number % _LONE_SESSIONS)
                began = time.perf_counter()
                connection.request("POST", "/diagnose", content, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == http.HTTPStatus.OK
                if kind == "first" or number >= 2 * _LONE_SESSIONS:
                    waits.append(1e3 * (time.perf_counter() - began))


def main() -> None:
    """Print a line per checkout: medians of the turns, and the best of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkouts", nargs="+")
    parser.add_argument("--rate", type=float, default=750.0)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--lone", type=int, default=0, help="requests of a lone caller per turn instead of a rate")
    parser.add_argument("--real-time", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        folder = Path(directory)
        known = {
            where: _serve(stack, folder, str(number), str(Path(where).resolve()))
            for number, where in enumerate(args.checkouts)
        }
        if args.lone:
            triton = shim.Server("", {"triton": set()}, known[args.checkouts[0]].grpc)
            peer = stack.enter_context(shim.naive(folder, triton))
            known["naive"] = Checkout(int(peer.url.rsplit(":", 1)[1]), next(iter(peer.parts["shim"])))
        pids = set[int]().union(*(tree(one.pid) for one in known.values()))
        for number in range(-1, args.rounds):
            for one in known.values():
                if args.lone:
                    _alone(one, args, f"turn{number}", pids)
                else:
                    _at_rate(one, args, "turn", args.seconds)
            if number < 0:
                for one in known.values():
                    one.turns.clear()
                    one.waits.clear()
        for name, one in known.items():
            for kind, waits in one.waits.items():
                found = sorted(waits)
                marks = ", ".join(f"{found[int(q * (len(found) - 1))]:.2f}" for q in _QUANTILES)
                sys.stdout.write(f"{name}, {kind} steps: p50, p90, p99 {marks} ms (N {len(found)})\n")
            if one.turns:
                middle, best = ([how(column) for column in zip(*one.turns, strict=True)] for how in (median, min))
                marks = ", ".join(f"{m:.1f} ({b:.1f})" for m, b in zip(middle[2:], best[2:], strict=True))
                sys.stdout.write(
                    f"{name}: CPU {middle[0]:.0f} us ({best[0]:.0f}), {middle[1]:.1f} rows a call, "
                    f"p50, p90, p99 {marks} ms\n"
                )
        sys.stdout.write(f"load {os.getloadavg()[0]:.1f}\n")


if __name__ == "__main__":
    main()
