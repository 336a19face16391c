"""The parts of `docs/performance.md` that are made from reports: `python -m tcd.bench.page [--check]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from tcd.bench import shim, shim_report
from tcd.bench.ensemble import report as ensemble

ROOT: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = ROOT / "performance.md"
REPORTS: Final = ROOT / "reports"
_BEGIN: Final = "<!-- made from reports/{name}.json by python -m tcd.bench.page -->"
_END: Final = "<!-- end of {name} -->"


def _ensemble(found: dict[str, Any]) -> list[str]:
    ratios, batches = found["peers"]["ratios"], [str(b) for b in found["scale"]["batches"]]
    load = " to ".join(f"{value:.1f}" for value in found["load"])
    lines = [f"{found['machine']}, load {load}, {found['scale']['rounds']} rounds; median (lowest to highest).", ""]
    lines += shim_report.table(ensemble.targets(found))
    lines += ["", "| CPU per row, by client batch | " + " | ".join(batches) + " |", "|" + "---|" * (len(batches) + 1)]
    for name, by in ratios.items():
        cells = [f"{by[b]['median']:.3g} ({by[b]['low']:.3g} to {by[b]['high']:.3g})" for b in batches]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _e2e(found: dict[str, Any]) -> list[str]:
    load, scale = " to ".join(f"{value:.1f}" for value in found["load"]), found["scale"]
    lines = [f"{found['machine']}, load {load}, {scale['rounds']} rounds of {scale['tokens']} tokens.", ""]
    lines += [
        "| way | tokens/s | of without tcd | added ms per token | added CPU ms per token |",
        "|---|---|---|---|---|",
    ]
    for name, way in found["ways"].items():
        rate, share, added, cpu = (way[k] for k in ("tokens_per_second", "of_without", "added_ms", "added_cpu_ms"))
        lines.append(
            f"| {name} | {rate['median']:.1f} | {share['median']:.3f} ({share['low']:.3f} to {share['high']:.3f}) "
            f"| {added['median']:.2f} ({added['low']:.2f} to {added['high']:.2f}) "
            f"| {cpu['median']:.2f} ({cpu['low']:.2f} to {cpu['high']:.2f}) |"
        )
    return lines


def _shim(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['machine']}, load {found['load']:.1f} at the end.", "", *shim_report.table(found["targets"])]
    at = [row for row in found["summary"] if row["concurrency"] == shim_report.CONNECTIONS]
    lines += ["", f"At {shim_report.CONNECTIONS} connections, medians over the rounds:", "", shim.markdown(at)]
    return lines


def _growth(found: dict[str, Any]) -> list[str]:
    lines = [f"{found['machine']}, load {found['load']:.1f} at the end.", ""]
    lines += [
        "| | CPU among so many live subjects, us | memory per subject, bytes | CPU on a log of so many receipts, us |",
        "|---|---|---|---|",
    ]
    subjects = {row["subjects"]: row for row in found["subjects"]}
    for row in found["log"]:
        live = subjects.get(row["receipts"])
        among = "| |" if live is None else f"{live['us_per_request']:.0f} | {live['bytes_per_subject']:,} |"
        lines.append(f"| {row['receipts']:,} | {among} {row['us_per_request']:.0f} |")
    return lines


_PARTS: Final = {"ensemble": _ensemble, "e2e": _e2e, "shim": _shim, "growth": _growth}


def made(text: str, reports: Path) -> str:
    """The page with its made parts as the reports have them."""
    for name, render in _PARTS.items():
        begin, end = _BEGIN.format(name=name), _END.format(name=name)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        found = json.loads((reports / f"{name}.json").read_text())
        text = "\n".join([before + begin, *render(found), end + after])
    return text


def main(arguments: list[str]) -> int:
    """Write the page, or with `--check` say whether it is what the reports make it (exit code 1: it is not)."""
    wanted = made(PAGE.read_text(), REPORTS)
    if arguments == ["--check"]:
        return 0 if PAGE.read_text() == wanted else 1
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
