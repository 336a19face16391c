"""The report of the measurements: a page in Markdown and its plots. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tcd.bench.detector.lines import Chart, Line, document

_KINDS = ("triton", "shim", "postgres", "haproxy", "callers")


def markdown(found: Mapping[str, Any], *, images: str = "") -> str:
    """The page; `images`: what names of plots begin with, empty = none are shown."""
    machine, failover = found["machine"], found["failover"]
    after = failover["afterwards"]
    lines = [
        "# Scale-out: three of each on one machine",
        "",
        (
            f"`python -m tests.scaleout`: {machine['cores']} cores of {machine['cpu']}, load average "
            f"{machine['load']:.1f} at the end. HAProxy with `docker/haproxy/haproxy.cfg`: the steps of a session go "
            "to one of three shims by a consistent hash, shims go to the least busy of three Tritons. PostgreSQL with "
            "fsync on. Callers run sessions of 20 steps, one after the other, each step with an idempotency key."
        ),
        "",
        "## Faults under load",
        "",
        (
            f"{failover['callers']} callers. Each part is killed with SIGKILL, all of its processes, and started again "
            f"{found['down_s']:g} s later, as a supervisor would. Callers send again what got no answer."
        ),
        "",
        (
            "| killed | back and ready after s | good answers per second before / while down / after | longest time "
            "without one, s | p99 ms before / while down | answers from the kill until it was back | degraded | "
            "refused | sent again | sessions that joined in the middle |"
        ),
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in failover["faults"]:
        before, down = row["before"], row["while_down"]
        lines.append(
            f"| {row['part']} | {row['ready_after_s']:.1f} | {before['per_second']:.0f} / {down['per_second']:.0f} / "
            f"{row['after']['per_second']:.0f} | {row['longest_without_s']:.2f} | {before['p99_ms']:.0f} / "
            f"{down['p99_ms']:.0f} | {row['answered']:,} | {row['degraded']:,} | {row['refused']} | "
            f"{row['tried_again']} | {row['joined']} |"
        )
    if images:
        lines += ["", f"![Good answers per second around each kill]({images}faults.svg)"]
    lines += [
        "",
        "Afterwards, over all of it:",
        "",
        (
            f"* {after['answered']:,} answers with a receipt: each is in the log once, with the bytes that were "
            f"answered; none of {after['decisions']:,} steps was decided twice. {failover['gave_up']} callers gave up."
        ),
        (
            f"* {after['receipts']:,} receipts in {after['chains']:,} chains: each verifies from its first record to "
            "its last."
        ),
        (
            f"* {after['events']:,} events of the controller replay; in {after['epochs']} epochs the costs of all "
            f"shims together are at most {after['most_spent_of_alpha']:.6g} of the epoch's alpha; no reservation was "
            "given or drawn twice."
        ),
        f"* {after['sent_again']} answered requests, sent again to another shim, got the same bytes and added nothing.",
        "",
        "## What a decision costs, by part",
        "",
        (
            "CPU microseconds per decision with its receipt; 64 callers. Two cores carry all parts and the callers: "
            "more parts cannot be faster here, and their batches are smaller."
        ),
        "",
        "| Tritons, shims | per second | p50 / p99 ms | "
        + " | ".join(_KINDS)
        + " | decisions per commit | bytes of the "
        "database / of the write-ahead log / of an answer |",
        "|---|---|---|" + "---|" * (len(_KINDS) + 2),
        *(_row(found[name]) for name in ("single", "whole")),
    ]
    if found.get("slices"):
        more = found["slices"][-1]["per_second"] / found["slices"][0]["per_second"]
        lines += [
            "",
            "## More parts, more decisions",
            "",
            (
                f"Every Triton and every shim gets a slice of {found['slice_cores']:g} cores (cgroup quota), as if "
                f"each had a small machine of its own; {found['slice_callers']} callers for each pair."
            ),
            "",
            "| Tritons, shims | per second | p50 / p99 ms | "
            + " | ".join(_KINDS)
            + " | decisions per commit | bytes of "
            "the database / of the write-ahead log / of an answer |",
            "|---|---|---|" + "---|" * (len(_KINDS) + 2),
            *(_row(row) for row in found["slices"]),
            "",
            f"Three pairs make {more:.2f} times the decisions of one.",
        ]
    return "\n".join(lines) + "\n"


def _row(row: Mapping[str, Any]) -> str:
    cpu = " | ".join(f"{row['cpu_us'][kind]:,.0f}" for kind in _KINDS)
    sizes = f"{row['bytes']['database']:,.0f} / {row['bytes']['wal']:,.0f} / {row['sent_bytes']:,.0f}"
    return (
        f"| {row['tritons']}, {row['shims']} | {row['per_second']:.0f} | {row['p50_ms']:.0f} / {row['p99_ms']:.0f} | "
        f"{cpu} | {row['per_commit']:.2f} | {sizes} |"
    )


def plots(found: Mapping[str, Any]) -> dict[str, str]:
    """SVG documents by name."""
    faults = found["failover"]["faults"]
    most = max(rate for row in faults for _, rate in row["rate"])
    charts = [
        Chart(
            title=f"{row['part']} is killed at 0",
            x="seconds",
            y="good answers per second",
            lines=[Line("good answers per second, in half seconds", 0, [(at, rate) for at, rate in row["rate"]])],
            x_range=(row["rate"][0][0], row["rate"][-1][0]),
            y_range=(0.0, most),
            limit=0.0,
        )
        for row in faults
    ]
    return {"faults": document("Faults under load", charts)}
