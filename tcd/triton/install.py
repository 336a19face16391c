"""Finds a Triton server and what its Python backend needs on this machine, or says what is missing.

The wheel nvidia-pytriton is only a container of the binary here: it is found, never imported.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tcd.errors import LauncherError

DEFAULT_PREFIX: Final = Path("/opt/tritonserver")
#: What the wheel's binary was linked against.
WHEEL_GLIBC: Final = (2, 35)
_BACKEND_FILES: Final = ("libtriton_python.so", "triton_python_backend_utils.py")


@dataclass(frozen=True, slots=True)
class Install:
    """A server that can be started.

    Attributes:
        binary: the `tritonserver` executable.
        backends: its backend directory; None when one has to be made from `backend_files`.
        backend_files: files of the Python backend to gather in a directory (servers from the wheel).
        library_path: directories for LD_LIBRARY_PATH.
        origin: how it was found, for people.
    """

    binary: Path
    backends: Path | None
    backend_files: tuple[Path, ...]
    library_path: tuple[Path, ...]
    origin: str


def find_install(environ: Mapping[str, str] | None = None, *, prefix: Path = DEFAULT_PREFIX) -> Install:
    """Look for a server: TRITONSERVER, /opt/tritonserver, PATH, the wheel nvidia-pytriton.

    Args:
        environ: the environment to look in, by default the process's.
        prefix: where NVIDIA's containers keep theirs.

    Raises:
        LauncherError: there is none, or it cannot run here; the text says what to do.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("TRITONSERVER")
    if named:
        path = Path(named)
        binary = path / "bin" / "tritonserver" if path.is_dir() else path
        if not os.access(binary, os.X_OK):
            msg = f"TRITONSERVER={named} is no executable server; set it to the tritonserver binary or unset it"
            raise LauncherError(msg)
        return _system(binary, "TRITONSERVER")
    if os.access(prefix / "bin" / "tritonserver", os.X_OK):
        return _system(prefix / "bin" / "tritonserver", str(prefix))
    on_path = shutil.which("tritonserver", path=environ.get("PATH", ""))
    if on_path:
        return _system(Path(on_path), "PATH")
    root = _wheel_root()
    if root is None:
        msg = (
            "no Triton server found (looked at TRITONSERVER, /opt/tritonserver, PATH and the wheel nvidia-pytriton); "
            "remedy: pip install 'tcd[server]', or run inside nvcr.io/nvidia/tritonserver"
        )
        raise LauncherError(msg)
    return from_wheel(root)


def _system(binary: Path, origin: str) -> Install:
    backends = binary.resolve().parent.parent / "backends"
    return Install(binary, backends if backends.is_dir() else None, (), _libdirs(), origin)


def _wheel_root() -> Path | None:
    spec = importlib.util.find_spec("pytriton")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        root = Path(place) / "tritonserver"
        if (root / "bin" / "tritonserver").is_file():
            return root
    return None


def from_wheel(
    root: Path,
    *,
    python: tuple[int, int] = sys.version_info[:2],
    glibc: tuple[int, int] | None = None,
    libpython: Path | None = None,
) -> Install:
    """The server unpacked from the wheel nvidia-pytriton.

    Args:
        root: the wheel's `pytriton/tritonserver`.
        python: version whose stub is wanted.
        glibc: version of the C library, by default this machine's.
        libpython: directory of the shared libpython, by default looked for.

    Raises:
        LauncherError: the machine cannot run it.
    """
    version = f"{python[0]}.{python[1]}"
    stub = root / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        have = sorted(p.name for p in (root / "python_backend_stubs").glob("3.*"))
        msg = f"the server of nvidia-pytriton has no stub for Python {version} (it has {', '.join(have) or 'none'})"
        msg += "; remedy: make the environment with Python 3.10, 3.11 or 3.12"
        raise LauncherError(msg)
    glibc = glibc or glibc_version()
    if glibc is None or glibc < WHEEL_GLIBC:
        found = "no glibc" if glibc is None else f"glibc {glibc[0]}.{glibc[1]}"
        msg = f"the server of nvidia-pytriton needs glibc 2.35, this machine has {found}"
        msg += "; remedy: Debian 12, Ubuntu 22.04 or newer, or nvcr.io/nvidia/tritonserver"
        raise LauncherError(msg)
    libdir = libpython or find_libpython(version)
    if libdir is None:
        msg = f"the server's Python stub needs libpython{version}.so.1.0, which is not on this machine"
        msg += (
            f"; remedy: apt-get install libpython{version}, or with pyenv: "
            f"PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force {version}"
        )
        raise LauncherError(msg)
    files = (*(root / "backends" / "python" / name for name in _BACKEND_FILES), stub)
    missing = [str(f) for f in files if not f.is_file()]
    if missing:
        msg = f"the wheel nvidia-pytriton lacks {missing}; remedy: pip install --force-reinstall nvidia-pytriton==0.7.0"
        raise LauncherError(msg)
    return Install(root / "bin" / "tritonserver", None, files, (libdir,), "nvidia-pytriton")


def glibc_version() -> tuple[int, int] | None:
    """Version of the C library, None when it is another than glibc."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return None
    match = re.fullmatch(r"glibc (\d+)\.(\d+).*", text)
    return (int(match[1]), int(match[2])) if match else None


def _libdirs() -> tuple[Path, ...]:
    libdir = find_libpython(f"{sys.version_info[0]}.{sys.version_info[1]}")
    return (libdir,) if libdir else ()


def find_libpython(version: str) -> Path | None:
    """Directory of `libpythonX.Y.so.1.0`: this interpreter's own before the system's, so that both match."""
    name = f"libpython{version}.so.1.0"
    own = [sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix) / "lib")]
    for place in own:
        if place and (Path(place) / name).is_file():
            return Path(place)
    ldconfig = shutil.which("ldconfig") or "/sbin/ldconfig"
    if not Path(ldconfig).is_file():
        return None
    listing = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=False).stdout  # noqa: S603 - no input
    match = re.search(rf"^\s*{re.escape(name)} .*=> (\S+)$", listing, re.MULTILINE)
    return Path(match[1]).parent if match else None
