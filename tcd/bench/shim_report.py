"""The report of the shim: what was asked for, what was measured beside which floors and peers."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, Final

from tcd import __version__
from tcd.bench import overload, shim
from tcd.bench.detector.lines import Chart, Line, document

#: Connections at which the targets hold.
CONNECTIONS: Final = 64
#: What is asked: times a naive shim's rate, CPU of the no-op's with and without receipts, p99 of the no-op's below
#: capacity, milliseconds that no request may take.
NAIVE: Final = 5.0
CPU: Final = 3.5
CPU_BARE: Final = 1.7
P99: Final = 5.0
STALL: Final = 500.0
GOODPUT: Final = 0.9
REFUSED: Final = 50.0
RECOVERY: Final = 2.0
_ABOUT: Final = (
    "wrk on the same cores, each request the next step of one of 256 sessions. *no-op, raw ASGI* decodes the same body"
    " strictly and returns a fixed answer of the same length, in the style of the shim's own hot route; *Starlette"
    " route* does so as a route of the framework. *naive shim* does the same work as one would first write it:"
    " pydantic, one call of Triton, one signature and one commit per request. *shim, tcd_fused* asks the fused model"
    " instead of the ensemble (`TCD_TRITON_MODEL`): the same bits. Receipts are signed and durable (SQLite,"
    " `synchronous=FULL`). Ratios are medians over rounds, each within its round."
)


def targets(rows: Sequence[Mapping[str, Any]], found: Sequence[overload.Overload]) -> list[tuple[str, str, str, bool]]:
    """What, asked, measured, held."""
    at = {row["server"]: row for row in rows if row["concurrency"] == CONNECTIONS}
    out: list[tuple[str, str, str, bool]] = []
    if shim.SHIM in at:
        full, bare = at[shim.SHIM], at[shim.BARE]
        rate = full["naive_ratio"]
        out.append((f"requests/s over the naive shim's, {CONNECTIONS} connections", *_least(rate, NAIVE)))
        for row, name, most in ((full, "with receipts", CPU), (bare, "without receipts", CPU_BARE)):
            out.append((f"shim CPU {name} over the no-op's, raw ASGI", *_most(row["cpu_ratio"], most)))
            out.append((f"shim CPU {name} over the no-op's, Starlette route", *_most(row["route_ratio"], most)))
        out.append((f"slowest request, ms, {CONNECTIONS} connections", *_most(full["max"], STALL, "<")))
    return out + _rounds(found)


def _rounds(found: Sequence[overload.Overload]) -> list[tuple[str, str, str, bool]]:
    """Medians of the rounds, with their range; of what must not happen at all, the worst."""
    below, good = [r.below_ratio for r in found], [r.goodput_ratio for r in found]
    refused = [r.refused.p99 for r in found]
    return [
        ("p99 at 60 % of capacity over the no-op's", *_ranged(below, _most(median(below), P99))),
        ("slowest request at 60 % of capacity, ms", *_most(max(r.below.max for r in found), STALL, "<")),
        ("goodput at 3 times capacity, of capacity", *_ranged(good, _least(median(good), GOODPUT))),
        ("p99 of refusals, ms", *_ranged(refused, _most(median(refused), REFUSED, "<"))),
        ("recovery, s", *_most(max(r.recovery for r in found), RECOVERY)),
    ]


def _ranged(values: Sequence[float], judged: tuple[str, str, bool]) -> tuple[str, str, bool]:
    asked, value, ok = judged
    return asked, f"{value} ({min(values):.2f} to {max(values):.2f}, {len(values)})", ok


def _least(value: float, least: float) -> tuple[str, str, bool]:
    return f">= {least:g}", f"{value:.2f}", value >= least


def _most(value: float, most: float, sign: str = "<=") -> tuple[str, str, bool]:
    return f"{sign} {most:g}", f"{value:.2f}", value < most if sign == "<" else value <= most


def whole(rows: Sequence[Mapping[str, Any]], result: Sequence[overload.Overload]) -> dict[str, Any]:
    """What a report holds beside the runs and their summary."""
    return {
        "version": __version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load": round(os.getloadavg()[0], 1),
        "overload": overload.raw(result),
        "targets": targets(rows, result),
    }


def table(rows: Iterable[tuple[str, str, str, bool]]) -> list[str]:
    """Targets as lines of a table."""
    lines = ["| what | asked | measured | held |", "|---|---|---|---|"]
    lines += [f"| {what} | {asked} | {value} | {'yes' if ok else '**no**'} |" for what, asked, value, ok in rows]
    return lines


def markdown(found: Mapping[str, Any], result: Sequence[overload.Overload], *, images: str = "") -> str:
    """The report; `images` is the prefix of the plot's path, empty = none."""
    lines = [
        "# The shim beside its floors and its peers",
        "",
        f"`tcd bench shim`, tcd {found['version']}, {found['machine']}, load average {found['load']:.1f} at the end.",
        "",
        _ABOUT,
        "",
        *table(found["targets"]),
        "",
        "## Load",
        "",
        shim.markdown(found["summary"]),
    ]
    if images:
        lines += ["", f"![Load]({images}load.svg)"]
    lines += ["", "## Below and above capacity", "", overload.markdown(result)]
    return "\n".join(lines) + "\n"


def plots(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """SVG documents by name."""
    names = sorted({str(row["server"]) for row in rows})
    connections = [float(row["concurrency"]) for row in rows]
    ends = (min(connections), max(2.0 * min(connections), *connections))

    def chart(title: str, y: str, key: str, y_range: tuple[float, float]) -> Chart:
        lines = [
            Line(name, style, [(row["concurrency"], row[key]) for row in rows if row["server"] == name and key in row])
            for style, name in enumerate(names)
        ]
        shown = [line for line in lines if line.points]
        return Chart(
            title=title, x="connections", y=y, lines=shown, x_range=ends, y_range=y_range, log_x=True, log_y=True
        )

    charts = [
        chart("Requests per second", "1/s", "rate", (10.0, 100_000.0)),
        chart("p99", "ms", "p99", (0.1, 10_000.0)),
        chart("CPU of the shim per request", "us", "cpu_shim", (10.0, 10_000.0)),
        chart("CPU of Triton per request", "us", "cpu_triton", (10.0, 10_000.0)),
    ]
    return {"load": document("The shim under load", charts)}
