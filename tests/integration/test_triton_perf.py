"""`tcd perf` and `tcd triton` against a real server; the load generator is a stand-in that sends nothing."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tcd.contract import DIAGNOSE
from tcd.errors import LauncherError
from tcd.triton.launcher import TritonServer
from tcd.triton.noop import NOOP_DIAGNOSE
from tcd.triton.perf import PerfOptions, Target, measure, own_server
from tcd.triton.perf_tool import PerfAnalyzer
from tcd.triton.process import group_members

pytestmark = pytest.mark.triton
_CSV = "Concurrency,Inferences/Second,p50 latency,p99 latency\\n4,1000,200,900\\n"


def tool(tmp_path: Path, text: str) -> PerfAnalyzer:
    binary = tmp_path / "perf_analyzer"
    binary.write_text(f"#!/bin/sh\n{text}\n")
    binary.chmod(0o755)
    return PerfAnalyzer(binary, {"PATH": "/usr/bin:/bin"})


def writes_results(tmp_path: Path) -> PerfAnalyzer:
    take = 'while [ $# -gt 1 ]; do [ "$1" = -f ] && out=$2; shift; done'
    return tool(tmp_path, f'{take}; printf "{_CSV}" > "$out"')


def test_a_running_server_without_the_no_op_is_measured_alone(triton_server: TritonServer, tmp_path: Path) -> None:
    target = Target(triton_server.http_url.removeprefix("http://"), triton_server.grpc_url, triton_server.pid)
    report = measure(writes_results(tmp_path), target, PerfOptions(batches=(1, 32)))
    assert [(p.model, p.batch) for p in report.points] == [(DIAGNOSE.name, 1), (DIAGNOSE.name, 32)]
    assert report.points[0].rows_per_second == 1000
    assert report.points[0].cpu_us_per_row is not None
    assert report.ratios == {}


def test_an_own_server_has_both_ensembles(tmp_path: Path) -> None:
    with own_server() as target:
        report = measure(writes_results(tmp_path), target, PerfOptions(batches=(32,)))
    assert [p.model for p in report.points] == [NOOP_DIAGNOSE.name, DIAGNOSE.name]
    assert report.ratios[32]["throughput"] == 1.0


def test_a_tool_that_fails_is_quoted(triton_server: TritonServer, tmp_path: Path) -> None:
    target = Target(triton_server.http_url.removeprefix("http://"), triton_server.grpc_url)
    with pytest.raises(LauncherError, match="perf_analyzer failed on tcd_diagnose: stable"):
        measure(tool(tmp_path, "echo stable >&2; exit 2"), target, PerfOptions())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_tcd_triton_prints_its_urls_and_stops_cleanly(number: signal.Signals) -> None:
    code = "import typer; from tcd.cli.triton import command; typer.run(command)"
    ports = [a for p in ("http", "grpc", "metrics") for a in (f"--{p}-port", "0")]
    with subprocess.Popen(
        [sys.executable, "-c", code, *ports, "--model", "tcd_multivariate"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(5)]
        pid = int(re.findall(r"pid (\d+)", lines[0])[0])
        assert re.match(r"http     http://127\.0\.0\.1:\d+", lines[1])
        assert len(group_members(pid)) >= 2
        process.send_signal(number)
        assert process.wait(180) == 0
        assert process.stdout.read() == "stopped\n"
    assert group_members(pid) == []


def test_tcd_triton_says_what_is_wrong(triton_server: TritonServer) -> None:
    code = "import typer; from tcd.cli.triton import command; typer.run(command)"
    taken = triton_server.http_url.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-c", code, "--http-port", taken], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 1
    assert f"port {taken}" in done.stderr
    assert "Traceback" not in done.stderr
