"""One child process in its own session that cannot outlive us and leaves nothing behind.

Its group is swept and its shared memory removed however it ends; if we are killed, the kernel kills it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Runs in the child before the program: SIGKILL it when the thread that started it ends (PR_SET_PDEATHSIG = 1).
#: A preexec_fn would do the same, but may deadlock in a program with threads.
_GUARD: Final = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or os._exit(1);os.execv(sys.argv[2],sys.argv[2:])"
)
_SHM: Final = Path("/dev/shm")  # noqa: S108 - where POSIX shared memory lives
#: Time that stubs get to notice that their server is gone.
_STUB_GRACE: Final = 3.0
#: Seconds for a group to be gone after SIGKILL.
_KILL_GRACE: Final = 5.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes have used: CPU seconds since their start, resident bytes now."""

    cpu_seconds: float
    resident_bytes: int


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()  # the name before may hold blanks


def group_members(group: int) -> list[int]:
    """Living (no zombie) processes of a process group."""
    members = []
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields and int(fields[2]) == group and fields[0] not in {"Z", "X"}:
            members.append(int(entry.name))
    return sorted(members)


def tree(pid: int) -> set[int]:
    """A process and all its descendants, also those that began a session of their own."""
    stats = {int(e.name): _stat(int(e.name)) for e in Path("/proc").iterdir() if e.name.isdigit()}
    parents = {child: int(fields[1]) for child, fields in stats.items() if fields}
    found: set[int] = set()
    more = {pid}
    while more:
        found |= more
        more = {child for child, parent in parents.items() if parent in found} - found
    return found


def usage(pids: Iterable[int]) -> Usage:
    """Sum over processes; those that are gone count as nothing."""
    ticks = os.sysconf("SC_CLK_TCK")
    page = os.sysconf("SC_PAGE_SIZE")
    cpu, resident = 0.0, 0
    for pid in pids:
        fields = _stat(pid)
        if fields:
            cpu += (int(fields[11]) + int(fields[12])) / ticks
            resident += int(fields[21]) * page
    return Usage(cpu, resident)


class GuardedProcess:
    """A started program; `exited` is set when it, and every process of its group, is gone."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], log: Path, shm_prefix: str | None = None
    ) -> None:
        """Start it.

        Args:
            command: program (absolute path) and arguments.
            env: its environment.
            log: file that its output is appended to.
            shm_prefix: start of the names of its shared memory, removed at the end.

        Raises:
            OSError: it cannot be started.
        """
        self.exited = threading.Event()
        self._shm_prefix = shm_prefix
        self._code: int | None = None
        self._error: OSError | None = None
        self._pid = 0
        started = threading.Event()
        # The kernel's guard watches the starting thread, so that thread stays until the child is gone.
        self._thread = threading.Thread(
            target=self._watch, args=(list(command), dict(env), log, started), name="tcd-triton", daemon=True
        )
        self._thread.start()
        started.wait()
        if self._error is not None:
            raise self._error

    @property
    def pid(self) -> int:
        """The process, which is also the leader of its group."""
        return self._pid

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        return self._code if self.exited.is_set() else None

    def signal(self, number: int) -> None:
        """Signal the process itself, if it still runs."""
        if not self.exited.is_set():
            _quietly(os.kill, self._pid, number)

    def stop(self, *, grace: float) -> int:
        """SIGTERM, then after `grace` seconds SIGKILL to the whole group.

        Returns:
            The exit code, negative for a signal.
        """
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a stopped process would not see it
        if not self.exited.wait(grace):
            self.kill()
        self.exited.wait()
        return self._code if self._code is not None else 0

    def kill(self) -> None:
        """SIGKILL to the whole group at once."""
        if not self.exited.is_set():
            _quietly(os.killpg, self._pid, signal.SIGKILL)

    def _watch(self, command: list[str], env: dict[str, str], log: Path, started: threading.Event) -> None:
        guarded = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *command]
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(  # noqa: S603 - the launcher's own command
                    guarded,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=env,
                    start_new_session=True,
                )
        except OSError as error:
            self._error = error
            self.exited.set()
            return
        finally:
            self._pid = 0 if self._error else process.pid
            started.set()
        # Not reaped yet, the pid and so the group's number cannot be given to anyone else.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        self._sweep(process.pid)
        self._code = process.wait()
        self.exited.set()

    def _sweep(self, group: int) -> None:
        _until_empty(group, _STUB_GRACE)
        _quietly(os.killpg, group, signal.SIGKILL)
        # a killed process lives on until the kernel gets to it
        _until_empty(group, _KILL_GRACE)
        if self._shm_prefix:
            for region in _SHM.glob(f"{self._shm_prefix}*"):
                region.unlink(missing_ok=True)


def _until_empty(group: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while group_members(group) and time.monotonic() < deadline:
        time.sleep(0.02)


def _quietly(send: object, pid: int, number: int) -> None:
    assert callable(send)  # noqa: S101 - os.kill or os.killpg
    try:
        send(pid, number)
    except ProcessLookupError:
        return
