"""`tcd serve` as a process: it starts Triton, prints its URLs, drains on SIGTERM, and names the remedy."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.e2e.stack import PATIENT

pytestmark = pytest.mark.triton
RUN = """
import typer
from tcd.cli.serve import command

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(command)
app()
"""
#: What scoring and routing decide in an answer.
DECIDED = (
    "verdict",
    "score",
    "trigger",
    "p_value",
    "components",
    "cause",
    "action",
    "route",
    "guarantee",
    "calibration",
)
QUIET = {"TCD_LEDGER": "memory", **PATIENT}
BODY = {"trace_vector": [-1.2], "entropy": 1.5}


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("TCD_")} | QUIET | environment
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )


def until_ready(process: subprocess.Popen[str], timeout: float = 300.0) -> dict[str, str]:
    """The URLs that were printed, once the ready line is there."""
    assert process.stdout is not None
    found: dict[str, str] = {}
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            name, _, rest = line.strip().partition(" ")
            found[name] = rest.strip()
            if name == "ready":
                return found
    finally:
        timer.cancel()
    raise AssertionError(process.stderr.read() if process.stderr else "")


def post(url: str, value: Any) -> tuple[int, Any]:
    reply = httpx2.post(url, json=value, timeout=60.0)
    return reply.status_code, reply.json()


@contextlib.contextmanager
def stopped(process: subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(180)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate()


def test_serve_from_start_to_drain(tmp_path: Path) -> None:
    process = start("--port", "0", "--triton-port", "0", TCD_HTTP_RATE_CAP="100000", TCD_HTTP_RATE_REFILL="100000")
    with stopped(process):
        said = until_ready(process)
        base = said["shim"].split()[0]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", base)
        assert {"shim", "triton", "ready"} <= set(said)
        # the printed line is one that works as it is
        out = subprocess.run(["bash", "-c", said["ready"]], capture_output=True, text=True, check=True, timeout=60)
        assert json.loads(out.stdout)["action"] == "allow"
        triton = httpx2.get(base + "/version", timeout=60).json()["triton"]
        assert triton["started"] is True
        assert triton["url"] in said["triton"]
        metrics = re.search(r"metrics (http://\S+?)\)", said["triton"])
        assert metrics
        assert "nv_inference" in httpx2.get(metrics[1], timeout=60).text
        until = time.monotonic() + 60
        while not httpx2.get(base + "/readyz", timeout=60).json()["ready"]:
            assert time.monotonic() < until
            time.sleep(0.1)

        statuses: list[int] = []

        def load(number: int) -> None:
            for i in range(200):
                try:
                    status, _ = post(base + "/diagnose", {**BODY, "session": str(number), "step_id": i})
                except httpx2.TransportError:
                    return
                statuses.append(status)
                if status == 503:
                    return

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            running = [pool.submit(load, n) for n in range(4)]
            until = time.monotonic() + 60
            while 200 not in statuses:
                assert time.monotonic() < until
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            for future in running:
                future.result()
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) > 0
        assert process.wait(180) == 0
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(triton["url"], timeout=2)


def test_a_taken_port_is_named_with_its_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start("--port", str(port), "--triton-port", "0")
        out, err = process.communicate(timeout=180)
    assert process.returncode == 1
    assert f"port {port} on 127.0.0.1 cannot be had" in err
    assert "--port" in err
    assert "Traceback" not in err
    assert "starting" not in out


def test_a_wrong_setting_is_one_line() -> None:
    process = start("--port", "0", TCD_ALHPA="0.1")
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1
    assert err.strip() == "tcd serve: TCD_ALHPA is no setting; did you mean TCD_ALPHA?"


def test_an_external_triton_that_is_away_is_not_ready_and_degrades() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        process = start("--port", "0", "--triton-url", url)
        with stopped(process):
            base = until_ready(process)["shim"].split()[0]
            status, answer = post(base + "/diagnose", BODY)
            assert (status, answer["cause"], answer["action"]) == (200, "degraded", "block")
            assert httpx2.get(base + "/readyz", timeout=60).status_code == 503
            process.send_signal(signal.SIGTERM)
            assert process.wait(180) == 0


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_the_fused_model_behind_the_shim_decides_as_the_ensemble_does(transport: str) -> None:
    rng = np.random.default_rng(5)
    bodies = [
        {
            "session": f"s{i}",
            "step_id": 0,
            "window": "full",
            "trace_vector": (-rng.exponential(1.2 if i % 2 else 0.01, 40 + i)).tolist(),
            "entropy_window": rng.exponential(1.8 if i % 2 else 0.02, 40 + i).tolist(),
        }
        for i in range(8)
    ]
    answers = []
    for model in ("tcd_diagnose", "tcd_fused"):
        process = start(*("--port", "0", "--triton-port", "0"), TCD_TRITON_MODEL=model, TCD_TRITON_TRANSPORT=transport)
        with stopped(process):
            said = until_ready(process)
            answers.append([post(said["shim"].split()[0] + "/diagnose", body) for body in bodies])
            metrics = re.search(r"metrics (http://\S+?)\)", said["triton"])
            assert metrics
            rows = httpx2.get(metrics[1], timeout=60).text
            answered = re.search(r'nv_inference_count\{model="tcd_fused",version="1"\} (\d+)', rows)
            assert (int(answered[1]) >= len(bodies)) if answered else model == "tcd_diagnose"
    for (status, ensemble), (other, fused) in zip(*answers, strict=True):
        assert (status, other) == (200, 200)
        assert {name: ensemble[name] for name in DECIDED} == {name: fused[name] for name in DECIDED}
    assert len({answer["score"] for _, answer in answers[1]}) > 2
