"""Time and memory of an audit from 10^4 receipts on: synthetic ledgers, each audited in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tcd import __version__
from tcd.bench.audit.synthetic import write
from tcd.bench.detector.lines import Chart, Line, document


def sizes(most: int) -> list[int]:
    """10^4, 10^5, ... up to `most`."""
    out = [10_000]
    while out[-1] * 10 <= most:
        out.append(out[-1] * 10)
    return out


def one(folder: Path) -> dict[str, Any]:
    """Audit the ledger of a folder in a process of its own."""
    command = [sys.executable, "-m", "tcd.bench.audit.one", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(
    counts: Sequence[int], *, folder: Path | None = None, say: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Write ledgers of these sizes, one after the other, and audit them.

    Args:
        counts: receipts.
        folder: where; None = a temporary one. A ledger of 10^7 receipts takes 43 GB.
        say: told what is going on.
    """
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for count in counts:
            here = Path(place) / str(count)
            here.mkdir()
            began = time.process_time()
            asyncio.run(write(here, count))
            say(f"{count} receipts written in {time.process_time() - began:.0f} s of CPU")
            rows.append(one(here))
            say(json.dumps(rows[-1]))
            for file in here.iterdir():
                file.unlink()
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
    """The report; `image` is the path of the plot, empty = none."""
    lines = [
        "# Audits as the log grows",
        "",
        f"`tcd bench audit`, tcd {found['version']}, {found['machine']}, load average {found['load']:.1f} at the end.",
        "",
        "Synthetic ledgers through the real format (every receipt signed, every event a controller's, 18 decisions a",
        "session); each is audited in one process, one thread: signatures, links, log, budgets, levels, triggers,",
        "p-values from the calibration, steps of the e-process. Memory is the peak of the process's resident set;",
        "`MiB before` is what the imports take.",
        "",
        "| receipts | chains | events | ledger, MB | seconds | CPU, s | per receipt, us | MiB before | peak, MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        per = 1e6 * row["cpu_seconds"] / row["receipts"]
        lines.append(
            f"| {row['receipts']:,} | {row['chains']:,} | {row['events']:,} | {row['file_bytes'] / 1e6:,.0f} "
            f"| {row['seconds']:,.1f} | {row['cpu_seconds']:,.1f} | {per:.0f} "
            f"| {row['start_mib']} | {row['peak_mib']} |"
        )
    lines += ["", "Findings in them: " + ", ".join(str(row["findings"]) for row in found["rows"]) + "."]
    if image:
        lines += ["", f"![Audits as the log grows]({image})"]
    return "\n".join(lines) + "\n"


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
