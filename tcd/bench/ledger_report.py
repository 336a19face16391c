"""The ledger's report: what was asked for, what was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

#: What is asked of the ledger and the controller beside it.
RATIO: Final = 25.0
SYNCS: Final = 3.0
LEASED: Final = 100_000
CLIENTS: Final = 64
#: Slowest over fastest request from 10^3 to 10^6 subjects that still counts as flat.
FLAT: Final = 1.5
_NAMES: Final = {"slow": "a sync takes 4 ms, all else is in memory", "here": "the disk of this machine"}


def targets(found: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What, asked, measured, held; of what was run."""
    out: list[tuple[str, str, str, bool]] = []
    for name, disk in _disks(found):
        for run in disk["runs"]:
            if run["clients"] != CLIENTS:
                continue
            ratio, syncs = float(run["ratio"]), float(run["p50_in_syncs"])
            where = f"{CLIENTS} waiting, {_NAMES[name]}"
            out.append((f"{where}: group over single commits", f">= {RATIO:g}", f"{ratio:g}", ratio >= RATIO))
            out.append((f"{where}: p50 in syncs", f"<= {SYNCS:g}", f"{syncs:g}", syncs <= SYNCS))
    leased = int(found["cost"]["per_second"]["reserve+settle from a lease"])
    out.append(("reserve+settle from a lease, per core", f">= {LEASED:,}/s", f"{leased:,}/s", leased >= LEASED))
    if "at_rest" in found["cost"]:
        times = list(found["cost"]["at_rest"]["us_per_request"].values())
        growth = max(times) / min(times)
        what = "slowest over fastest request, 10^3 to 10^6 subjects"
        out.append((what, f"<= {FLAT:g}", f"{growth:.2f}", growth <= FLAT))
    return out


def _disks(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, found[name]) for name in ("slow", "here") if found[name] is not None]


def markdown(found: Mapping[str, Any]) -> str:
    """The report."""
    first = _disks(found)[0][1]
    machine = f"{found['machine']}, load average {found['load']:.1f} at the end"
    # a report that was put together from several runs says so
    note = [found["note"], ""] if found.get("note") else []
    what = f"a receipt of {first['receipt_bytes']:,} bytes, two events and a stored answer of {first['answer_bytes']:,}"
    how = (
        f"A decision is {what} bytes, made before the clock starts. Waiting clients hand in their next decision when"
        " the last one is durable. Single: a commit for each decision, one after the other. Of several turns of sync,"
        " single and group the one with the median ratio is shown. The ratio follows from the sync: where one takes 4"
        " ms, a single commit is little else; a virtual disk that answers some syncs from its cache makes single"
        " commits cheap."
    )
    lines = [
        "# The ledger: what durability costs",
        "",
        f"`tcd bench ledger`, tcd {found['version']}, {machine}.",
        "",
        *note,
        "| what | asked | measured | |",
        "|---|---|---|---|",
        *(f"| {name} | {asked} | {got} | {'held' if ok else 'missed'} |" for name, asked, got, ok in targets(found)),
        "",
        "## Commits",
        "",
        how,
    ]
    for name, disk in _disks(found):
        lines += ["", f"### {_NAMES[name].capitalize()}", "", *_commits(disk)]
    return "\n".join([*lines, "", *_start(found), "", *_cost(found)]) + "\n"


def _commits(disk: Mapping[str, Any]) -> list[str]:
    quantiles = ("p10", "p50", "p90", "p99", "p100")
    out = [
        "| waiting | what | n | per second | " + " | ".join(f"{q} ms" for q in quantiles) + " |",
        "|---" * 9 + "|",
    ]
    for run in disk["runs"]:
        for kind in ("sync", "rows", "group"):
            row = run[kind]
            times = " | ".join(f"{row[f'{q}_ms']:.2f}" for q in quantiles)
            out.append(f"| {run['clients']} | {row['name']} | {row['n']:,} | {row['per_second']:,.0f} | {times} |")
    out += ["", "| waiting | decisions per commit | group over single | p50 in syncs |", "|---|---|---|---|"]
    out += [
        f"| {r['clients']} | {r['decisions_per_commit']:g} | {r['ratio']:g} | {r['p50_in_syncs']:g} |"
        for r in disk["runs"]
    ]
    return out


def _start(found: Mapping[str, Any]) -> list[str]:
    out = [
        "## Start",
        "",
        "A log of sessions of 100 tenants, states saved as the shim saves them. Both starts come to the same bits.",
        "",
        "| events | whole log s (CPU) | saved state s (CPU) | events folded | state | pause ms | writing it out ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["start"]:
        whole, saved = row["whole_log"], row["saved_state"]
        out.append(
            f"| {row['events']:,} | {whole['seconds']:.2f} ({whole['cpu_seconds']:.2f}) "
            f"| {saved['seconds']:.2f} ({saved['cpu_seconds']:.2f}) | {saved['folded']:,} "
            f"| {row['state_bytes'] / 1e6:.1f} MB | {row['pause_ms']:.1f} | {row['encode_ms']:.0f} |"
        )
    return out


def _cost(found: Mapping[str, Any]) -> list[str]:
    cost = found["cost"]
    out = ["## Controller", "", "| what | CPU us | per second and core |", "|---|---|---|"]
    out += [f"| {name} | {us:g} | {cost['per_second'][name]:,} |" for name, us in cost["cpu_us"].items()]
    if "at_rest" in cost:
        rest = cost["at_rest"]
        times = ", ".join(f"{int(n):,}: {us:g} us" for n, us in rest["us_per_request"].items())
        size = f"{rest['rss_bytes_per_subject']:g} bytes of resident memory per subject."
        out += ["", f"CPU of one request of a subject at rest, by number of subjects: {times}. {size}"]
    return out
