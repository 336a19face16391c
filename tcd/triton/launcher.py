"""Starts a Triton server with the ensemble, keeps it honest and stops it without a trace.

`TritonServer` is a context manager, blocking (`with`) and asynchronous (`async with`). `heal()` is what the
health monitor calls: Triton never restarts a dead stub and stays "ready" without it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal

from tcd.contract import MODELS, TEXT_MODELS, Model
from tcd.errors import LauncherError, ScoringError
from tcd.listening import in_url, reachable
from tcd.triton.install import Install, find_install
from tcd.triton.invocation import (
    backend_directories,
    check_models,
    choose_ports,
    command_line,
    count_gpus,
    environment,
)
from tcd.triton.options import DEFAULT_MODELS, DEFAULT_REPOSITORY, LaunchOptions
from tcd.triton.probe import probe
from tcd.triton.process import GuardedProcess

if TYPE_CHECKING:  # in `typing` from Python 3.11 on
    from typing_extensions import Self

__all__ = ["DEFAULT_MODELS", "DEFAULT_REPOSITORY", "Healed", "LaunchOptions", "TritonServer", "load_failures"]

_PROBE_TIMEOUT: Final = 2.0
#: Before a model is called broken: a busy server is not.
_PATIENT_TIMEOUT: Final = 5.0
_POLL: Final = 0.05
#: Time to stop for a server that does not answer: it is not asked politely for long.
_SHORT_GRACE: Final = 3.0
_FAILURE: Final = re.compile(r"failed to load '([^']+)' version \d+: (.*)")
_OK: Final = 200
#: Starts of a server that aborts while it starts.
_STARTS: Final = 3

Healed = Literal["healthy", "reloaded", "restarted"]


def load_failures(log: str) -> dict[str, str]:
    """Models that failed to load and Triton's reason, read from its log."""
    return {m[1]: m[2].strip().strip('"') for m in _FAILURE.finditer(log)}


class _Aborted(LauncherError):
    """The server called abort() while it started."""


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

        Triton gives up a model whose stub stands still for about a second while it loads, as a busy machine may make it
        do, and aborts: then it is started again, twice at most.

        Raises:
            LauncherError: it did not come up; the text has the reason and the remedy.
        """
        with self._lock:
            check_models(self.options)
            self._ghosts = False
            self._ports = choose_ports(self.options)
            for left in reversed(range(_STARTS)):
                try:
                    self._start()
                    break
                except _Aborted:
                    if not left:
                        raise
        return self

    def _start(self) -> None:
        self._directory = self._directory or Path(tempfile.mkdtemp(prefix="tcd-triton-"))
        token = f"tcd_{os.getpid()}_{secrets.token_hex(4)}"
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        offset = self.log_path.stat().st_size if self.log_path.exists() else 0
        try:
            env = environment(self.options, self.install, os.environ)
            command = self._command(self._directory, env, token)
            self._process = GuardedProcess(command, env=env, log=self.log_path, shm_prefix=token)
        except OSError as error:
            self._clean_up()
            msg = f"{self.install.binary} cannot be started: {error}; remedy: check TRITONSERVER"
            raise LauncherError(msg) from error
        try:
            self._wait(offset)
        except BaseException:
            self.stop(keep_log=True)
            raise

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
        return in_url(reachable(self.options.host))

    def _command(self, folder: Path, env: Mapping[str, str], token: str) -> list[str]:
        return command_line(
            self.options,
            self.install,
            ports=self._ports,
            backends=backend_directories(self.install, folder),
            gpus=count_gpus(env),
            key=self._key,
            token=token,
        )

    def _contracted(self) -> list[Model]:
        known = MODELS | TEXT_MODELS
        return [known[name] for name in self.options.models if name in known]

    def _wait(self, offset: int) -> None:
        process = self._process
        assert process is not None  # noqa: S101 - start made it
        deadline = time.monotonic() + self.options.start_timeout
        while not self._get("/v2/health/ready"):
            code = process.poll()
            if code is not None:
                kind = _Aborted if code == -signal.SIGABRT else LauncherError
                raise kind(self._failure(offset, f"the server ended with code {code} while starting"))
            if time.monotonic() > deadline:
                msg = f"the server was not ready within {self.options.start_timeout:g} s"
                raise LauncherError(self._failure(offset, msg))
            process.exited.wait(_POLL)
        try:
            for model in self._contracted():
                self._probe(model, timeout=max(_PROBE_TIMEOUT, deadline - time.monotonic()))
        except ScoringError as error:
            raise LauncherError(self._failure(offset, f"the server is up, but {error.detail}")) from error

    def _failure(self, offset: int, what: str) -> str:
        with self.log_path.open("rb") as file:
            file.seek(offset)
            log = file.read().decode(errors="replace")
        failures = load_failures(log)
        if failures:
            what += "".join(f"; model {name}: {reason}" for name, reason in failures.items())
        else:
            errors = [line for line in log.splitlines() if line.startswith("E") or "error" in line.lower()]
            what += "; its log ends: " + " | ".join((errors or log.splitlines())[-5:])
        return f"{what}; remedy: see {self.log_path}"

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
