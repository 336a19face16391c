"""The arithmetic of `tcd bench shim`: medians over rounds, ratios to the peers of the same concurrency."""

from __future__ import annotations

import pytest

from tcd.bench.load import Load
from tcd.bench.shim import FLOOR, NAIVE, Run, markdown, summary


def run(server: str, concurrency: int, *, requests: int, cpu: float) -> Run:
    load = Load(requests=requests, seconds=2.0, p50=1.0, p99=2.0, p999=3.0, max=4.0, errors=0)
    return Run(server, concurrency, load, {"shim": cpu})


def test_ratios_are_to_the_peers_of_the_same_concurrency() -> None:
    runs = [
        *(run("shim", 8, requests=n, cpu=c) for n, c in ((100, 30.0), (300, 50.0), (200, 40.0))),
        *(run(NAIVE, 8, requests=n, cpu=100.0) for n in (25, 75, 50)),
        *(run(FLOOR, 8, requests=n, cpu=c) for n, c in ((200, 7.5), (600, 12.5), (400, 10.0))),
        run("shim", 1, requests=10, cpu=60.0),
        run(NAIVE, 1, requests=20, cpu=60.0),
        run(FLOOR, 1, requests=40, cpu=20.0),
    ]
    rows = {(r["server"], r["concurrency"]): r for r in summary(runs)}
    busy, alone = rows["shim", 8], rows["shim", 1]
    assert (busy["rate"], busy["rate_ratio"], busy["naive_ratio"], busy["cpu_ratio"]) == pytest.approx((100, 0.5, 4, 4))
    assert (alone["rate_ratio"], alone["naive_ratio"], alone["cpu_ratio"]) == pytest.approx((0.25, 0.5, 3))


def test_every_run_is_a_line_of_the_table_and_errors_add_up() -> None:
    runs = [run(name, 1, requests=10, cpu=1.0) for name in ("shim", NAIVE, FLOOR)]
    lines = markdown(summary(runs)).splitlines()
    assert len(lines) == 2 + len(runs)
    assert len({line.count("|") for line in lines}) == 1
