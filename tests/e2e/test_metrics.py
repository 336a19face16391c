"""Both /metrics pages parse as Prometheus text and move when a request passes through."""

from __future__ import annotations

import asyncio
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.client import Connection
from tests.e2e.stack import Stack

pytestmark = pytest.mark.triton


def scrape(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - started here, on loopback
        text = response.read().decode()
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return {(s.name, frozenset(s.labels.items())): s.value for s in samples}


def total(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    # the parser adds `_total` to the names of counters that lack it
    names = {name, f"{name}_total"}
    return sum(v for (n, held), v in samples.items() if n in names and labels.items() <= dict(held).items())


async def test_a_decision_shows_in_the_shim_and_in_triton(stack: Stack) -> None:
    shim, triton = f"{stack.shim}/metrics", stack.triton_metrics
    before = scrape(shim), scrape(triton)
    async with Connection(stack.host, stack.port) as connection:
        for step in range(3):
            body = {"session": "metrics", "step_id": step, "trace_vector": [-1.0], "entropy": 1.0}
            status, _, _ = await connection.request("POST", "/diagnose", body)
            assert status == 200
    after = scrape(shim), scrape(triton)

    def grew(side: int, name: str, **labels: str) -> float:
        return total(after[side], name, **labels) - total(before[side], name, **labels)

    assert grew(0, "tcd_requests_total", outcome="ok", surface="http") == 3
    assert grew(0, "tcd_decisions_total", action="allow") == 3
    assert grew(0, "tcd_receipts_total", result="issued") == 3
    assert grew(0, "tcd_request_duration_seconds_count", surface="http") == 3
    # a model publishes its own counters with an execution, at most every half second: the canary brings them out
    until = time.monotonic() + 60
    while time.monotonic() < until and grew(1, "tcd_model_batch_rows_sum", model="tcd_detector") < 3:
        await asyncio.sleep(0.2)
        after = after[0], scrape(triton)
    assert grew(1, "tcd_model_batch_rows_sum", model="tcd_detector") >= 3
    assert grew(1, "nv_inference_request_success_total", model="tcd_detector") >= 3


async def test_no_metric_names_a_subject(stack: Stack) -> None:
    body = {"tenant": "acme-tenant", "user": "jane-user", "session": "secret-session", "trace_vector": [-1.0]}
    async with Connection(stack.host, stack.port) as connection:
        await connection.request("POST", "/diagnose", body)
    text = str(scrape(f"{stack.shim}/metrics"))
    assert not any(name in text for name in ("acme-tenant", "jane-user", "secret-session"))
