"""`tcd triton`: the Triton server with the ensemble, in the foreground."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tcd.triton.launcher import TritonServer

#: Canaries in a row that must be lost before anything is done: a busy server is not a broken one.
_PATIENCE = 3


def command(
    host: Annotated[str, typer.Option(help="Address of all three ports.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="KServe over HTTP; 0 picks a free port.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="KServe over gRPC; 0 picks a free port.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Prometheus metrics; 0 picks a free port.")] = 8002,
    model: Annotated[
        list[str] | None, typer.Option(help="Load only these models (repeat); default: both ensembles.")
    ] = None,
    repository: Annotated[list[Path] | None, typer.Option(help="More model repositories (repeat).")] = None,
    assets: Annotated[
        Path | None, typer.Option(help="Directory of calibration assets; default: the packaged ones.")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Triton's log file; default: a temporary one.")] = None,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, max=3, help="Triton's verbosity (repeat).")
    ] = 0,
    open_admin: Annotated[
        bool, typer.Option(help="Leave model loading, shared memory, tracing and logging open.")
    ] = False,
) -> None:
    """Run the Triton server with the ensemble until interrupted; a server that stops answering is healed."""
    from tcd.errors import LauncherError
    from tcd.triton.launcher import DEFAULT_MODELS, DEFAULT_REPOSITORY, LaunchOptions, TritonServer

    options = LaunchOptions(
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        models=tuple(model or DEFAULT_MODELS),
        repositories=(DEFAULT_REPOSITORY, *(repository or ())),
        assets=assets,
        log_path=log,
        verbose=verbose,
        restrict_admin=not open_admin,
    )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with TritonServer(options) as server:
            print(f"triton   {server.install.binary} ({server.install.origin}), pid {server.pid}")
            print(f"http     {server.http_url}")
            print(f"grpc     {server.grpc_url}")
            print(f"metrics  {server.metrics_url}")
            print(f"log      {server.log_path}", flush=True)
            _watch(server)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    except LauncherError as error:
        print(error.detail, file=sys.stderr)
        raise typer.Exit(1) from error


def _watch(server: TritonServer) -> None:
    """Heal the server when it died or lost its canaries; ends by an exception only."""
    lost = 0
    while True:
        died = server.wait(1.0)
        lost = 0 if not died and server.check() else lost + 1
        if died or lost >= _PATIENCE:
            print(f"healed   {server.heal()}", file=sys.stderr, flush=True)
            lost = 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
