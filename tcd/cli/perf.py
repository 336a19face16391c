"""`tcd perf`: perf_analyzer on the ensemble, beside a no-op ensemble of the same shape."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tcd.triton.perf import Report

_Batches = Annotated[list[int] | None, typer.Option("--batch", "-b", help="Client batch (repeat); default 1, 32, 128.")]


def command(
    url: Annotated[str | None, typer.Option(help="host:port of a running server's HTTP; default: start one.")] = None,
    grpc_url: Annotated[str | None, typer.Option(help="host:port of its gRPC; default: the HTTP port plus 1.")] = None,
    pid: Annotated[int | None, typer.Option(help="Its process id, for CPU per row.")] = None,
    batch: _Batches = None,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", min=1, help="Requests under way.")] = 4,
    window: Annotated[int, typer.Option(min=1, max=4096, help="Tokens in each row's window.")] = 64,
    protocol: Annotated[str, typer.Option("--protocol", "-i", help="grpc or http.")] = "grpc",
    interval: Annotated[int, typer.Option(help="Milliseconds of one measurement.")] = 1500,
    trials: Annotated[int, typer.Option(min=3, help="Measurements per point.")] = 3,
    perf_analyzer: Annotated[Path | None, typer.Option(help="Use this binary.")] = None,
    wheel: Annotated[Path | None, typer.Option(help="Unpack this tritonclient wheel instead of fetching it.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure tcd_diagnose and a no-op ensemble of its shape: throughput, latency, server CPU, and the ratios."""
    from contextlib import nullcontext

    from tcd.errors import LauncherError
    from tcd.triton.perf import PerfOptions, Target, measure, own_server
    from tcd.triton.perf_tool import find

    if protocol not in {"grpc", "http"}:
        msg = "grpc or http"
        raise typer.BadParameter(msg, param_hint="--protocol")
    options = PerfOptions(
        batches=tuple(batch or (1, 32, 128)),
        concurrency=concurrency,
        window=window,
        protocol=protocol,
        interval_ms=interval,
        trials=trials,
    )
    try:
        tool = find(binary=perf_analyzer, wheel=wheel)
        running = nullcontext(Target(url, grpc_url or _next_port(url), pid)) if url else own_server()
        with running as target:
            report = measure(tool, target, options)
    except LauncherError as error:
        print(error.detail, file=sys.stderr)
        raise typer.Exit(1) from error
    if json_output:
        print(report.to_json())
    else:
        _show(report)


def _next_port(url: str) -> str:
    host, _, port = url.rpartition(":")
    if not port.isdigit():
        msg = "host:port"
        raise typer.BadParameter(msg, param_hint="--url")
    return f"{host}:{int(port) + 1}"


def _show(report: Report) -> None:
    from tcd.triton.perf import FLOORS, as_table

    table = as_table(report)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for row in table:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print()
    for batch, values in report.ratios.items():
        text = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
        floor = f" (promised: cpu at most {FLOORS[batch]})" if batch in FLOORS else ""
        print(f"tcd / no-op at batch {batch}: {text}{floor}")
