"""Starts a Triton server with the ensemble, keeps it honest and stops it without a trace.

`TritonServer` is a context manager, blocking (`with`) and asynchronous (`async with`). `heal()` is what the
health monitor calls: Triton never restarts a dead stub and stays "ready" without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal

import tcd
from tcd.contract import (
    DETECTOR,
    DIAGNOSE,
    DIAGNOSE_RAW,
    MODELS,
    MULTIVARIATE,
    ROUTING,
    SIGNALS,
    SPOTLIGHT,
    TEXT_MODELS,
    Model,
)
from tcd.errors import LauncherError, ScoringError
from tcd.triton.install import Install, find_install
from tcd.triton.probe import probe
from tcd.triton.process import GuardedProcess

if TYPE_CHECKING:  # in `typing` from Python 3.11 on
    from typing_extensions import Self

#: The models of the two ensembles, steps first, and the one that rewrites requests.
DEFAULT_MODELS: Final = tuple(
    m.name for m in (SIGNALS, DETECTOR, MULTIVARIATE, ROUTING, DIAGNOSE, DIAGNOSE_RAW, SPOTLIGHT)
)
#: The models that ship with tcd.
DEFAULT_REPOSITORY: Final = Path(tcd.__file__).parent.parent / "model_repository"
#: One numpy or torch thread per stub: more is slower (8x) with several rows in a batch.
_THREADS: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: Interfaces behind the admin key.
_RESTRICTED: Final = "model-repository,shared-memory,trace,logging"
_PROBE_TIMEOUT: Final = 2.0
#: Before a model is called broken: a busy server is not.
_PATIENT_TIMEOUT: Final = 5.0
_POLL: Final = 0.05
#: Time to stop for a server that does not answer: it is not asked politely for long.
_SHORT_GRACE: Final = 3.0
_FAILURE: Final = re.compile(r"failed to load '([^']+)' version \d+: (.*)")
_OK: Final = 200

Healed = Literal["healthy", "reloaded", "restarted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """How to run the server.

    Attributes:
        host: address of all three ports.
        http_port: KServe over HTTP; 0 picks a free port, here and below.
        grpc_port: KServe over gRPC.
        metrics_port: Prometheus metrics.
        models: models to load; others of the repositories stay out.
        repositories: model repositories, by default the one that ships with tcd.
        assets: directory of calibration assets for the models, by default the packaged ones.
        spotlight_key: 32 bytes under which `tcd_spotlight` knows nonces; by default it has one of its own.
        log_path: file for the server's log; by default one in a temporary directory that goes with the server.
        verbose: Triton's verbosity, 0 to 3.
        start_timeout: seconds until the server must be ready.
        stop_timeout: seconds for a clean stop before the whole group is killed.
        restrict_admin: put loading, shared memory, tracing and logging behind a random key (it is on the server's
            command line: it keeps the network out, not this machine's users).
        cuda_devices: CUDA_VISIBLE_DEVICES of the server unless the environment has one; Triton starts an instance
            of each model on every GPU that it sees.
        auto_complete: let Triton ask every model for its configuration first: slower, and not needed.
        cuda_pool: bytes of device memory that Triton keeps on each GPU for the tensors between the steps; a pool that
            is too small gives wrong or empty outputs.
        pinned_pool: bytes of page-locked host memory that copies to and from a GPU go through.
        gpu_break_even: logits of a batch from which `tcd_signals` on a GPU takes those there that come from the host;
            0 = never. `make bench-gpu` measures it.
        extra_args: more arguments of `tritonserver`.
    """

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    models: tuple[str, ...] = DEFAULT_MODELS
    repositories: tuple[Path, ...] = (DEFAULT_REPOSITORY,)
    assets: Path | None = None
    spotlight_key: bytes | None = field(default=None, repr=False)
    log_path: Path | None = None
    verbose: int = 0
    start_timeout: float = 120.0
    stop_timeout: float = 15.0
    restrict_admin: bool = True
    cuda_devices: str = "0"
    auto_complete: bool = False
    cuda_pool: int = 256 * 2**20
    pinned_pool: int = 256 * 2**20
    gpu_break_even: int = 0
    extra_args: tuple[str, ...] = field(default=())


def reachable(host: str) -> str:
    """Where a client on this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - it is looked up


def _bind(host: str, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(1)
    except OSError:
        sock.close()
        raise
    return sock


def choose_ports(options: LaunchOptions) -> tuple[int, int, int]:
    """The HTTP, gRPC and metrics ports: checked to be free, or picked.

    Raises:
        LauncherError: a port is taken (it says which), or the host is no address of this machine.
    """
    wanted = (
        ("http_port", options.http_port),
        ("grpc_port", options.grpc_port),
        ("metrics_port", options.metrics_port),
    )
    with contextlib.ExitStack() as stack:
        ports = []
        for name, port in wanted:
            flag = "--" + name.replace("_", "-")
            try:
                sock = stack.enter_context(_bind(options.host, port))
            except OSError as error:
                msg = f"port {port} ({name}) on {options.host} cannot be had: {error.strerror or error}"
                msg += f"; remedy: stop what listens there or choose another with {flag}"
                raise LauncherError(msg) from error
            ports.append(int(sock.getsockname()[1]))
    return ports[0], ports[1], ports[2]


def load_failures(log: str) -> dict[str, str]:
    """Models that failed to load and Triton's reason, read from its log."""
    return {m[1]: m[2].strip().strip('"') for m in _FAILURE.finditer(log)}


class TritonServer:
    """A Triton server as a child of this process."""

    def __init__(self, options: LaunchOptions | None = None, *, install: Install | None = None) -> None:
        """Prepare a server; `start` starts it.

        Args:
            options: how to run it.
            install: which server, by default `find_install()`.

        Raises:
            LauncherError: there is no server that can run here.
        """
        self.options = options or LaunchOptions()
        self.install = install or find_install()
        self.restarts = 0
        self.reloads = 0
        self._ghosts = False
        self._ports = (self.options.http_port, self.options.grpc_port, self.options.metrics_port)
        self._key = secrets.token_urlsafe(24)
        self._process: GuardedProcess | None = None
        self._directory: Path | None = None
        self._lock = threading.RLock()

    @property
    def pid(self) -> int | None:
        """Process id of the server, None before the start."""
        return self._process.pid if self._process else None

    @property
    def http_url(self) -> str:
        """URL of KServe over HTTP."""
        return f"http://{self._host()}:{self._ports[0]}"

    @property
    def grpc_url(self) -> str:
        """`host:port` of KServe over gRPC, as tritonclient takes it."""
        return f"{self._host()}:{self._ports[1]}"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{self._host()}:{self._ports[2]}/metrics"

    @property
    def admin_headers(self) -> dict[str, str]:
        """HTTP headers that open the restricted interfaces; keep them secret."""
        return {"admin-key": self._key} if self.options.restrict_admin else {}

    @property
    def log_path(self) -> Path:
        """The server's log.

        Raises:
            LauncherError: the server was not started and no path was given.
        """
        if self.options.log_path:
            return self.options.log_path
        if self._directory is None:
            msg = "the server was not started; remedy: start it, or set log_path"
            raise LauncherError(msg)
        return self._directory / "triton.log"

    def start(self) -> Self:
        """Start the server and wait until a canary inference of each model succeeds.

        Raises:
            LauncherError: it did not come up; the text has the reason and the remedy.
        """
        with self._lock:
            self._check_models()
            self._ghosts = False
            self._ports = choose_ports(self.options)
            self._directory = self._directory or Path(tempfile.mkdtemp(prefix="tcd-triton-"))
            token = f"tcd_{os.getpid()}_{secrets.token_hex(4)}"
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            offset = self.log_path.stat().st_size if self.log_path.exists() else 0
            try:
                self._process = GuardedProcess(
                    self._command(token), env=self._environment(), log=self.log_path, shm_prefix=token
                )
            except OSError as error:
                self._clean_up()
                msg = f"{self.install.binary} cannot be started: {error}; remedy: check TRITONSERVER"
                raise LauncherError(msg) from error
            try:
                self._wait(offset)
            except BaseException:
                self.stop(keep_log=True)
                raise
        return self

    def stop(self, *, keep_log: bool = False) -> None:
        """Stop the server: SIGTERM, then SIGKILL to its group; nothing of it stays. Idempotent.

        Args:
            keep_log: leave a log in the temporary directory for people to read.
        """
        with self._lock:
            if self._process is not None:
                # A model whose stub died is never done unloading, and the server would wait for it.
                grace = min(_SHORT_GRACE, self.options.stop_timeout) if self._ghosts else self.options.stop_timeout
                self._process.stop(grace=grace)
                self._process = None
            self._clean_up(keep_log=keep_log)

    def poll(self) -> int | None:
        """Exit code when the server died or was stopped, None while it runs."""
        process = self._process
        return 0 if process is None else process.poll()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the server's process is gone; whether it is."""
        process = self._process
        return True if process is None else process.exited.wait(timeout)

    def check(self) -> bool:
        """Whether canaries of the loaded models that are no steps of another loaded one are answered."""
        models = self._contracted()
        steps = {step.model for model in models for step in model.steps}
        return all(self._answers(m) for m in models if m.name not in steps)

    def heal(self) -> Healed:
        """Make it answer again: unload and load the models that do not, else restart the server.

        Raises:
            LauncherError: it does not come up any more.
        """
        with self._lock:
            if self.poll() is None and self._alive():
                broken = [m for m in self._contracted() if not m.steps and not self._answers(m, patient=True)]
                self._ghosts = self._ghosts or bool(broken)
                if broken and self._reload(broken):
                    self.reloads += 1
                    return "reloaded"
                if not broken and all(self._answers(m, patient=True) for m in self._contracted() if m.steps):
                    return "healthy"
            self.restart()
            return "restarted"

    def restart(self) -> None:
        """Stop and start again, on the same ports.

        Raises:
            LauncherError: it does not come up any more.
        """
        with self._lock:
            http, grpc, metrics = self._ports
            if self._process is not None:
                self._process.stop(grace=min(_SHORT_GRACE, self.options.stop_timeout))
                self._process = None
            wanted = self.options
            self.options = replace(wanted, http_port=http, grpc_port=grpc, metrics_port=metrics)
            try:
                self.start()
            finally:
                self.options = wanted
            self.restarts += 1

    def __enter__(self) -> Self:
        """Start it."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    async def __aenter__(self) -> Self:
        """Start it without blocking the event loop."""
        try:
            return await asyncio.shield(task := asyncio.ensure_future(asyncio.to_thread(self.start)))
        except asyncio.CancelledError:
            await asyncio.wait({task})
            await asyncio.to_thread(self.stop)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it without blocking the event loop."""
        await asyncio.to_thread(self.stop)

    def _host(self) -> str:
        host = reachable(self.options.host)
        return f"[{host}]" if ":" in host else host

    def _contracted(self) -> list[Model]:
        known = MODELS | TEXT_MODELS
        return [known[name] for name in self.options.models if name in known]

    def _check_models(self) -> None:
        for name in self.options.models:
            if not any((r / name / "config.pbtxt").is_file() for r in self.options.repositories):
                places = ", ".join(map(str, self.options.repositories))
                msg = f"model {name} is not in {places}; remedy: check the names of the models and the repositories"
                raise LauncherError(msg)

    def _command(self, token: str) -> list[str]:
        options = self.options
        http, grpc, metrics = self._ports
        threads = max(2, min(8, os.cpu_count() or 2))
        command = [
            str(self.install.binary),
            *(f"--model-repository={path}" for path in options.repositories),
            *(f"--backend-directory={path}" for path in self._backends()),
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in options.models),
            *(() if options.auto_complete else ("--disable-auto-complete-config",)),
            f"--pinned-memory-pool-byte-size={options.pinned_pool}",
            *(f"--cuda-memory-pool-byte-size={gpu}:{options.cuda_pool}" for gpu in range(self._gpus())),
            f"--backend-config=python,shm-region-prefix-name={token}",
            *(f"--{kind}-address={options.host}" for kind in ("http", "grpc", "metrics")),
            *(f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"),
            f"--http-thread-count={threads}",
            f"--log-verbose={options.verbose}",
        ]
        if options.restrict_admin:
            command += [
                f"--http-restricted-api={_RESTRICTED}:admin-key={self._key}",
                f"--grpc-restricted-protocol={_RESTRICTED}:admin-key={self._key}",
            ]
        return [*command, *options.extra_args]

    def _gpus(self) -> int:
        """GPUs that the server will see; those without a device file are not there."""
        visible = self._environment()["CUDA_VISIBLE_DEVICES"]
        here = len(list(Path("/dev").glob("nvidia[0-9]*")))
        return min(here, len([name for name in visible.split(",") if name.strip() not in {"", "-1"}]))

    def _backends(self) -> list[Path]:
        """The backend directory; none when the server knows its own."""
        if self.install.backends is not None:
            return [self.install.backends]
        if not self.install.backend_files:
            return []
        assert self._directory is not None  # noqa: S101 - start made it
        python = self._directory / "backends" / "python"
        python.mkdir(parents=True, exist_ok=True)
        for file in self.install.backend_files:
            link = python / file.name
            if not link.exists():
                link.symlink_to(file)
        return [python.parent]

    def _environment(self) -> dict[str, str]:
        # The shim's settings, its signing key among them, are not the server's business.
        env = {k: v for k, v in os.environ.items() if not k.startswith("TCD_") or k.startswith("TCD_NATIVE")}
        libraries = [str(p) for p in self.install.library_path]
        env |= _THREADS
        env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
        env["LD_LIBRARY_PATH"] = os.pathsep.join([*libraries, *filter(None, [env.get("LD_LIBRARY_PATH")])])
        env.setdefault("CUDA_VISIBLE_DEVICES", self.options.cuda_devices)
        if self.options.assets is not None:
            env["TCD_ASSETS"] = str(self.options.assets.resolve())
        if self.options.gpu_break_even:
            env["TCD_GPU_BREAK_EVEN"] = str(self.options.gpu_break_even)
        if self.options.spotlight_key is not None:
            env["TCD_SPOTLIGHT_KEY_HEX"] = self.options.spotlight_key.hex()
        return env

    def _wait(self, offset: int) -> None:
        process = self._process
        assert process is not None  # noqa: S101 - start made it
        deadline = time.monotonic() + self.options.start_timeout
        while not self._get("/v2/health/ready"):
            if process.poll() is not None:
                raise self._failure(offset, f"the server ended with code {process.poll()} while starting")
            if time.monotonic() > deadline:
                raise self._failure(offset, f"the server was not ready within {self.options.start_timeout:g} s")
            process.exited.wait(_POLL)
        try:
            for model in self._contracted():
                self._probe(model, timeout=max(_PROBE_TIMEOUT, deadline - time.monotonic()))
        except ScoringError as error:
            raise self._failure(offset, f"the server is up, but {error.detail}") from error

    def _failure(self, offset: int, what: str) -> LauncherError:
        with self.log_path.open("rb") as file:
            file.seek(offset)
            log = file.read().decode(errors="replace")
        failures = load_failures(log)
        if failures:
            what += "".join(f"; model {name}: {reason}" for name, reason in failures.items())
        else:
            errors = [line for line in log.splitlines() if line.startswith("E") or "error" in line.lower()]
            what += "; its log ends: " + " | ".join((errors or log.splitlines())[-5:])
        return LauncherError(f"{what}; remedy: see {self.log_path}")

    def _clean_up(self, *, keep_log: bool = False) -> None:
        if self._directory is None or (keep_log and self.options.log_path is None):
            return
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None

    def _request(self, method: str, path: str, *, timeout: float, body: bytes | None = None) -> int | None:
        connection = HTTPConnection(reachable(self.options.host), self._ports[0], timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=self.admin_headers)
            return connection.getresponse().status
        except (OSError, HTTPException):
            return None
        finally:
            connection.close()

    def _get(self, path: str) -> bool:
        return self._request("GET", path, timeout=_PROBE_TIMEOUT) == _OK

    def _alive(self) -> bool:
        return self._get("/v2/health/live")

    def _probe(self, model: Model, *, timeout: float) -> None:
        probe(reachable(self.options.host), self._ports[0], model, timeout=timeout)

    def _answers(self, model: Model, *, patient: bool = False) -> bool:
        try:
            self._probe(model, timeout=_PATIENT_TIMEOUT if patient else _PROBE_TIMEOUT)
        except ScoringError:
            return False
        return True

    def _reload(self, broken: list[Model]) -> bool:
        """Unload and load models, then the ensembles that use them; whether all of it answers again."""
        names = {m.name for m in broken}
        above = [m for m in self._contracted() if any(s.model in names for s in m.steps)]
        body = json.dumps({}).encode()
        for model in (*above, *broken):
            self._request("POST", f"/v2/repository/models/{model.name}/unload", timeout=30.0, body=body)
        for model in (*broken, *above):
            status = self._request("POST", f"/v2/repository/models/{model.name}/load", timeout=60.0, body=body)
            if status != _OK:
                return False
        return all(self._answers(m) for m in (*broken, *above))
