"""What a decision costs as subjects and the log grow: CPU per request and memory per subject, in process."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tcd import __version__
from tcd.bench import inprocess
from tcd.bench.detector.lines import Chart, Line, document
from tcd.ledger.sqlite import FILE
from tcd.triton.process import usage

#: Requests that are measured at each size, and sessions they go round.
REQUESTS: Final = 2_000
_SESSIONS: Final = 256
_TENANTS: Final = 8
_PIECE: Final = 20_000


def sizes(most: int) -> list[int]:
    """10^3, 10^4, ... up to `most`."""
    out = [1_000]
    while out[-1] * 10 <= most:
        out.append(out[-1] * 10)
    return out


def _resident() -> int:
    return usage([os.getpid()]).resident_bytes


async def subjects(counts: Sequence[int], *, requests: int = REQUESTS) -> list[dict[str, float]]:
    """Cost per request among so many live sessions, spread over all of them, and memory per session."""
    rows: list[dict[str, float]] = []
    limits = {"sessions_max": max(counts) + 1, "sessions_max_bytes": 1 << 40, "receipts_enable": False}
    async with inprocess.app(None, **limits, idempotency_ttl_s=1.0, rate_subjects=max(counts) + 10) as shim:
        began, live = _resident(), 0
        for count in counts:

            def fresh(i: int, first: int = live) -> tuple[str, str]:
                return f"t{i % _TENANTS}", f"s{first + i}"

            def spread(i: int, among: int = count) -> tuple[str, str]:
                return f"t{i * 7919 % among % _TENANTS}", f"s{i * 7919 % among}"

            await inprocess.decide(shim, count - live, fresh)
            # the tenant is part of a subject: the same name again needs the same one
            live = count
            spent = await inprocess.decide(shim, requests, spread)
            rows.append(
                {
                    "subjects": count,
                    "live": len(shim.runtime.service.sessions),
                    "us_per_request": round(1e6 * spent / requests, 1),
                    "bytes_per_subject": round((_resident() - began) / count),
                }
            )
    return rows


def fill(path: Path, first: int, last: int) -> None:
    """Put records number `first` to `last` - 1 of other chains into a ledger: real rows with short bodies."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous=OFF")
    for begin in range(first, last, _PIECE):
        numbers = range(begin, min(begin + _PIECE, last))
        heads = [hashlib.sha256(b"%d" % i).digest() for i in numbers]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO receipt VALUES (?, ?, ?, 'k', 'decision', 't', ?, 0, ?, 0)",
            [(i, head, head + head, head, bytes(32)) for i, head in zip(numbers, heads, strict=True)],
        )
        connection.executemany("INSERT INTO body VALUES (?, ?)", [(i, b"x" * 100) for i in numbers])
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


async def log(counts: Sequence[int], folder: Path, *, requests: int = REQUESTS) -> list[dict[str, float]]:
    """Cost per request with receipts on a ledger that holds so many records already."""
    rows: list[dict[str, float]] = []
    path = folder / FILE
    for count in counts:
        async with inprocess.app(folder):
            pass
        connection = sqlite3.connect(path)
        (newest,) = connection.execute("SELECT coalesce(max(idx), -1) FROM receipt").fetchone()
        connection.close()
        fill(path, newest + 1, count)
        async with inprocess.app(folder) as shim:

            def name(i: int, run: int = count) -> tuple[str, str]:
                return f"t{i % _TENANTS}", f"{run}-{i % _SESSIONS}"

            await inprocess.decide(shim, _SESSIONS, name)
            spent = await inprocess.decide(shim, requests, name)
        rows.append({"receipts": count, "us_per_request": round(1e6 * spent / requests, 1)})
    return rows


def measure(most: int, *, requests: int = REQUESTS) -> dict[str, Any]:
    """Everything up to `most`."""
    import uvloop

    loop = uvloop.new_event_loop()
    try:
        with tempfile.TemporaryDirectory() as folder:
            by_log = loop.run_until_complete(log(sizes(most), Path(folder), requests=requests))
        by_subjects = loop.run_until_complete(subjects(sizes(min(most, 1_000_000)), requests=requests))
    finally:
        loop.close()
        asyncio.set_event_loop(None)
    return {
        "version": __version__,
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "load": round(os.getloadavg()[0], 1),
        "subjects": by_subjects,
        "log": by_log,
    }


def markdown(found: Mapping[str, Any], *, image: str = "") -> str:
    """The report; `image` is the path of the plot, empty = none."""
    where = f"tcd {found['version']}, {found['machine']}, load average {found['load']:.1f} at the end"
    lines = [
        "# What a decision costs as things grow",
        "",
        f"`tcd bench growth`, {where}.",
        "The shim in process, an ensemble that answers from memory: CPU of the shim alone.",
        "",
        "| live subjects | CPU per request, us (no receipts) | memory per subject, bytes |",
        "|---|---|---|",
        *(f"| {r['live']:,} | {r['us_per_request']:.0f} | {r['bytes_per_subject']:,} |" for r in found["subjects"]),
        "",
        "| receipts in the log | CPU per request, us (receipts, durable) |",
        "|---|---|",
        *(f"| {r['receipts']:,} | {r['us_per_request']:.0f} |" for r in found["log"]),
    ]
    if image:
        lines += ["", f"![Growth]({image})"]
    return "\n".join(lines) + "\n"


def plot(found: Mapping[str, Any]) -> str:
    """The growth as an SVG document."""

    def chart(title: str, x: str, y: str, key: str, rows: Sequence[Mapping[str, float]], top: float) -> Chart:
        points = [(float(row[x]), float(row[key])) for row in rows]
        ends = (points[0][0], max(points[-1][0], 10.0 * points[0][0]))
        line = Line(y, 0, points)
        return Chart(title=title, x=x, y=y, lines=[line], x_range=ends, y_range=(10.0, top), log_x=True, log_y=True)

    return document(
        "Growth",
        [
            chart("CPU by live subjects", "subjects", "us per request", "us_per_request", found["subjects"], 10_000.0),
            chart("Memory by live subjects", "subjects", "bytes", "bytes_per_subject", found["subjects"], 100_000.0),
            chart("CPU by length of the log", "receipts", "us per request", "us_per_request", found["log"], 10_000.0),
        ],
    )
