"""The command line and the environment of a Triton server, and what it needs on the disk and the network first."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tcd.errors import LauncherError
from tcd.listening import listen
from tcd.triton.install import Install
from tcd.triton.options import LaunchOptions

#: One numpy or torch thread per stub: more is slower (8x) with several rows in a batch.
_THREADS: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
#: Interfaces behind the admin key.
_RESTRICTED: Final = "model-repository,shared-memory,trace,logging"


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
                sock = stack.enter_context(listen(options.host, port, backlog=1))
            except OSError as error:
                msg = f"port {port} ({name}) on {options.host} cannot be had: {error.strerror or error}"
                msg += f"; remedy: stop what listens there or choose another with {flag}"
                raise LauncherError(msg) from error
            ports.append(int(sock.getsockname()[1]))
    return ports[0], ports[1], ports[2]


def check_models(options: LaunchOptions) -> None:
    """Refuse models that no repository has.

    Raises:
        LauncherError: says which, and where it was looked for.
    """
    for name in options.models:
        if not any((r / name / "config.pbtxt").is_file() for r in options.repositories):
            places = ", ".join(map(str, options.repositories))
            msg = f"model {name} is not in {places}; remedy: check the names of the models and the repositories"
            raise LauncherError(msg)


def command_line(
    options: LaunchOptions,
    install: Install,
    *,
    ports: tuple[int, int, int],
    backends: Sequence[Path],
    gpus: int,
    key: str,
    token: str,
) -> list[str]:
    """The server's command line.

    Args:
        options: how to run it.
        install: which server.
        ports: HTTP, gRPC and metrics, none of them 0.
        backends: as `backend_directories` says.
        gpus: that the server will see.
        key: opens the restricted interfaces.
        token: the names of its shared memory begin with it.
    """
    http, grpc, metrics = ports
    threads = max(2, min(8, os.cpu_count() or 2))
    command = [
        str(install.binary),
        *(f"--model-repository={path}" for path in options.repositories),
        *(f"--backend-directory={path}" for path in backends),
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in options.models),
        *(() if options.auto_complete else ("--disable-auto-complete-config",)),
        f"--pinned-memory-pool-byte-size={options.pinned_pool}",
        *(f"--cuda-memory-pool-byte-size={gpu}:{options.cuda_pool}" for gpu in range(gpus)),
        f"--backend-config=python,shm-region-prefix-name={token}",
        *(f"--{kind}-address={options.host}" for kind in ("http", "grpc", "metrics")),
        *(f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"),
        f"--http-thread-count={threads}",
        f"--log-verbose={options.verbose}",
    ]
    if options.restrict_admin:
        command += [
            f"--http-restricted-api={_RESTRICTED}:admin-key={key}",
            f"--grpc-restricted-protocol={_RESTRICTED}:admin-key={key}",
        ]
    return [*command, *options.extra_args]


def environment(options: LaunchOptions, install: Install, outer: Mapping[str, str]) -> dict[str, str]:
    """The server's environment; `outer` is this process's."""
    # The shim's settings, its signing key among them, are not the server's business.
    env = {k: v for k, v in outer.items() if not k.startswith("TCD_") or k.startswith("TCD_NATIVE")}
    libraries = [str(p) for p in install.library_path]
    env |= _THREADS
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    env["LD_LIBRARY_PATH"] = os.pathsep.join([*libraries, *filter(None, [env.get("LD_LIBRARY_PATH")])])
    env.setdefault("CUDA_VISIBLE_DEVICES", options.cuda_devices)
    if options.assets is not None:
        env["TCD_ASSETS"] = str(options.assets.resolve())
    if options.gpu_break_even:
        env["TCD_GPU_BREAK_EVEN"] = str(options.gpu_break_even)
    if options.spotlight_key is not None:
        env["TCD_SPOTLIGHT_KEY_HEX"] = options.spotlight_key.hex()
    return env


def count_gpus(env: Mapping[str, str]) -> int:
    """GPUs that a server with this environment sees; those without a device file are not there."""
    here = len(list(Path("/dev").glob("nvidia[0-9]*")))
    return min(here, len([name for name in env["CUDA_VISIBLE_DEVICES"].split(",") if name.strip() not in {"", "-1"}]))


def backend_directories(install: Install, folder: Path) -> list[Path]:
    """The backend directory; none when the server knows its own.

    Args:
        install: which server.
        folder: where links to the backend's files are put when the install has only those.
    """
    if install.backends is not None:
        return [install.backends]
    if not install.backend_files:
        return []
    python = folder / "backends" / "python"
    python.mkdir(parents=True, exist_ok=True)
    for file in install.backend_files:
        link = python / file.name
        if not link.exists():
            link.symlink_to(file)
    return [python.parent]
