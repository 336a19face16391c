"""CPU per row of the ensemble in a real Triton by window and batch, beside a no-op ensemble of the same shape.

`python tests/benchmarks/bench_growth.py --out docs/reports` writes speed.md, speed.json and speed.svg. Both ensembles
are measured in one server, in turn, in several rounds: medians and ranges are printed. Asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tcd.bench.detector.lines import Chart, Line, document
from tcd.contract import DIAGNOSE
from tcd.triton.perf import PerfOptions, Report, measure, own_server
from tcd.triton.perf_tool import find

BATCHES = (1, 32, 128)
WINDOWS = (64, 256, 1024, 4096)


def cells(found: dict[int, list[Report]]) -> list[dict[str, Any]]:
    """Medians and ranges over the rounds, by window and batch."""
    out = []
    for window, reports in found.items():
        for batch in BATCHES:
            ours: list[float] = []
            noop: list[float] = []
            for report in reports:
                for point in report.points:
                    if point.batch == batch and point.cpu_us_per_row is not None:
                        (ours if point.model == DIAGNOSE.name else noop).append(point.cpu_us_per_row)
            ratio = [a / b for a, b in zip(ours, noop, strict=True)]
            medians = {"us": statistics.median(ours), "noop_us": statistics.median(noop)}
            spread = {"ratio": statistics.median(ratio), "low": min(ratio), "high": max(ratio)}
            out.append({"window": window, "batch": batch, "rounds": len(ratio), **medians, **spread})
    return out


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table, and how cost grows with the window."""
    lines = [
        "# Cost of a row by window and batch\n",
        "perf_analyzer over gRPC, 4 requests under way, all signals, 16 x 16 features; CPU of the server and its",
        f"models per row, median of {rows[0]['rounds']} rounds; ratio to the no-op with its range.\n",
        "| window | batch | tcd µs | no-op µs | ratio (range) |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        where = f"| {r['window']} | {r['batch']} | {r['us']:.1f} | {r['noop_us']:.1f} "
        lines.append(f"{where}| {r['ratio']:.2f} ({r['low']:.2f}-{r['high']:.2f}) |")
    lines.append("\nWhat tcd takes over the no-op, which moves the same bytes, at both ends:\n")
    for batch in BATCHES:
        first, *_, last = (r for r in rows if r["batch"] == batch)
        over = [f"{r['us'] - r['noop_us']:.1f} µs at {r['window']}" for r in (first, last)]
        lines.append(f"* batch {batch}: {over[0]}, {over[1]}")
    lines.append("\n![CPU per row by window](speed.svg)")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]]) -> str:
    """CPU per row over the window, a panel per batch."""
    top = 2 * max(r["us"] for r in rows)
    charts = []
    for batch in BATCHES:
        own = [r for r in rows if r["batch"] == batch]
        lines = [
            Line(name, i, [(float(r["window"]), float(r[column])) for r in own])
            for i, (name, column) in enumerate((("tcd", "us"), ("no-op", "noop_us")))
        ]
        chart = Chart(
            title=f"batch {batch}",
            x="tokens in the window",
            y="CPU per row, µs",
            lines=lines,
            x_range=(float(WINDOWS[0]), float(WINDOWS[-1])),
            y_range=(1.0, top),
            log_x=True,
            log_y=True,
        )
        charts.append(chart)
    return document("CPU per row by window", charts, columns=3)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--interval", type=int, default=700, help="milliseconds of one measurement")
    parser.add_argument("--out", type=Path, help="folder for speed.md, speed.json and speed.svg")
    options = parser.parse_args()
    found: dict[int, list[Report]] = {window: [] for window in WINDOWS}
    tool = find(binary=None, wheel=None)
    with own_server() as target:
        for _ in range(options.rounds):
            for window in WINDOWS:
                asked = PerfOptions(batches=BATCHES, window=window, interval_ms=options.interval)
                found[window].append(measure(tool, target, asked))
    rows = cells(found)
    sys.stdout.write(markdown(rows))
    if options.out is not None:
        (options.out / "speed.json").write_text(json.dumps(rows, indent=1) + "\n")
        (options.out / "speed.md").write_text(markdown(rows))
        (options.out / "speed.svg").write_text(plot(rows))


if __name__ == "__main__":
    main()
