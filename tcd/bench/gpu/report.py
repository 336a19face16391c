"""The report of `tcd bench gpu` as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def markdown(found: Mapping[str, Any]) -> str:
    """What was checked and timed."""
    scale, even = found["scale"], found["break_even"]
    lines = ["# What a GPU changes", ""]
    lines += [f"`tcd bench gpu`, tcd {found['version']}, {found['machine']}, {found['device']}.", ""]
    lines += ["| check | held | found |", "|---|---|---|"]
    lines += [f"| {what} | {'yes' if ok else '**no**'} | {detail} |" for what, ok, detail in found["checks"]]
    lines += ["", f"Signals of {scale['vocabulary']} logits and 32 x {scale['width']} hidden states, median ms:", ""]
    ways = [name for name in found["times"][0] if name != "rows"]
    lines += ["| rows | " + " | ".join(ways) + " |", "|" + "---|" * (len(ways) + 1)]
    lines += [f"| {line['rows']:.0f} | " + " | ".join(f"{line[w]:.2f}" for w in ways) + " |" for line in found["times"]]
    lines += ["", _even(even), "", "The detector, windows of 64 tokens, median ms:", ""]
    lines += ["| rows | host | device, windows at rest there |", "|---|---|---|"]
    lines += [f"| {line['rows']:.0f} | {line['host']:.2f} | {line['device']:.2f} |" for line in found["detector_times"]]
    if "server" in found:
        times = ", ".join(f"{ms:.1f} ms at {rows} rows" for rows, ms in found["server"]["ms_per_request"].items())
        lines += ["", f"`tcd_diagnose_raw` over HTTP, tensors from the host: {times}."]
    return "\n".join([*lines, ""])


def _even(even: Mapping[str, Any]) -> str:
    from_host, at_rest = even["rows_from_host"], even["rows_at_rest"]
    host = f"from {from_host} rows on: `TCD_GPU_BREAK_EVEN={even['logits']}`" if from_host else "never, leave it at 0"
    rest = f"from {at_rest} rows on" if at_rest else "never"
    return f"The device is faster for tensors from the host {host}; for those that are there already {rest}."
