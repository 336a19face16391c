"""The report of `tcd bench e2e` as Markdown, and its plot. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tcd.bench.detector.lines import Chart, Line, document

_HOW: Final = """\
SmolLM2-135M-Instruct in FP32 on one core, one generation at a time, tcd asked at every token and never obeyed, so that
all ways generate the same text. Ways take turns in every round; ratios and added times are made within a round against
the model without tcd in the same place. The first token, which reads the prompt, is left out. The model in Triton works
out the sampled token's log-probability for its own records in every way, also without tcd. Library: signals and scoring
in the model's process. HTTP: signals in the model's process, a decision with a signed receipt from a shim (ledger in
memory) at every token. CPU is that of the model's process, Triton and the shim together, reading the prompt included;
unlike the times it says the same on a busy machine."""


def _spread(spread: Mapping[str, Any], digits: int) -> str:
    return f"{spread['median']:.{digits}f} ({spread['low']:.{digits}f} to {spread['high']:.{digits}f})"


def markdown(found: Mapping[str, Any], *, images: str = "") -> str:
    """The report.

    Args:
        found: what `tcd.bench.e2e.run` answered.
        images: start of the plot's file name; empty leaves it out.
    """
    load = " to ".join(f"{value:.1f}" for value in found["load"])
    scale = found["scale"]
    lines = ["# What an LLM sees of tcd", ""]
    lines += [f"`tcd bench e2e`, tcd {found['version']}, {found['machine']}, load {load}."]
    lines += [f"{scale['rounds']} rounds of {scale['tokens']} tokens; the texts were {_same(found)}.", "", _HOW, ""]
    head = ("way", "tokens/s", "of without tcd", "added ms per token", "CPU of without", "added CPU ms per token")
    lines += ["| " + " | ".join((*head, "p50", "p99", "p99.9", "tokens")) + " |", "|" + "---|" * 10]
    for name, way in found["ways"].items():
        ms = way["ms"]
        cells = [
            name,
            _spread(way["tokens_per_second"], 1),
            _spread(way["of_without"], 3),
            _spread(way["added_ms"], 2),
            _spread(way["cpu_of_without"], 3),
            _spread(way["added_cpu_ms"], 2),
            *(f"{ms[p]:.1f}" for p in ("p50", "p99", "p99.9")),
            str(ms["n"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Medians over rounds (lowest to highest); p50 to p99.9 are ms per token over all rounds.", ""]
    if images:
        lines += [f"![time per token]({images}tokens.svg)", ""]
    return "\n".join(lines)


def _same(found: Mapping[str, Any]) -> str:
    return "the same by every way" if found["same_texts"] else "**not** the same"


def plot(found: Mapping[str, Any]) -> str:
    """Distribution of the time per token, an SVG document."""
    charts = []
    values = [ms for way in found["ways"].values() for _, ms in way["ms"]["curve"]]
    for place in dict.fromkeys(way["place"] for way in found["ways"].values()):
        mine = {name: way["ms"]["curve"] for name, way in found["ways"].items() if way["place"] == place}
        charts.append(
            Chart(
                title=f"the model {place}",
                x="ms per token",
                y="share of tokens, %",
                lines=[Line(name, style, _turned(curve)) for style, (name, curve) in enumerate(mine.items())],
                x_range=(min(values) / 1.1, max(values) * 1.1),
                y_range=(0.0, 100.0),
                log_x=True,
            )
        )
    return document("Time per token of SmolLM2, by the way to tcd", charts)


def _turned(curve: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    return [(ms, share) for share, ms in curve]
