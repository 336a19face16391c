"""Time and memory of audits and exports from 10^4 receipts on: synthetic ledgers, each thing in its own process."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tcd import __version__
from tcd.bench.audit.one import PARQUET
from tcd.bench.audit.writing import write
from tcd.bench.detector.lines import Chart, Line, document


def sizes(most: int) -> list[int]:
    """10^4, 10^5, ... up to `most`."""
    out = [10_000]
    while out[-1] * 10 <= most:
        out.append(out[-1] * 10)
    return out


def alone(what: str, folder: Path, workers: int = 0) -> dict[str, Any]:
    """Measure one thing over the ledger of a folder in a process of its own."""
    command = [sys.executable, "-m", "tcd.bench.audit.one", what, str(folder), str(workers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def one(folder: Path, workers: int = 0) -> dict[str, Any]:
    """Audit a ledger, export it, ask the export: one after the other, what the extras that are installed allow."""
    row = alone("audit", folder, workers)
    if find_spec("pyarrow") is not None:
        row["parquet"] = alone("parquet", folder)
        if find_spec("duckdb") is not None:
            row["query"] = alone("query", folder)
        (folder / PARQUET).unlink()
    return row


def measure(
    counts: Sequence[int],
    *,
    folder: Path | None = None,
    ledgers: Sequence[Path] = (),
    parts: int = 1,
    workers: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Write ledgers of these sizes, one after the other, and measure them.

    Args:
        counts: receipts.
        folder: where; None = a temporary one. A ledger of 10^7 receipts takes 43 GB.
        ledgers: folders of synthetic ledgers that are there already, measured last; a report is left in each.
        parts: processes that sign, see `write`.
        workers: processes that check rows beside the one that audits.
        say: told what is going on.
    """
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for count in counts:
            here = Path(place) / str(count)
            began = time.perf_counter()
            write(here, count, parts=parts)
            say(f"{count} receipts written in {time.perf_counter() - began:.0f} s")
            rows.append(one(here, workers))
            say(json.dumps(rows[-1]))
            shutil.rmtree(here)
        for here in ledgers:
            rows.append(one(here, workers))
            say(json.dumps(rows[-1]))
    return about(rows)


def about(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows, and where they were measured."""
    return {
        "version": __version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}",
        "load": round(os.getloadavg()[0], 1),
        "rows": rows,
    }


def markdown(found: Mapping[str, Any], *, image: str = "") -> str:
    """The report, with `notes` and `exports` (rows without an audit) of who measured; `image` is the plot's path."""
    lines = [
        "# Audits as the log grows",
        "",
        f"`tcd bench audit`, tcd {found['version']}, {found['machine']}, load average {found['load']:.1f} at the end.",
        "",
        "Synthetic ledgers through the real format (every receipt signed, every event a controller's, 18 decisions a",
        "session): signatures, links, log, budgets, levels, triggers, p-values from the calibration, steps of the",
        "e-process. Workers are processes that check rows beside the one that audits; CPU is that of all. Memory is",
        "the peak of the resident set, of the largest worker, too; `MiB before` is what the imports take.",
        "",
        "| receipts | chains | events | ledger, MB | workers | seconds | CPU, s | each, us | MiB before | peak, MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        per = 1e6 * row["cpu_seconds"] / row["receipts"]
        others = f" + {row['workers']} x {row['worker_mib']}" if row["workers"] else ""
        lines.append(
            f"| {row['receipts']:,} | {row['chains']:,} | {row['events']:,} | {row['file_bytes'] / 1e6:,.0f} "
            f"| {row['workers']} | {row['seconds']:,.1f} | {row['cpu_seconds']:,.1f} | {per:.0f} "
            f"| {row['start_mib']} | {row['peak_mib']}{others} |"
        )
    lines += ["", "Findings in them: " + ", ".join(str(row["findings"]) for row in found["rows"]) + "."]
    lines += _exports([row for row in (*found["rows"], *found.get("exports", ())) if "parquet" in row])
    for note in found.get("notes", ()):
        lines += ["", note]
    if image:
        lines += ["", f"![Audits as the log grows]({image})"]
    return "\n".join(lines) + "\n"


def _exports(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        "",
        "## Exports as Parquet",
        "",
        "The same ledgers by `tcd export parquet`, without bodies; then one query by DuckDB over the file: decisions,",
        "triggers, scores, p-values and streams by action.",
        "",
        "| receipts | Parquet, MB | seconds | CPU, s | per receipt, us | MiB before | peak, MiB | query, s | MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        made, asked = row["parquet"], row.get("query")
        per = 1e6 * made["cpu_seconds"] / made["receipts"]
        query = f"{asked['seconds']:.2f} | {asked['peak_mib']}" if asked else "- | -"
        lines.append(
            f"| {made['receipts']:,} | {made['file_bytes'] / 1e6:,.1f} | {made['seconds']:,.1f} "
            f"| {made['cpu_seconds']:,.1f} | {per:.0f} | {made['start_mib']} | {made['peak_mib']} | {query} |"
        )
    return lines


def plot(found: Mapping[str, Any]) -> str:
    """The growth as an SVG document."""
    rows = found["rows"]
    ends = (rows[0]["receipts"] * 0.9, max(rows[-1]["receipts"] * 1.1, rows[0]["receipts"] * 10.0))

    def chart(title: str, y: str, lines: Sequence[tuple[str, str]], low: float, high: float) -> Chart:
        made = [
            Line(label, style, [(float(row["receipts"]), float(row[key])) for row in rows])
            for style, (label, key) in enumerate(lines)
        ]
        return Chart(
            title=title, x="receipts", y=y, lines=made, x_range=ends, y_range=(low, high), log_x=True, log_y=True
        )

    return document(
        "Audits as the log grows",
        [
            chart("Time", "seconds", [("seconds", "seconds"), ("CPU seconds", "cpu_seconds")], 1.0, 10_000.0),
            chart("Memory", "MiB", [("peak, MiB", "peak_mib")], 10.0, 1_000.0),
        ],
    )
