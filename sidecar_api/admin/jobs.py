"""Jobs: what takes longer than a request (audits, replays, calibrations), each in a process of its own.

A job is a function in a module, run by `job_process` with low priority: the event loop and the dataplane do not wait
for it. One of a kind runs at a time, few at once, and the newest finished ones are kept, with their files, as folders
in `DATA_DIR/admin/jobs`. A restart finds a job that was running as `interrupted`; its process ends with the shim.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from sidecar_api.admin.principals import EVERY_TENANT, AdminScope
from sidecar_api.admin.tokens import Caller
from tcd.errors import Conflict, NotFound, QuotaExceeded
from tcd.files import write_whole

State = Literal["running", "done", "failed", "cancelled", "interrupted"]
#: At most so many run at once, of different kinds.
RUNNING: Final = 2
#: Finished jobs that are kept, and the bytes of all of them; the oldest go first.
KEPT: Final = 50
KEPT_BYTES: Final = 2 << 30
#: Private memory of one job in bytes.
MEMORY: Final = 4096 << 20
#: A line of a job's process at most: its progress or its result.
LINE: Final = 1 << 20
_RECORD: Final = "job.json"
#: What a job's process writes to its standard error: for whoever has the machine, never shown.
_LOG: Final = "process.log"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
#: What a process says of its job.
_SAID: Final = frozenset({"done", "total", "note", "result", "error"})
#: The cores are the dataplane's; each thread of BLAS also takes tens of MiB. The environment may say otherwise.
_ONE_THREAD: Final = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_TICK: Final = 1.0
_GRACE: Final = 5.0
_NONE: Final = "no such job"
_INTERRUPTED: Final = "the shim ended while it ran"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a job does.

    Attributes:
        name: of the kind, in paths and records.
        entry: `module:function`; called as `function(run, arguments)` with a `job_process.Run` and the arguments,
            private ones included. It returns the result, a small mapping that JSON can hold; what it writes into
            `run.folder` are the job's files.
        scope: whoever has it may see and cancel such jobs.
        most_bytes: of files that one job may write.
        most_seconds: that it may take.
    """

    name: str
    entry: str
    scope: AdminScope
    most_bytes: int = 512 << 20
    most_seconds: float = 24 * 3600.0


@dataclass(slots=True)
class Job:
    """One job.

    Attributes:
        id: 32 hex digits.
        kind, scope: of its kind.
        tenant: whose it is; `*` = nobody's in particular.
        by: names of the principals that started it.
        arguments: as they were given, without the private ones.
        state: see `State`.
        created_us, ended_us: microseconds since 1970; 0 = not yet.
        done, total: progress in units of the kind; total 0 = not known.
        note: what it does now.
        result: what the function returned.
        error: why it failed, for people.
        files: name to bytes.
    """

    id: str
    kind: str
    scope: str
    tenant: str
    by: str
    arguments: dict[str, Any]
    created_us: int
    state: State = "running"
    ended_us: int = 0
    done: int = 0
    total: int = 0
    note: str = ""
    result: dict[str, Any] | None = None
    error: str = ""
    files: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Job:
        """Read what `to_json` wrote.

        Raises:
            ValueError, TypeError: it is no such thing.
        """
        made = cls(**value)
        if made.state not in get_args(State) or _NAME.fullmatch(made.id) is None or not isinstance(made.files, dict):
            msg = "not a job"
            raise ValueError(msg)
        return made


@dataclass(slots=True)
class _Process:
    """A running job's process."""

    process: asyncio.subprocess.Process
    cancelled: bool = False
    stopped: str = ""


class Jobs:
    """The jobs of one admin plane."""

    def __init__(
        self,
        folder: Path,
        *,
        random: Callable[[int], bytes],
        now: Callable[[], float] = time.time,
        kept: int = KEPT,
        memory: int = MEMORY,
    ) -> None:
        """Keep jobs in `folder`, which is made when it is needed; those of an earlier process are there again.

        Each may have `memory` bytes of its own.
        """
        self._memory = memory
        self._folder = folder
        self._random = random
        self._now = now
        self._kept = kept
        self._jobs: dict[str, Job] = {}
        self._processes: dict[str, _Process] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closing = False
        self._load()

    def _load(self) -> None:
        found = []
        for path in self._folder.glob(f"*/{_RECORD}"):
            with contextlib.suppress(OSError, ValueError, TypeError):
                job = Job.from_json(json.loads(path.read_bytes()))
                if job.id != path.parent.name:
                    continue
                if job.state == "running":
                    job.state, job.error = "interrupted", _INTERRUPTED
                    job.ended_us = int(self._now() * 1e6)
                    job.files = _files(path.parent)
                    self._write(job)
                found.append(job)
        for job in sorted(found, key=lambda job: (job.created_us, job.id)):
            self._jobs[job.id] = job

    async def start(
        self,
        kind: Kind,
        arguments: Mapping[str, Any],
        *,
        tenant: str,
        by: str,
        private: Mapping[str, Any] | None = None,
    ) -> Job:
        """Start a job.

        Args:
            kind: what it does.
            arguments: kept with the job and shown.
            tenant: whose it is: of the principal who starts it.
            by: names of the principals.
            private: more arguments for the process, which are neither kept nor shown (the ledger's URL, say).

        Raises:
            Conflict: one of this kind is running, or the shim ends.
            QuotaExceeded: as many as may run are running.
        """
        if self._closing:
            msg = "the shim ends"
            raise Conflict(msg)
        if any(job.kind == kind.name for job in self._jobs.values() if job.state == "running"):
            msg = f"another {kind.name} job is running"
            raise Conflict(msg)
        if len(self._tasks) >= RUNNING:
            msg = f"{RUNNING} jobs are running"
            raise QuotaExceeded(msg, retry_after=10.0)
        job = Job(
            self._random(16).hex(), kind.name, kind.scope, tenant, by, dict(arguments), int(self._now() * 1e6)
        )  # fmt: skip
        self._jobs[job.id] = job
        started = asyncio.get_running_loop().create_future()
        self._tasks[job.id] = asyncio.create_task(self._run(job, kind, {**arguments, **(private or {})}, started))
        await started
        return job

    def list(self, caller: Caller, *, kind: str | None = None) -> list[Job]:
        """Jobs that a principal may see, newest first."""
        return [job for job in reversed(self._jobs.values()) if _sees(caller, job) and kind in {None, job.kind}]

    def get(self, identifier: str, caller: Caller) -> Job:
        """One job.

        Raises:
            NotFound: there is none, or it is not for this principal.
        """
        job = self._jobs.get(identifier)
        if job is None or not _sees(caller, job):
            raise NotFound(_NONE)
        return job

    def remembered(self, kind: str, member: str) -> Any:
        """That member of the result of the newest job of a kind that has it, for whoever starts the next one."""
        results = (job.result for job in reversed(self._jobs.values()) if job.kind == kind and job.result)
        return next((result[member] for result in results if result.get(member)), None)

    def file(self, identifier: str, name: str, caller: Caller) -> Path:
        """A file that a job wrote.

        Raises:
            NotFound: there is none.
        """
        known = name in self.get(identifier, caller).files
        path = self._folder / identifier / name
        if not known or not path.is_file():
            msg = "the job has no such file"
            raise NotFound(msg)
        return path

    async def cancel(self, identifier: str, caller: Caller) -> Job:
        """End a running job and wait until it has; nothing happens to one that has ended.

        Raises:
            NotFound: there is none, or it is not for this principal.
        """
        job = self.get(identifier, caller)
        task = self._tasks.get(job.id)
        if task is not None:
            running = self._processes.get(job.id)
            if running is not None:
                running.cancelled = True
                await _end(running.process)
            await asyncio.shield(task)
        return job

    async def close(self) -> None:
        """End what is running; a later start finds it as interrupted."""
        self._closing = True
        for running in list(self._processes.values()):
            await self._interrupt(running)
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    @staticmethod
    async def _interrupt(running: _Process) -> None:
        running.stopped = _INTERRUPTED
        await _end(running.process)

    async def _run(self, job: Job, kind: Kind, arguments: Mapping[str, Any], started: asyncio.Future[None]) -> None:
        try:
            await asyncio.to_thread(self._make, job)
            process = await self._spawn(job, kind, arguments)
        except BaseException as error:  # noqa: BLE001 - whoever starts the job gets it
            del self._jobs[job.id], self._tasks[job.id]
            started.set_exception(error)
            return
        running = self._processes[job.id] = _Process(process)
        started.set_result(None)
        guard = asyncio.create_task(self._guard(job, kind, running))
        try:
            if self._closing:
                await self._interrupt(running)
            await self._follow(job, process)
            code = await process.wait()
            job.files = await asyncio.to_thread(_files, self._folder / job.id)
            self._settle(job, running, code)
            await asyncio.to_thread(self._finish, job)
        finally:
            guard.cancel()
            del self._processes[job.id], self._tasks[job.id]

    def _make(self, job: Job) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / job.id).mkdir(mode=0o700)
        self._write(job)

    async def _spawn(self, job: Job, kind: Kind, arguments: Mapping[str, Any]) -> asyncio.subprocess.Process:
        folder = self._folder / job.id
        with (folder / _LOG).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "sidecar_api.admin.job_process",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE,
                env={**_ONE_THREAD, **os.environ},
            )
        assert process.stdin is not None  # noqa: S101 - for the type checker
        limits = {"most_bytes": kind.most_bytes, "memory": self._memory}
        order = {"entry": kind.entry, "folder": str(folder), "arguments": arguments, "parent": os.getpid(), **limits}
        # it stays open: the process ends when it closes, so that it does not outlive the shim
        process.stdin.write(json.dumps(order).encode() + b"\n")
        return process

    @staticmethod
    async def _follow(job: Job, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - for the type checker
        with contextlib.suppress(ValueError):
            while line := await process.stdout.readline():
                said = json.loads(line)
                for name in _SAID & said.keys():
                    setattr(job, name, said[name])
            return
        # a line that is too long, or none of ours
        process.kill()

    async def _guard(self, job: Job, kind: Kind, running: _Process) -> None:
        until = time.monotonic() + kind.most_seconds
        while True:
            await asyncio.sleep(_TICK)
            used = sum((await asyncio.to_thread(_files, self._folder / job.id)).values())
            if used > kind.most_bytes:
                running.stopped = f"its files exceed {kind.most_bytes} bytes"
            elif time.monotonic() > until:
                running.stopped = f"it took longer than {kind.most_seconds:g} s"
            if running.stopped:
                await _end(running.process)
                return

    def _settle(self, job: Job, running: _Process, code: int) -> None:
        if running.cancelled:
            job.state, job.result, job.error = "cancelled", None, ""
        elif running.stopped:
            job.state, job.result, job.error = "failed", None, running.stopped
            if running.stopped is _INTERRUPTED:
                job.state = "interrupted"
        elif job.result is not None and code == 0:
            job.state = "done"
        else:
            job.state, job.result = "failed", None
            job.error = job.error or f"its process ended with {code}"
        job.ended_us = int(self._now() * 1e6)

    def _finish(self, job: Job) -> None:
        with contextlib.suppress(OSError):
            self._write(job)
        ended = [job for job in self._jobs.values() if job.state != "running"]
        used = sum(sum(job.files.values()) for job in ended)
        while len(ended) > 1 and (len(ended) > self._kept or used > KEPT_BYTES):
            oldest = ended.pop(0)
            used -= sum(oldest.files.values())
            del self._jobs[oldest.id]
            shutil.rmtree(self._folder / oldest.id, ignore_errors=True)

    def _write(self, job: Job) -> None:
        write_whole(self._folder / job.id / _RECORD, json.dumps(job.to_json()).encode(), mode=0o600)


def object_of(*parts: Any) -> str:
    """The digest that an act on a job has in the log: of the job's kind and arguments, or of its id."""
    return "sha256:" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _sees(caller: Caller, job: Job) -> bool:
    return job.scope in caller.scopes and caller.tenant in {EVERY_TENANT, job.tenant}


def _files(folder: Path) -> dict[str, int]:
    """Names and bytes of what a job wrote."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name not in {_RECORD, _LOG} and _NAME.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            found[path.name] = path.stat().st_size
    return found


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask it to end, then make it."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _GRACE)
        except asyncio.TimeoutError:
            process.kill()
