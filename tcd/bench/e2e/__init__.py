"""`tcd bench e2e`: tokens per second of SmolLM2 with tcd asked at every step, by every way, beside without.

The ways take turns within a round, with the same prompt and seed; the answers are not obeyed, so all of them generate
the same text. Needs `tcd[demo]`, the weights, and a Triton server.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tcd import __version__
from tcd.bench.e2e.ways import DEADLINE, Way, in_process, in_triton
from tcd.bench.ensemble.peers import percentiles, spread
from tcd.client import Client
from tcd.demo.llm import LanguageModel
from tcd.demo.stage import Stage

#: Where a way runs, and what stands there for "without tcd".
PLACES: Final = {"in the process": "without tcd", "in Triton": "without tcd, in Triton"}
PROMPTS: Final = (
    "The history of the city begins with a river.",
    "To repair a bicycle, first look at the wheels.",
    "My grandmother used to tell us a story about the sea.",
    "The committee met on Tuesday to discuss the budget.",
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is run: rounds of all ways, tokens of a generation."""

    rounds: int = 16
    tokens: int = 64

    @classmethod
    def small(cls) -> Scale:
        """Seconds, as CI runs it."""
        return cls(rounds=2, tokens=6)


def run(scale: Scale, *, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Measure everything.

    Raises:
        LauncherError: Triton or the shim does not come up.
        tcd.demo.weights.WeightsMissing: the weights are not installed.
    """
    before = os.getloadavg()[0]
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="tcd-e2e-"))
        stage = stack.enter_context(Stage(Path(place), llm=True))
        client = stack.enter_context(Client(stage.places.shim_url, deadline=DEADLINE))
        ways = [*in_process(LanguageModel.load(), client), *in_triton(stage.places)]
        for way in ways:
            say(f"first tokens: {way.name}")
            way.generate(PROMPTS[0], 2, 0, "first")
        taken: dict[str, list[list[float]]] = {way.name: [] for way in ways}
        texts: dict[str, list[list[int]]] = {way.name: [] for way in ways}
        cpu: dict[str, list[float]] = {way.name: [] for way in ways}
        for turn in range(scale.rounds):
            say(f"round {turn + 1} of {scale.rounds}")
            # the order turns, so that no way always follows the same other one
            for way in ways[turn % len(ways) :] + ways[: turn % len(ways)]:
                began = time.process_time() + stage.cpu_seconds()
                seconds, tokens = _timed(way, PROMPTS[turn % len(PROMPTS)], scale.tokens, turn)
                spent = time.process_time() + stage.cpu_seconds() - began
                cpu[way.name].append(spent / len(tokens))
                taken[way.name].append(seconds)
                texts[way.name].append(tokens)
    return {
        "version": __version__,
        "machine": f"{os.cpu_count()} cores of {platform.machine()}",
        "load": [round(before, 2), round(os.getloadavg()[0], 2)],
        "scale": asdict(scale),
        "same_texts": len({str(value) for value in texts.values()}) == 1,
        "ways": summary({way.name: way.place for way in ways}, taken, cpu),
    }


def _timed(way: Way, prompt: str, tokens: int, turn: int) -> tuple[list[float], list[int]]:
    """Seconds of each token but the first, whose prompt is read too; and the tokens."""
    seconds, found = [], []
    last = time.perf_counter()
    for token in way.generate(prompt, tokens, turn, f"{way.name.replace(' ', '-')}-{turn}"):
        now = time.perf_counter()
        seconds.append(now - last)
        found.append(token)
        last = now
    return seconds[1:], found


def summary(places: dict[str, str], taken: dict[str, list[list[float]]], cpu: dict[str, list[float]]) -> dict[str, Any]:
    """Per way: tokens per second, ms per token, and both beside the way without tcd of the same place and round.

    Args:
        places: place of each way.
        taken: seconds of each token, by way and round.
        cpu: CPU seconds per token of the model's process, Triton and the shim together, by way and round.
    """
    out: dict[str, Any] = {}
    for name, place in places.items():
        rates = [len(seconds) / sum(seconds) for seconds in taken[name]]
        bare = taken[PLACES[place]]
        out[name] = {
            "place": place,
            "tokens_per_second": spread(rates),
            "of_without": spread([r / (len(b) / sum(b)) for r, b in zip(rates, bare, strict=True)]),
            "added_ms": spread(
                [
                    (statistics.median(mine) - statistics.median(other)) * 1e3
                    for mine, other in zip(taken[name], bare, strict=True)
                ]
            ),
            "cpu_of_without": spread([m / max(o, 1e-9) for m, o in zip(cpu[name], cpu[PLACES[place]], strict=True)]),
            "added_cpu_ms": spread([(m - o) * 1e3 for m, o in zip(cpu[name], cpu[PLACES[place]], strict=True)]),
            "ms": percentiles([second * 1e3 for seconds in taken[name] for second in seconds]),
        }
    return out
