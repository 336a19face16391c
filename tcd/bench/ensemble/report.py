"""The report of `tcd bench ensemble`: what was asked for, what was measured, as Markdown and plots. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tcd.bench.detector.lines import Chart, Line, document

_ENSEMBLE: Final = "ensemble over no-op ensemble"
_GROWTH: Final = "ensemble, CPU per row over that at batch 1"
_MIXED: Final = "batches of 32, padded to the bucket"
#: Ratio, client batch, at most.
LIMITS: Final = (
    ("CPU per row, ensemble over no-op ensemble", _ENSEMBLE, "32", 1.3),
    ("CPU per row, ensemble over no-op ensemble", _ENSEMBLE, "128", 1.15),
    ("CPU per row of the ensemble over that at batch 1", _GROWTH, "32", 1 / 25),
)
MIXED: Final = 1.05
START: Final = 0.5
_HOW: Final = """\
perf_analyzer over gRPC, four requests under way, windows of 64 tokens, all signals, 16 x 16 features. CPU is that of
all processes of the server from /proc, so the load generator's is not in it. One round measures all models one after
the other, the next round backwards; a ratio is made within a round. The no-ops have the same tensors, written as
Triton's documentation writes a model: they answer zeros and read nothing. Latencies are of single requests over HTTP by
the shim's client, four under way, all models by turns."""


def targets(found: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What, asked, measured (median and ends over rounds), held by the median."""
    out = []
    for what, name, batch, limit in LIMITS:
        spread = found["peers"]["ratios"][name][batch]
        out.append((f"{what}, batch {batch}", f"<= {limit:.4g}", _spread(spread), spread["median"] <= limit))
    mixed = found["lengths"][_MIXED]["ratio"]
    out.append(("CPU, mixed over equal lengths in one bucket", f"<= {MIXED}", _spread(mixed), mixed["median"] <= MIXED))
    start = found["starts"]["ratio"]
    out.append(
        ("start to ready over the same with auto-complete", f"<= {START}", _spread(start), start["median"] <= START)
    )
    holders = found["starts"]["processes_with_torch"]
    out.append(("processes with torch in memory", "none", ", ".join(holders) or "none", not holders))
    return out


def _spread(spread: Mapping[str, Any]) -> str:
    return f"{spread['median']:.3g} ({spread['low']:.3g} to {spread['high']:.3g}, {spread['n']})"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *cells, ""]


def _medians(points: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = []
    for batch in sorted({p["batch"] for p in points}):
        for model in dict.fromkeys(p["model"] for p in points):
            mine = [p for p in points if p["batch"] == batch and p["model"] == model]
            value = {
                k: statistics.median(p[k] for p in mine)
                for k in ("rows_per_second", "p50_us", "p99_us", "cpu_us_per_row")
            }
            rows.append(
                [
                    *(
                        f"`{model}`",
                        str(batch),
                        f"{value['cpu_us_per_row']:.1f}",
                        f"{value['cpu_us_per_row'] * batch:,.0f}",
                    ),
                    *(
                        f"{value['rows_per_second']:,.0f}",
                        f"{value['p50_us'] / 1e3:.2f}",
                        f"{value['p99_us'] / 1e3:.2f}",
                    ),
                ]
            )
    return rows


def markdown(found: Mapping[str, Any], *, images: str = "") -> str:
    """The report.

    Args:
        found: what `tcd.bench.ensemble.run` answered.
        images: start of the plots' file names; empty leaves them out.
    """
    load = " to ".join(f"{value:.1f}" for value in found["load"])
    peers, scale = found["peers"], found["scale"]
    batches = [str(b) for b in scale["batches"]]
    lines = ["# The ensemble beside what Triton itself costs", ""]
    lines += [
        f"`tcd bench ensemble`, tcd {found['version']}, {found['machine']}, load {load}, {scale['rounds']} rounds."
    ]
    lines += ["", _HOW, "", "## What was asked for", "Median (lowest to highest, rounds).", ""]
    lines += _table(
        ("", "asked", "measured", "held"), [(*row, "yes" if ok else "**no**") for *row, ok in targets(found)]
    )
    lines += ["## Ratios of CPU per row by client batch", ""]
    lines += _table(
        ("", *batches), [(name, *(_spread(by[b]) for b in batches)) for name, by in peers["ratios"].items()]
    )
    lines += ["## Medians over rounds", ""]
    head = ("model", "batch", "CPU us/row", "CPU us/request", "rows/s", "p50 ms", "p99 ms")
    lines += _table(head, _medians(peers["points"]))
    library = ", ".join(f"{us:.1f} µs at batch {b}" for b, us in peers["library_us_per_row"].items())
    lines += [f"In process, without a server, `tcd.scoring.diagnose` takes {library} per row.", ""]
    lines += ["## Latency of single requests, ms", ""]
    latency = [
        (f"`{name.split()[0]}`", name.split()[1], *(f"{by[k]:.2f}" for k in ("p50", "p99", "p99.9", "worst")), by["n"])
        for name, by in found["latency"].items()
    ]
    lines += _table(("model", "batch", "p50", "p99", "p99.9", "worst", "requests"), latency)
    lines += ["## Mixed lengths over equal ones", ""]
    lines += _table(("", "CPU, mixed over equal"), [(n, _spread(by["ratio"])) for n, by in found["lengths"].items()])
    start = found["starts"]
    lines += ["## Start to ready, s", ""]
    lines += _table(
        ("", "seconds"),
        [("as it is", _spread(start["as_it_is"])), ("with auto-complete", _spread(start["auto_complete"]))],
    )
    lines += ["## Growth", "CPU of the server per request, ms: tcd / no-op.", ""]
    for name, points in found["growth"].items():
        cells = [
            " / ".join(f"{p[m]['cpu_us_per_request'] / 1e3:.2f}" for m in ("tcd_diagnose", "noop_diagnose"))
            for p in points
        ]
        lines += _table((_AXES[name], *(str(p[name]) for p in points)), [("", *cells)])
    if images:
        lines += [f"![{title}]({images}{name}.svg)" for name, title in _PLOTS.items()]
        lines += [""]
    return "\n".join(lines)


_AXES: Final = {
    "window": "tokens in the window (batch 32)",
    "batch": "rows in the request (64 tokens)",
    "features": "width of 16 feature vectors (batch 32, 64 tokens)",
}
_PLOTS: Final = {"growth": "cost of a request", "latency": "latency of single requests"}


def _above(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / 1.3, max(values) * 1.3


def plots(found: Mapping[str, Any]) -> dict[str, str]:
    """SVG documents by name."""
    charts = []
    for name, points in found["growth"].items():
        series = {
            m: [(p[name], p[m]["cpu_us_per_request"] / 1e3) for p in points] for m in ("tcd_diagnose", "noop_diagnose")
        }
        values = [y for line in series.values() for _, y in line]
        charts.append(
            Chart(
                title=_AXES[name],
                x=name,
                y="CPU per request, ms",
                lines=[Line(model, style, line) for style, (model, line) in enumerate(series.items())],
                x_range=(points[0][name], max(points[-1][name], points[0][name] + 1)),
                y_range=_above(values),
                log_x=True,
                log_y=True,
            )
        )
    out = {"growth": document("What a request costs as it grows", charts, columns=3)}
    curves = []
    for batch in dict.fromkeys(name.split()[1] for name in found["latency"]):
        mine = {name.split()[0]: by["curve"] for name, by in found["latency"].items() if name.split()[1] == batch}
        values = [y for curve in mine.values() for _, y in curve]
        curves.append(
            Chart(
                title=f"client batch {batch}",
                x="latency, ms",
                y="share of requests, %",
                lines=[
                    Line(model, style, [(y, x) for x, y in curve]) for style, (model, curve) in enumerate(mine.items())
                ],
                x_range=_above(values),
                y_range=(0.0, 100.0),
                log_x=True,
            )
        )
    out["latency"] = document("Latency of single requests, four under way", curves)
    return out
