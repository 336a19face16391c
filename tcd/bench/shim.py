"""Load on /diagnose through a real Triton, beside its floors and its peers, in one run.

The floors decode the same body and return a fixed answer: as raw ASGI, which is the style of the shim's own hot route,
and as a route of Starlette. The peers are a naive shim that does the same work, and the ensemble called directly.

Rates depend on the machine; the ratios of rates and of server CPU per request are what to compare.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tcd.bench import direct
from tcd.bench.load import Load, body, wrk
from tcd.errors import LauncherError
from tcd.triton.process import tree, usage

#: Names of what is under load.
SHIM, FUSED, BARE, NAIVE, FLOOR, ROUTE, DIRECT = (
    *("shim", "shim, tcd_fused", "no receipts", "naive shim"),
    *("no-op, raw ASGI", "no-op, Starlette route", "direct Triton call"),
)
_START = 120.0
_WARM_UP = 1.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server under load: where it listens, its processes by part, gRPC and HTTP of its Triton (empty: none)."""

    url: str
    parts: dict[str, set[int]]
    triton: str = ""
    triton_http: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the load's own figures and CPU microseconds per request of each part."""

    server: str
    concurrency: int
    load: Load
    cpu_us: dict[str, float]


def _wait(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    until = time.monotonic() + _START
    while time.monotonic() < until and process.poll() is None:
        text = log.read_text(errors="replace")
        if re.search(pattern, text):
            return text
        time.sleep(0.05)
    msg = f"the server under test did not start: {log.read_text(errors='replace')[-500:]}"
    raise LauncherError(msg)


@contextlib.contextmanager
def _process(command: list[str], log: Path, *, stdin: bytes = b"") -> Iterator[subprocess.Popen[bytes]]:
    source = log.with_suffix(".in")
    source.write_bytes(stdin)
    with source.open("rb") as into, log.open("wb") as out:
        process = subprocess.Popen(command, stdin=into, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def shim(folder: Path, name: str, env: dict[str, str]) -> Iterator[Server]:
    """`tcd serve` on free ports, with settings from `env`; logs of decisions are off."""
    log = folder / f"{name}.log"
    command = [sys.executable, "-m", "tcd.cli.main", "serve", "--port", "0", "--triton-port", "0"]
    command += ["--data-dir", str(folder / name)]
    with _environment(env), _process(command, log) as process:
        text = _wait(process, log, r"(?m)^ready ")
        found = re.search(r"(?m)^shim +(\S+)", text)
        assert found is not None  # noqa: S101 - the line comes before `ready`
        everything = tree(process.pid)
        grpc = re.search(r"\(gRPC ([^,]+),", text)
        http = re.search(r"(?m)^triton +(http\S+)", text)
        parts = {"shim": {process.pid}, "triton": everything - {process.pid}}
        yield Server(found[1], parts, grpc[1] if grpc else "", http[1] if http else "")


@contextlib.contextmanager
def noop(folder: Path, answer: bytes, style: str = "raw") -> Iterator[Server]:
    """A floor: same server, same decoding, a fixed answer; see `noop.STYLES`."""
    with _listening("tcd.bench.noop", [style], folder / f"noop-{style}.log", stdin=answer) as server:
        yield server


@contextlib.contextmanager
def naive(folder: Path, triton: Server) -> Iterator[Server]:
    """The peer: `tcd.bench.naive` on the Triton of another server under test, whose CPU is counted as its own."""
    arguments = [triton.triton, str(folder / "naive.sqlite")]
    with _listening("tcd.bench.naive", arguments, folder / "naive.log") as server:
        yield Server(server.url, server.parts | {"triton": triton.parts["triton"]})


@contextlib.contextmanager
def _listening(module: str, arguments: list[str], log: Path, *, stdin: bytes = b"") -> Iterator[Server]:
    """`python -m module PORT ...` once it accepts connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with _process([sys.executable, "-m", module, str(port), *arguments], log, stdin=stdin) as process:
        until = time.monotonic() + _START
        while not _accepts(port):
            if time.monotonic() > until or process.poll() is not None:
                msg = f"{module} did not start: {log.read_text(errors='replace')[-500:]}"
                raise LauncherError(msg)
            time.sleep(0.05)
        yield Server(f"http://127.0.0.1:{port}", {"shim": {process.pid}})


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


@contextlib.contextmanager
def _environment(env: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def one_answer(url: str) -> bytes:
    """A real answer, for the floor to repeat."""
    request = urllib.request.Request(  # noqa: S310 - a server on loopback that was started here
        f"{url}/diagnose", json.dumps(body()).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - the same
        content: bytes = response.read()
    return content


def drive(name: str, server: Server, *, concurrency: int, seconds: float, label: str) -> Run:
    """One run of the load and the CPU that each part spent on it."""
    before = {part: usage(pids).cpu_seconds for part, pids in server.parts.items()}
    if name == DIRECT:
        load = direct.call(server.url, concurrency=concurrency, seconds=seconds)
    else:
        load = wrk(server.url, concurrency=concurrency, seconds=seconds, run=label)
    spent = {part: usage(pids).cpu_seconds - before[part] for part, pids in server.parts.items()}
    return Run(name, concurrency, load, {part: 1e6 * cpu / load.requests for part, cpu in spent.items()})


@contextlib.contextmanager
def servers() -> Iterator[dict[str, Server]]:
    """Everything under load, on free ports of this machine."""
    quiet = {"TCD_LOG_LEVEL": "warning"}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        folder = Path(directory)
        full = stack.enter_context(shim(folder, "shim", quiet))
        fused = stack.enter_context(shim(folder, "fused", quiet | {"TCD_TRITON_MODEL": "tcd_fused"}))
        bare = stack.enter_context(shim(folder, "bare", quiet | {"TCD_RECEIPTS_ENABLE": "0"}))
        answer = one_answer(full.url)
        yield {
            SHIM: full,
            FUSED: fused,
            BARE: bare,
            FLOOR: stack.enter_context(noop(folder, answer)),
            ROUTE: stack.enter_context(noop(folder, answer, "route")),
            NAIVE: stack.enter_context(naive(folder, full)),
            DIRECT: Server(full.triton_http, {"triton": full.parts["triton"]}),
        }


def measure(*, concurrencies: tuple[int, ...], seconds: float, rounds: int) -> list[Run]:
    """Interleaved runs of the shim, that on `tcd_fused`, that without receipts, the floors and the peers."""
    runs: list[Run] = []
    with servers() as known:
        for name, server in known.items():
            drive(name, server, concurrency=8, seconds=_WARM_UP, label="warm")
        for number in range(rounds):
            for concurrency in concurrencies:
                for name, server in known.items():
                    label = f"{number}-{concurrency}"
                    runs.append(drive(name, server, concurrency=concurrency, seconds=seconds, label=label))
    return runs


def summary(runs: list[Run]) -> list[dict[str, Any]]:
    """Medians over the rounds, and ratios to the floor and the naive shim of the same round and concurrency."""
    keys = sorted({(run.concurrency, run.server) for run in runs})
    by = {key: [run for run in runs if (run.concurrency, run.server) == key] for key in keys}
    rows = []
    for (concurrency, server), mine in by.items():

        def ratio(name: str, value: Callable[[Run], float]) -> float | None:
            peers = by.get((concurrency, name), [])  # noqa: B023 - used at once
            pairs = zip(mine, peers, strict=False)  # noqa: B023
            found = [value(run) / value(peer) for run, peer in pairs if "shim" in run.cpu_us]
            return median(found) if found else None

        rows.append(
            {
                "server": server,
                "concurrency": concurrency,
                "rate": median(run.load.rate for run in mine),
                **{q: median(getattr(run.load, q) for run in mine) for q in ("p50", "p99", "p999")},
                "max": max(run.load.max for run in mine),
                "errors": sum(run.load.errors for run in mine),
                **{f"cpu_{part}": median(run.cpu_us[part] for run in mine) for part in mine[0].cpu_us},
                "cpu_load": median(1e6 * run.load.cpu / run.load.requests for run in mine),
                "rate_ratio": ratio(FLOOR, lambda run: run.load.rate),
                "naive_ratio": ratio(NAIVE, lambda run: run.load.rate),
                "cpu_ratio": ratio(FLOOR, lambda run: run.cpu_us["shim"]),
                "route_ratio": ratio(ROUTE, lambda run: run.cpu_us["shim"]),
            }
        )
    return rows


_COLUMNS = ("server", "c", "requests/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "errors")
_COSTS = (
    "shim CPU us",
    "Triton CPU us",
    "load CPU us",
    "rate / raw no-op",
    "rate / naive",
    "CPU / raw no-op",
    "CPU / Starlette no-op",
)


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def markdown(rows: list[dict[str, Any]]) -> str:
    """The summary as a table."""
    titles = _COLUMNS + _COSTS
    lines = [_line(titles), "|" + "---|" * len(titles)]
    for r in rows:
        figures = (f"{r['rate']:.0f}", f"{r['p50']:.1f}", f"{r['p99']:.1f}", f"{r['p999']:.1f}", f"{r['max']:.0f}")
        costs = tuple(f"{r[key]:.0f}" if key in r else "-" for key in ("cpu_shim", "cpu_triton", "cpu_load"))
        ratios = (r["rate_ratio"], r["naive_ratio"], r["cpu_ratio"], r["route_ratio"])
        shares = tuple("-" if share is None else f"{share:.2f}" for share in ratios)
        lines.append(_line((r["server"], str(r["concurrency"]), *figures, str(r["errors"]), *costs, *shares)))
    return "\n".join(lines)


def raw(runs: list[Run]) -> list[dict[str, Any]]:
    """The runs as JSON values."""
    return [asdict(run) for run in runs]
