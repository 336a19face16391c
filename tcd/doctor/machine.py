"""The machine: processor, C library, libpython, shared memory, limits."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcd.doctor.finding import Finding
from tcd.triton.install import WHEEL_GLIBC, find_libpython, glibc_version

_MIB: Final = 1 << 20
#: Each Python stub takes a region of its own in /dev/shm; the ensemble has seven.
SHM_LEAST: Final = 32 * _MIB
SHM_GOOD: Final = 64 * _MIB
#: Descriptors beside those of requests: the store, the log, connections to Triton.
_OTHER_FILES: Final = 256
_STUBS: Final = ((3, 10), (3, 12))


@dataclass(frozen=True, slots=True)
class Machine:
    """What is known of this machine.

    Attributes:
        processor: `x86_64` and the like; `flags` its instruction sets.
        cores: that this process may use.
        python: version.
        glibc: version, None = another C library.
        libpython: directory of the shared libpython, None = there is none.
        shm_free: bytes in /dev/shm, None = there is none.
        files: descriptors that a process may have.
        memory: bytes that are available, None = unknown.
    """

    processor: str
    flags: frozenset[str]
    cores: int
    python: tuple[int, int]
    glibc: tuple[int, int] | None
    libpython: Path | None
    shm_free: int | None
    files: int
    memory: int | None


def _field(path: Path, name: str) -> str:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def this_machine() -> Machine:
    """What this one is."""
    try:
        shm = os.statvfs("/dev/shm")  # noqa: S108 - it is only measured
        free = shm.f_bavail * shm.f_frsize
    except OSError:
        free = None
    python = sys.version_info[:2]
    kibibytes = _field(Path("/proc/meminfo"), "MemAvailable").partition(" ")[0]
    return Machine(
        processor=platform.machine(),
        flags=frozenset(_field(Path("/proc/cpuinfo"), "flags").split()),
        cores=len(os.sched_getaffinity(0)),
        python=python,
        glibc=glibc_version(),
        libpython=find_libpython(f"{python[0]}.{python[1]}"),
        shm_free=free,
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        memory=int(kibibytes) * 1024 if kibibytes.isdigit() else None,
    )


def check_machine(found: Machine, *, serves: bool, max_inflight: int, window_bytes: int) -> Iterator[Finding]:
    """Findings on a machine.

    Args:
        found: the machine.
        serves: whether Triton is started here, and not used from elsewhere.
        max_inflight: requests that the shim takes at once.
        window_bytes: that the windows of all sessions may take.
    """
    if serves:
        yield from _server_needs(found)
    if found.cores < 2:  # noqa: PLR2004 - the shim and Triton
        yield Finding("cores", "warn", f"{found.cores} core", "give it two: one for the shim, one for Triton")
    else:
        yield Finding("cores", "ok", f"{found.cores}")
    wanted = max_inflight + _OTHER_FILES
    if found.files < wanted:
        detail = f"{found.files} open files allowed, {wanted} wanted for {max_inflight} requests at once"
        yield Finding("open files", "warn", detail, f"ulimit -n {wanted}, LimitNOFILE= in systemd, or a lower limit")
    else:
        yield Finding("open files", "ok", f"{found.files}")
    if found.memory is not None and found.memory < window_bytes:
        detail = f"{found.memory // _MIB} MiB available, session windows may take {window_bytes // _MIB} MiB"
        yield Finding("memory", "warn", detail, "lower TCD_SESSIONS_MAX_BYTES, or give it more memory")
    elif found.memory is not None:
        yield Finding("memory", "ok", f"{found.memory // _MIB} MiB available")


def _server_needs(found: Machine) -> Iterator[Finding]:
    if found.processor == "x86_64":
        wide = "avx2" if "avx2" in found.flags else "without AVX2: scoring is slower, its bits are the same"
        yield Finding("cpu", "ok", f"x86_64, {wide}")
    else:
        remedy = "use an image of nvcr.io/nvidia/tritonserver for it, or --triton-url"
        yield Finding("cpu", "warn", f"{found.processor}: the wheel's server is for x86_64", remedy)
    version = ".".join(map(str, found.python))
    if _STUBS[0] <= found.python <= _STUBS[1]:
        yield Finding("python", "ok", version)
    else:
        yield Finding("python", "warn", f"{version}: the wheel's stubs are for 3.10 to 3.12", "use one of these")
    if found.glibc is not None and found.glibc >= WHEEL_GLIBC:
        yield Finding("glibc", "ok", ".".join(map(str, found.glibc)))
    else:
        seen = "another C library" if found.glibc is None else ".".join(map(str, found.glibc))
        remedy = "Debian 12, Ubuntu 22.04 or newer, a container of Triton, or --triton-url"
        yield Finding("glibc", "fail", f"{seen}; the wheel's server needs 2.35", remedy)
    if found.libpython is not None:
        yield Finding("libpython", "ok", str(found.libpython))
    else:
        remedy = f"apt-get install libpython{version}, or pyenv with PYTHON_CONFIGURE_OPTS=--enable-shared"
        yield Finding("libpython", "fail", f"no shared libpython{version}: Triton's stub cannot start", remedy)
    yield _shared_memory(found.shm_free)


def _shared_memory(free: int | None) -> Finding:
    if free is None:
        return Finding("shared memory", "fail", "there is no /dev/shm", "mount a tmpfs there")
    detail, remedy = f"{free // _MIB} MiB free in /dev/shm", "docker run --shm-size=256m, or mount a larger tmpfs"
    if free < SHM_LEAST:
        return Finding("shared memory", "fail", detail, remedy)
    return (
        Finding("shared memory", "warn", detail, remedy) if free < SHM_GOOD else Finding("shared memory", "ok", detail)
    )
