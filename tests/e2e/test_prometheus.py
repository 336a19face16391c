"""A real Prometheus scrapes a live shim and a live Triton: every query has data, and an alert fires in a drill."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tcd.telemetry import dashboard
from tcd.triton.launcher import LaunchOptions, TritonServer
from tests.e2e.client import Connection
from tests.e2e.stack import Stack, serving
from tests.scaleout.parts import answers
from tests.unit.telemetry.receiver import Receiver
from tests.unit.telemetry.test_monitoring import FOLDER, expressions

pytestmark = pytest.mark.triton
_UNTIL = 300.0
TRACE = "5ca1ab1e" * 4


class Prometheus:
    def __init__(self, url: str) -> None:
        self.url = url

    def exemplars(self, series: str) -> set[str]:
        """Trace ids of a series' exemplars of the last minutes."""
        now = time.time()
        asked = urllib.parse.urlencode({"query": series, "start": now - 600, "end": now + 60})
        with urllib.request.urlopen(f"{self.url}/api/v1/query_exemplars?{asked}", timeout=60) as reply:  # noqa: S310 - as below
            value = json.load(reply)
        return {e["labels"]["trace_id"] for found in value["data"] for e in found["exemplars"]}

    def query(self, expression: str) -> list[Any]:
        text = expression.replace("$__rate_interval", "1m")
        url = f"{self.url}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        with urllib.request.urlopen(url, timeout=60) as reply:  # noqa: S310 - started here, on loopback
            value = json.load(reply)
        assert value["status"] == "success", (expression, value)
        found: list[Any] = value["data"]["result"]
        return found


@contextlib.contextmanager
def prometheus(folder: Path, shim: str, triton: str) -> Iterator[Prometheus]:
    binary = shutil.which("prometheus")
    assert binary is not None, "apt-get install prometheus"
    config = (FOLDER / "prometheus.yml").read_text()
    config = config.replace("127.0.0.1:8080", shim).replace("127.0.0.1:8002", triton)
    config = config.replace("scrape_interval: 5s", "scrape_interval: 1s").replace(
        "scrape_timeout: 2s", "scrape_timeout: 1s"
    )
    config = config.replace("evaluation_interval: 15s", "evaluation_interval: 1s")
    (folder / "prometheus.yml").write_text(config)
    shutil.copy(FOLDER / "rules.yml", folder)
    said = folder / "prometheus.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [
                *(binary, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
                *("--web.listen-address=127.0.0.1:0", "--enable-feature=exemplar-storage"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        until = time.monotonic() + _UNTIL
        url = ""
        while not url or not answers(f"{url}/-/ready"):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < until
            time.sleep(0.1)
            at = re.search(r'"Listening on" address=(\S+)', said.read_text())
            url = "" if at is None else f"http://{at[1]}"
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(60)


async def traffic(stack: Stack, number: int) -> None:
    async with Connection(stack.host, stack.port) as connection:
        for step in range(5):
            body = {"session": f"p{number}", "step_id": step, "trace_vector": [-1.0], "entropy": 1.0}
            traced = {"traceparent": f"00-{TRACE}-{'cd' * 8}-01"}
            status, _, answer = await connection.request("POST", "/diagnose", body, traced)
            assert status == 200
        shown = {"receipt_head_hex": "00", "receipt_body_json": answer["receipt_body"]}
        await connection.request("POST", "/verify", shown)


def legends() -> Iterator[tuple[str, set[str]]]:
    """Queries of the dashboard's panels, and the labels that their legends name."""
    for panel in json.loads(dashboard.PATH.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"], set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))


async def poll(check: Any, during: Any) -> Any:
    """Repeat until there is nothing left that `check` finds wrong."""
    until, number = time.monotonic() + _UNTIL, 0
    while True:
        number += 1
        await during(number)
        wrong = await asyncio.to_thread(check)
        if not wrong:
            return
        assert time.monotonic() < until, wrong
        await asyncio.sleep(0.5)


async def test_every_query_has_data_and_an_alert_fires(tmp_path: Path, receiver: Receiver) -> None:
    env = {"TCD_OTEL_ENABLE": "true", "TCD_OTEL_ENDPOINT": receiver.url, "TCD_OTEL_INTERVAL_S": "1"}
    ports = LaunchOptions(http_port=0, grpc_port=0, metrics_port=0, log_path=tmp_path / "triton.log")
    # not the shim's own Triton: that one would be healed in the middle of the drill
    with TritonServer(ports) as models, serving(tmp_path, "--triton-url", models.http_url, env=env) as stack:
        shim, triton = (urllib.parse.urlsplit(u).netloc for u in (stack.shim, models.metrics_url))
        with prometheus(tmp_path, shim, triton) as server:

            def empty() -> list[str]:
                # NaN would be a division by a rate that is not there yet
                return [q for q in dashboard.queries() if not any(r["value"][1] != "NaN" for r in server.query(q))]

            await poll(empty, lambda number: traffic(stack, number))
            for query, labels in legends():
                # a query that counts what never happened says 0 of nothing in particular
                found = [row["metric"] for row in server.query(query) if row["metric"] or "vector(0)" not in query]
                assert all(labels <= metric.keys() for metric in found), (query, labels, found)
            for expression in expressions():
                server.query(expression)

            def untraced() -> str:
                if TRACE not in server.exemplars("tcd_request_duration_seconds_bucket"):
                    return "no exemplar with the caller's trace"
                if not any(span.name == "tcd.diagnose" and span.trace_id.hex() == TRACE for span in receiver.spans):
                    return "no span in the caller's trace"
                return "" if receiver.requests else "no metrics over OTLP"

            await poll(untraced, lambda number: traffic(stack, 1000 + number))

            def down() -> dict[str, str]:
                found = {r["metric"]["job"]: r["value"][1] for r in server.query("up")}
                # a scrape that a busy machine made late is followed by another one
                return {} if found == {"tcd-shim": "1", "tcd-triton": "1"} else found | {"up": "not both"}

            await poll(down, lambda number: traffic(stack, 2000 + number))
            assert server.query('ALERTS{alertname="TcdDegradedFastBurn"}') == []

            # the drill: every decision is degraded from here on
            assert models.pid is not None

            def silent() -> str:
                found = server.query('ALERTS{alertname="TcdDegradedFastBurn",alertstate="firing"}')
                return "" if found else "not firing"

            async def degraded(number: int) -> None:
                body = {"session": f"d{number}", "trace_vector": [-1.0], "deadline_ms": 100}
                async with Connection(stack.host, stack.port) as connection:
                    _, _, answer = await connection.request("POST", "/diagnose", body)
                assert answer["cause"] == "degraded"

            os.kill(models.pid, signal.SIGSTOP)
            try:
                await poll(silent, degraded)
            finally:
                os.kill(models.pid, signal.SIGCONT)
