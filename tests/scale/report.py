"""The report of the plan: tables in Markdown and plots. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tcd.bench.detector.lines import Chart, Line, document
from tests.scale.plan import COMMITS, CORE_HOUR, RATE, STEP, SUBJECTS, TB_MONTH, USED, WINDOW

_ROWS = (
    ("cell_per_second", "decisions per second of a cell (one PostgreSQL)", "{:,.0f}"),
    ("cells", "cells", "{:,.0f}"),
    ("shims_per_cell", "shims in each, of one core", "{:,.0f}"),
    ("tritons_per_cell", "cores of Triton in each", "{:,.0f}"),
    ("cores", "cores altogether", "{:,.0f}"),
    ("shim_cores", "of these shims", "{:,.0f}"),
    ("triton_cores", "of these Triton", "{:,.0f}"),
    ("postgres_cores", "of these PostgreSQL", "{:,.0f}"),
    ("haproxy_cores", "of these HAProxy", "{:,.0f}"),
    ("answers_gbit_a_second", "Gbit/s of answers to callers", "{:,.0f}"),
    ("wal_mb_a_second_per_cell", "MB/s of write-ahead log in each cell, to each standby", "{:,.1f}"),
    ("hot_tb_a_day_per_cell", "TB that a cell's database grows by in a day", "{:,.2f}"),
    ("answers_tb_for_a_day", "TB of stored answers, all cells, where retries are answered for a day", "{:,.0f}"),
    ("receipts_tb_a_day", "TB of receipts in a day, all cells", "{:,.0f}"),
    ("packed_tb_a_day", "the same compressed", "{:,.0f}"),
    ("heads_tb_a_day", "TB of heads in a day: what a log needs for its proofs", "{:,.1f}"),
    ("kept_tb", "TB kept: compressed receipts of 30 days, heads of a year", "{:,.0f}"),
    ("subjects_per_cell", "subjects in a cell", "{:,.0f}"),
    ("subject_gb_per_shim", "GB of memory for them in each shim of the cell", "{:,.2f}"),
    ("window_gb_per_shim", "GB of windows of live sessions in each shim", "{:,.3f}"),
    ("leaves_a_year_per_cell", "leaves of a cell's log after a year", "{:.2g}"),
    ("proof_hash_bytes", "bytes of hashes in a proof, up to the root over all cells", "{:,.0f}"),
    ("cores_dollars_a_month", "dollars a month, cores", "{:,.0f}"),
    ("kept_dollars_a_month", "dollars a month, what is kept", "{:,.0f}"),
    ("dollars_per_million_decisions", "dollars per million decisions", "{:.3f}"),
)


def markdown(found: Mapping[str, Any], *, images: str = "") -> str:
    """The page; `images`: what names of plots begin with, empty = none are shown."""
    lines = [
        "# A million decisions a second, a thousand million subjects: numbers and simulations",
        "",
        (
            "`python -m tests.scale`. What it means is in [scale](../scale.md). From [scaleout](scaleout.md) come "
            "CPU and "
            "bytes of a decision (one Triton, one shim, 64 callers, on two busy cores), from [ledger](ledger.md) "
            "bytes of "
            f"a subject. Beside: {COMMITS:,.0f} durable decisions a second of one PostgreSQL ([operations]"
            f"(../operations.md)), {WINDOW / 1e3:.1f} kB of windows of a session ([performance](../performance.md)). "
            f"{USED:.0%} of every capacity are planned with; a session has a step every {STEP:g} s; "
            f"{CORE_HOUR:g} dollars a core and hour and {TB_MONTH:g} a terabyte and month are assumed, not measured."
        ),
        "",
        f"## For {RATE:,.0f} decisions a second and {SUBJECTS:,.0f} subjects",
        "",
        "| what | |",
        "|---|---|",
        *(f"| {text} | {form.format(found['plan'][name])} |" for name, text, form in _ROWS),
        "",
        "## False alarms over cells",
        "",
        (
            "All p-values are uniform: every trigger is a false alarm. An epoch of a tenant is an epoch in each of "
            "its cells; "
            "99.9 % intervals (Clopper-Pearson). The last worlds do something wrong, and must be seen to be above "
            "alpha."
        ),
        "",
        "| world | epochs | with a false alarm | interval | held to | |",
        "|---|---|---|---|---|---|",
    ]
    held = {"contains": "contains", "at_most": "at most", "above": "above"}
    lines += [
        f"| {row['label']} | {row['n']:,} | {row['rate']:.4f} | {row['low']:.4f} to {row['high']:.4f} | "
        f"{held[row['check']]} {row['bound']:.4f} | {'held' if row['ok'] else '**no**'} |"
        for row in found["guarantee"]
    ]
    lines += [
        "",
        "## What a split costs",
        "",
        (
            f"Share of unsafe sessions (p = u^8) that trigger, of {found['power_sessions']:,} sessions, 64 "
            "reservations an "
            "epoch over all cells. A level is alpha / 64 however many cells there are; what a split loses is that a "
            "rejection raises later levels in its own cell only."
        ),
        "",
        "| cells | " + " | ".join(f"{share:.0%} unsafe" for share in found["power_shares"]) + " |",
        "|---|" + "---|" * len(found["power_shares"]),
        *(
            f"| {row['cells']} | " + " | ".join(f"{value:.3f}" for value in row["power"]) + " |"
            for row in found["power"]
        ),
        "",
        "## How load spreads",
        "",
        (
            "Tenants' sizes fall as rank^-s; each part of a tenant is placed by a hash. Loads are multiples of a mean "
            "cell's."
        ),
        "",
        (
            "| cells | tenants | s | largest tenant, of all traffic | most loaded cell, tenants whole | with large "
            "tenants "
            "split | parts of split tenants | most subjects of a cell | most loaded when a cell is lost | traffic "
            "that moves |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["spread"]:
        lines.append(
            f"| {row['cells']} | {row['tenants']:,} | {row['exponent']:g} | {row['largest']:.3f} | {row['most']:.2f} | "
            f"{row['split']:.2f} | {row['pieces']:,} | {row['subjects']:,.0f} | {row['lost']:.2f} | "
            f"{row['moved']:.4f} |"
        )
    logs = found["logs"]
    lines += [
        "",
        "## One root over all logs",
        "",
        (
            f"{logs['shards']} logs under one root: it takes {logs['upper_root_us'] / 1e3:.1f} ms of CPU to make, "
            "whatever the "
            f"length of the logs; the check of a proof through both trees takes {logs['check_us']:.0f} µs "
            f"({logs['leaves']} leaves in each log here) and a signature."
        ),
    ]
    if images:
        lines += ["", f"![False alarms, power, spread]({images}simulation.svg)"]
    return "\n".join(lines) + "\n"


def plots(found: Mapping[str, Any]) -> dict[str, str]:
    """SVG documents by name."""
    cells = [row["cells"] for row in found["power"]]
    power = Chart(
        title="Unsafe sessions found, by cells of a tenant",
        x="cells",
        y="share that triggers",
        lines=[
            Line(f"{share:.0%} of the sessions unsafe", i, [(row["cells"], row["power"][i]) for row in found["power"]])
            for i, share in enumerate(found["power_shares"])
        ],
        x_range=(1.0, float(max(cells))),
        log_x=True,
    )
    sweep = found["sweep"]
    load = Chart(
        title="Most loaded cell, by the largest part that is placed as one",
        x="part, in mean cells",
        y="most loaded cell, in mean cells",
        lines=[
            Line(f"sizes fall as rank^-{s:g}", 2 + i, [(row["piece"], row["split"]) for row in sweep if row["s"] == s])
            for i, s in enumerate(sorted({row["s"] for row in sweep}))
        ],
        x_range=(min(row["piece"] for row in sweep), max(row["piece"] for row in sweep)),
        y_range=(1.0, max(row["split"] for row in sweep)),
        log_x=True,
    )
    worlds = found["guarantee"]
    alarms = Chart(
        title="False alarms per epoch of a tenant, with 99.9 % intervals",
        x="world, in the order of the table",
        y="epochs with a false alarm",
        lines=[
            *(
                Line(
                    "sound" if row["check"] != "above" else "wrong on purpose",
                    0 if row["check"] != "above" else 4,
                    [(i + 1.0, row["low"]), (i + 1.0, row["high"])],
                )
                for i, row in enumerate(worlds)
            ),
            Line("alpha", 5, [(0.0, 0.05), (len(worlds) + 1.0, 0.05)]),
        ],
        x_range=(0.0, len(worlds) + 1.0),
        y_range=(0.0, max(row["high"] for row in worlds)),
    )
    return {"simulation": document("False alarms, power and load over cells", [alarms, power, load])}
