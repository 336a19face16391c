"""The parts of a deployment on one machine, each of which can be killed as a machine that dies would be."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tcd.triton.process import GuardedProcess, tree, usage
from tests.conftest import ROOT
from tests.postgres import PostgresServer, binaries

REPLICAS = ("a", "b", "c")
CONFIG = ROOT / "docker" / "haproxy" / "haproxy.cfg"
#: Seconds after which a part that does not come up counts as broken; far above what a busy machine needs.
_START = 240.0
_CGROUPS = Path("/sys/fs/cgroup/cpu")


def balancer() -> str:
    """Path of HAProxy; a named skip where there is none."""
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        pytest.skip("haproxy: not installed (Debian: apt-get install haproxy)")
    return found


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


def answers(url: str) -> bool:
    """Whether an address answers 200."""
    with (
        contextlib.suppress(urllib.error.URLError, OSError, ValueError),
        urllib.request.urlopen(url, timeout=5) as reply,  # noqa: S310 - our own addresses
    ):
        return bool(reply.status == 200)
    return False


@dataclass
class Part:
    """A program that is started, killed with everything that it started, and started again."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    log: Path
    health: str
    quota: float | None = None
    _process: GuardedProcess | None = None
    _seen: dict[int, float] = field(default_factory=dict)

    def start(self) -> None:
        """Start it."""
        self._process = GuardedProcess(self.command, env=self.env, log=self.log)

    def limit(self) -> None:
        """From now on everything that it is may use `quota` cores together."""
        if self.quota is None:
            return
        group = _CGROUPS / f"tcd-scaleout-{os.getpid()}-{self.name}"
        group.mkdir(exist_ok=True)
        (group / "cpu.cfs_period_us").write_text("20000")
        (group / "cpu.cfs_quota_us").write_text(str(int(20000 * self.quota)))
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(pid))

    def pids(self) -> set[int]:
        """Everything that it is."""
        return tree(self._process.pid) if self._process is not None and not self._process.exited.is_set() else set()

    def cpu_seconds(self) -> float:
        """CPU that it used in all its lives, as far as it was asked while they lasted."""
        for pid in self.pids():
            self._seen[pid] = usage([pid]).cpu_seconds
        return sum(self._seen.values())

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        assert self._process is not None
        self.cpu_seconds()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.exited.wait()

    def ready(self) -> bool:
        """Whether it answers its health check."""
        return answers(self.health)

    def wait(self) -> None:
        """Until it is ready.

        Raises:
            AssertionError: it ended, or takes too long; has what it said.
        """
        until = time.monotonic() + _START
        while not self.ready():
            assert self._process is not None
            ended = self._process.exited.is_set()
            alive = not ended and time.monotonic() < until
            assert alive, f"{self.name}: {self.log.read_text()[-3000:]}"
            time.sleep(0.1)

    def stop(self) -> None:
        """End it gracefully; its group goes too."""
        if self._process is not None:
            self._process.stop(grace=30.0)
        if self.quota is not None:
            with contextlib.suppress(OSError):
                (_CGROUPS / f"tcd-scaleout-{os.getpid()}-{self.name}").rmdir()


class Deployment:
    """Tritons, shims, a balancer before both, PostgreSQL; a killed part comes back after `down` seconds."""

    def __init__(
        self, folder: Path, postgres: PostgresServer, *, tritons: int, shims: int, quota: float | None = None
    ) -> None:
        """Prepare; `quota`: cores that each Triton and each shim may use, None = what there is."""
        self.postgres = postgres
        self.url = postgres.place()
        ports = iter(free_ports(2 + 3 * len(REPLICAS) + 1 + len(REPLICAS)))
        self.front, self._scoring = next(ports), next(ports)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("TCD_")}
        tcd = [sys.executable, "-m", "tcd.cli.main"]
        self.tritons, self.shims, addresses = [], [], {"SHIM_PORT": str(self.front), "TRITON_PORT": str(self._scoring)}
        for name in REPLICAS:
            http, grpc, metrics = next(ports), next(ports), next(ports)
            addresses[f"TRITON_{name.upper()}"] = f"127.0.0.1:{http}"
            command = [
                *tcd,
                "triton",
                "--http-port",
                str(http),
                "--grpc-port",
                str(grpc),
                "--metrics-port",
                str(metrics),
            ]
            health = f"http://127.0.0.1:{http}/v2/health/ready"
            self.tritons.append(Part(f"triton-{name}", command, clean, folder / f"triton-{name}.log", health, quota))
        for name in REPLICAS:
            http = next(ports)
            addresses[f"SHIM_{name.upper()}"] = f"127.0.0.1:{http}"
            settings = {
                "TCD_HTTP_PORT": str(http),
                "TCD_GRPC_ENABLE": "false",
                "TCD_TRITON_URL": f"http://127.0.0.1:{self._scoring}",
                "TCD_LEDGER": self.url,
                "TCD_REPLICA": name,
                "TCD_ATTEST_SK_HEX": SEED,
                # with so few calibration sessions: epochs of several sessions, whose parts are leased
                "TCD_ALPHA": "0.9",
                "TCD_LOG_INTERVAL_S": "1",
                "TCD_LOG_DECISIONS": "false",
                "TCD_HTTP_RATE_CAP": "1000000",
                "TCD_HTTP_RATE_REFILL": "1000000",
                "TCD_DATA_DIR": str(folder / f"shim-{name}"),
            }
            health = f"http://127.0.0.1:{http}/readyz"
            part = Part(
                f"shim-{name}", [*tcd, "serve"], {**clean, **settings}, folder / f"shim-{name}.log", health, quota
            )
            self.shims.append(part)
        self.tritons, self.shims = self.tritons[:tritons], self.shims[:shims]
        command = [balancer(), "-db", "-f", str(CONFIG)]
        self.haproxy = Part(
            "haproxy", command, {**clean, **addresses}, folder / "haproxy.log", f"http://127.0.0.1:{self.front}/readyz"
        )

    @property
    def parts(self) -> list[Part]:
        """All that are programs of ours to start."""
        return [*self.tritons, *self.shims, self.haproxy]

    def start(self) -> None:
        """Start all and wait until a caller would be answered."""
        for part in (*self.tritons, self.haproxy):
            part.start()
        for part in self.tritons:
            part.wait()
        # one makes the tables, then the others join
        for part in self.shims:
            part.start()
            part.wait()
        self.haproxy.wait()
        for part in self.parts:
            part.limit()

    def cpu_seconds(self) -> dict[str, float]:
        """CPU so far by kind of part."""
        return {
            "triton": sum(part.cpu_seconds() for part in self.tritons),
            "shim": sum(part.cpu_seconds() for part in self.shims),
            "haproxy": self.haproxy.cpu_seconds(),
            "postgres": usage(tree(self.postgres.pid)).cpu_seconds,
        }

    def faults(self) -> dict[str, tuple[Callable[[], None], Callable[[], None]]]:
        """Of each part, by name: what kills it, and what a supervisor does after a while."""
        out: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {}
        for part in (self.tritons[0], self.shims[0], self.haproxy):
            out[part.name] = (part.kill, part.start)
        out["postgres"] = (self.postgres.kill, self.postgres.start)
        return out

    def stop(self) -> None:
        """End everything that is ours; shims before what they need."""
        for group in (self.shims, [self.haproxy], self.tritons):
            threads = [threading.Thread(target=part.stop) for part in group]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


#: Of the receipts, and of tenants' names.
SEED = "07" * 32


@contextlib.contextmanager
def deployment(folder: Path, *, tritons: int = 3, shims: int = 3, quota: float | None = None) -> Iterator[Deployment]:
    """A running deployment with a PostgreSQL of its own."""
    found = binaries()
    if found is None:
        pytest.skip("postgres: initdb and postgres are not installed (Debian: apt-get install postgresql)")
    postgres = PostgresServer(found)
    try:
        postgres.start()
        made = Deployment(folder, postgres, tritons=tritons, shims=shims, quota=quota)
        try:
            made.start()
            yield made
        finally:
            made.stop()
    finally:
        postgres.stop()
