"""The benches of growth and endurance: what they count, what they find, and that a small run works."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tcd.bench import growth, overload, shim, shim_report, soak, soak_report
from tcd.bench.cpu import Cpu
from tcd.bench.load import Load


def sample(at: float, **changes: int) -> soak_report.Sample:
    values = {"shim_bytes": 10**8, "triton_bytes": 10**8, "threads": 20, "files": 50, "shared_bytes": 4096}
    return soak_report.Sample(at=at, **{**values, **changes})


def calm(seconds: float = 1800.0) -> soak_report.Soak:
    samples = [sample(10.0 * i, shim_bytes=10**8 + (i % 3) * 100_000) for i in range(180)]
    return soak_report.Soak(100.0, seconds, 1000, 0, 90.0, 20.0, (sample(0.0), sample(seconds)), samples)


def test_nothing_is_found_where_nothing_grows() -> None:
    assert soak_report.problems(calm()) == []
    assert soak_report.markdown(calm()).endswith("Held: nothing grew.")


@pytest.mark.parametrize("name", ["threads", "files", "shared_bytes"])
def test_one_more_of_what_should_be_gone_is_found(name: str) -> None:
    more = getattr(sample(1.0), name) + 1 + {"threads": soak_report.THREADS, "files": soak_report.FILES}.get(name, 0)
    found = replace(calm(), idle=(sample(0.0), replace(sample(1.0), **{name: more})))
    assert [problem.split(":")[0] for problem in soak_report.problems(found)] == [name]


@pytest.mark.parametrize(("name", "said"), [("shim_bytes", "rest_bytes"), ("triton_bytes", "triton_bytes")])
def test_a_leak_of_a_hundred_bytes_per_request_is_found(name: str, said: str) -> None:
    found = calm()
    # 100 requests/s, a look each 10 s
    grown = [replace(s, **{name: 10**8 + i * 100 * 10 * 100}) for i, s in enumerate(found.samples)]
    assert [problem.split(":")[0] for problem in soak_report.problems(replace(found, samples=grown))] == [said]


def test_what_is_kept_up_to_a_bound_is_no_leak_and_hides_none() -> None:
    """Sessions, leaves and chains of a run that has not reached their bounds; then a leak beside them."""
    found = calm()
    filling = [replace(s, sessions=10 * i, receipts=1000 * i) for i, s in enumerate(found.samples)]
    honest = [replace(s, shim_bytes=s.shim_bytes + s.kept_bytes) for s in filling]
    assert soak_report.growth(honest, "shim_bytes") > 8e6
    assert soak_report.problems(replace(found, samples=honest)) == []
    leaking = [replace(s, shim_bytes=s.shim_bytes + 100 * s.receipts) for s in honest]
    assert [p.split(":")[0] for p in soak_report.problems(replace(found, samples=leaking))] == ["rest_bytes"]


def test_what_is_kept_ends_at_its_bounds() -> None:
    assert sample(0.0, receipts=10**9).kept_bytes == sample(0.0, receipts=10**8).kept_bytes < 80e6


def test_metrics_and_connections_are_read() -> None:
    page = 'tcd_sessions_live 12.0\ntcd_receipts_total{result="ok"} 3.0\ntcd_receipts_total{result="none"} 4.0\n'
    assert soak.counted(page) == (12, 7)
    assert soak.counted("") == (0, 0)
    table = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:1F40 00000000:0000 0A\n"
        "   1: 0100007F:1F40 0100007F:C001 01\n"
        "   2: 0100007F:C001 0100007F:1F40 01\n"
        "   3: 0100007F:C002 0100007F:1F40 06\n"
        "   4: 0100007F:C003 0100007F:1F41 01\n"
    )
    assert soak.connections(table, 0x1F40) == 2


@pytest.mark.parametrize(
    ("kind", "most", "said"),
    [
        ("lost", 0, "had no answer"),
        ("errors", 0, "had an error"),
        ("refused", 10_000, "were refused"),
        ("degraded", 10, "were degraded"),
        ("untold", 0, "failed, and how is not told"),
    ],
)
def test_each_kind_of_failure_has_its_own_limit(kind: str, most: int, said: str) -> None:
    def failing(count: int) -> soak_report.Soak:
        found = replace(calm(), answered=1_000_000 - count, failed=count)
        told: dict[str, Any] = {} if kind == "untold" else {kind: count}
        return replace(found, **told)

    assert soak_report.problems(failing(most)) == []
    assert soak_report.problems(failing(most + 1)) == [f"{most + 1} of 1000000 requests {said}"]
    assert f"**Not held**: {most + 1} of" in soak_report.markdown(failing(most + 1))


def test_the_report_says_why_answers_were_degraded() -> None:
    why = {"degraded: receipt: not durable in time": 2, "lost: connection closed": 1}
    found = replace(calm(), answered=999_997, failed=3, degraded=2, lost=1, why=why)
    text = soak_report.document(found)
    assert "| answered with a degraded decision | 2 | 2e-06 | 1 in 100,000 |" in text
    assert "\n\n* 2 degraded: receipt: not durable in time\n* 1 lost: connection closed\n\n|" in text
    assert soak_report.read(json.loads(json.dumps(soak_report.raw(found)))) == found


def test_a_report_of_an_older_version_is_read_and_still_fails() -> None:
    older = soak_report.raw(replace(calm(), answered=997, failed=3, refused=1))
    found = soak_report.read({name: older[name] for name in older if name not in {"degraded", "lost", "errors", "why"}})
    assert found.untold == 2
    assert "an older report, which does not tell | 2 |" in soak_report.markdown(found)
    assert soak_report.problems(found) == ["2 of 1000 requests failed, and how is not told"]


def test_own_threads_and_files_are_counted(tmp_path: Path) -> None:
    before = soak.files(os.getpid())
    with (tmp_path / "x").open("w"):
        assert soak.files(os.getpid()) == before + 1
    assert soak.threads(os.getpid()) >= 1
    assert soak.threads(2**30) == soak.files(2**30) == 0


def test_bodies_begin_generations_anew() -> None:
    make = soak.bodies("r")
    period = soak.PLACES * soak_report.STEPS
    assert b'"step_id":0' in make(0)
    assert b'"step_id":1' in make(soak.PLACES)
    assert len({make(number) for number in range(soak.PLACES)}) == soak.PLACES
    assert make(0) != make(period)
    assert make(0) == make(4 * period)


def test_growth_in_small() -> None:
    found = growth.measure(1_000, requests=64)
    assert [row["live"] for row in found["subjects"]] == [1_000]
    assert [row["receipts"] for row in found["log"]] == [1_000]
    assert all(row["us_per_request"] > 0 for row in (*found["subjects"], *found["log"]))
    assert growth.markdown(found).count("|") == 2 * 4 + 4 + 2 * 3 + 3
    assert growth.plot(found).startswith("<svg")


def run(server: str, rate: int, cpu: float) -> shim.Run:
    load = Load(requests=rate, seconds=1.0, p50=1.0, p99=2.0, p999=3.0, max=4.0, errors=0)
    return shim.Run(server, 64, load, {"triton": cpu} if server == shim.DIRECT else {"shim": cpu, "triton": cpu})


def test_the_report_says_what_is_held_and_what_is_not() -> None:
    shims = ((shim.SHIM, 1000, 300.0), (shim.BARE, 2000, 170.0), (shim.NAIVE, 210, 2000.0))
    floors = ((shim.FLOOR, 9000, 100.0), (shim.ROUTE, 5000, 150.0), (shim.DIRECT, 3000, 50.0))
    rows = shim.summary([run(*values) for values in (*shims, *floors)])
    calm = overload.Latency(100, 1.0, 9.0, 9.0, 9.0)
    result = overload.Overload(
        *(1000.0, calm, calm, replace(calm, p99=1.0), 3000.0, 950.0, {"200": 950, "503": 2050}),
        *(calm, replace(calm, p99=51.0), 0.1),
    )
    bad = replace(result, goodput=100.0, refused=calm, recovery=3.0)
    measured = replace(result, cpu_below=Cpu(0.5, 0.25, 0.1), cpu_above=Cpu(1.1, 0.4, 0.5))
    results = [result, measured, bad]
    found = {"summary": rows, **shim_report.whole(rows, results)}
    held = {what: ok for what, _, _, ok in found["targets"]}
    assert held["requests/s over the naive shim's, 64 connections"] is False
    assert held["shim CPU with receipts over the no-op's, raw ASGI"] is True
    assert held["shim CPU without receipts over the no-op's, raw ASGI"] is True
    assert held["p99 at 60 % of capacity over the no-op's"] is False
    assert held["p99 of refusals, ms"] is False
    assert held["goodput at 3 times capacity, of capacity"] is True, "a median"
    assert held["recovery, s"] is False, "the worst of the rounds"
    assert overload.read(json.loads(json.dumps(found["overload"]))) == results
    older = [{k: v for k, v in one.items() if not k.startswith("cpu_")} for one in found["overload"]]
    assert overload.read(older)[0] == result, "of a version that did not measure CPU"
    text = shim_report.markdown(found, overload.read(found["overload"]), images="shim-")
    assert "| CPU of shim, Triton, load generator at 60%, cores | - | 0.50, 0.25, 0.10 | - |" in text
    assert "| CPU of shim, Triton, load generator at 3 times, cores | - | 1.10, 0.40, 0.50 | - |" in text
    assert text.count("**no**") == 4
    assert "| >= 0.9 | 0.95 (0.10 to 0.95, 3) | yes |" in text
    assert "| goodput, /s | 950 (95%) | 950 (95%) | 100 (10%) |" in text
    assert shim_report.plots(rows)["load"].startswith("<svg")
