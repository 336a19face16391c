"""Gets a perf_analyzer that runs here: given, on PATH, or unpacked once from a wheel into the user's cache.

The wheel tritonclient 2.50.0 is the last whose binary needs no newer glibc than 2.34. Two libraries that it
lacks lie, under hashed names, beside the Triton server's wheel.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcd.errors import LauncherError

REQUIREMENT: Final = "tritonclient==2.50.0"
_MEMBER: Final = "/data/bin/perf_analyzer"
#: What the binary links to, and the pattern of the file that provides it in nvidia_pytriton.libs.
_LIBRARIES: Final = {"libcudart.so.12": "libcudart-*.so.12*", "libb64.so.0d": "libb64-*.so.0d"}


@dataclass(frozen=True, slots=True)
class PerfAnalyzer:
    """A binary and the environment that it runs in."""

    binary: Path
    env: dict[str, str]


def cache_directory() -> Path:
    """Where the binary is kept: `$XDG_CACHE_HOME/tcd`, by default `~/.cache/tcd`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tcd" / "perf_analyzer-2.50.0"


def find(*, binary: Path | None = None, wheel: Path | None = None, cache: Path | None = None) -> PerfAnalyzer:
    """A perf_analyzer that starts.

    Args:
        binary: use this one.
        wheel: unpack this wheel instead of fetching one.
        cache: directory to unpack into, by default `cache_directory()`.

    Raises:
        LauncherError: it can neither be found nor fetched, or does not start; the text has the remedy.
    """
    on_path = shutil.which("perf_analyzer")
    if binary is None and wheel is None and on_path:
        binary = Path(on_path)
    cache = cache or cache_directory()
    if binary is None:
        binary = cache / "perf_analyzer"
        if not binary.is_file():
            _unpack(wheel or _fetch(cache), binary)
    env = dict(os.environ)
    libraries = _libraries(cache / "lib")
    env["LD_LIBRARY_PATH"] = os.pathsep.join([str(libraries), *filter(None, [env.get("LD_LIBRARY_PATH")])])
    tool = PerfAnalyzer(binary, env)
    _check(tool)
    return tool


def _fetch(cache: Path) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(  # noqa: S603 - our own arguments
        [*command, "--dest", str(cache), REQUIREMENT], capture_output=True, text=True, check=False
    )
    wheels = sorted(cache.glob("tritonclient-2.50.0-*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel for this platform"])[-1]
        msg = f"{REQUIREMENT} cannot be fetched: {reason}; remedy: give --perf-analyzer or --wheel"
        raise LauncherError(msg)
    return wheels[-1]


def _unpack(wheel: Path, binary: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [n for n in archive.namelist() if n.endswith(_MEMBER)]
            data = archive.read(members[0]) if members else b""
    except (OSError, zipfile.BadZipFile) as error:
        msg = f"{wheel} cannot be unpacked: {error}; remedy: delete it and try again"
        raise LauncherError(msg) from error
    if not data:
        msg = f"{wheel} holds no perf_analyzer; remedy: use the manylinux wheel of {REQUIREMENT}"
        raise LauncherError(msg)
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=binary.parent, delete=False) as file:
        file.write(data)
    Path(file.name).chmod(0o755)
    Path(file.name).replace(binary)


def _libraries(directory: Path) -> Path:
    """Symlinks under the names that the binary looks for; what the wheel lacks is left to the system."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        files = importlib.metadata.distribution("nvidia-pytriton").locate_file("nvidia_pytriton.libs")
    except importlib.metadata.PackageNotFoundError:
        return directory
    for name, pattern in _LIBRARIES.items():
        found = sorted(Path(str(files)).glob(pattern))
        link = directory / name
        if found and not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(found[0])
    return directory


def _check(tool: PerfAnalyzer) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - the tool itself
            [str(tool.binary), "--version"], env=tool.env, capture_output=True, text=True, timeout=30, check=False
        )
    except OSError as error:
        msg = f"{tool.binary} does not start: {error}; remedy: give another with --perf-analyzer"
        raise LauncherError(msg) from error
    if "error while loading shared libraries" in done.stderr or "GLIBC_" in done.stderr:
        reason = done.stderr.strip().splitlines()[-1]
        msg = f"{tool.binary} does not start: {reason}; remedy: pip install 'tcd[server]', or give --perf-analyzer"
        raise LauncherError(msg)
