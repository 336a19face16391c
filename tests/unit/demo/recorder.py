"""Records with the tiny decoder; as a process (`python recorder.py OUT`) it says each part that is done."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from tcd.demo.llm import LanguageModel
from tcd.demo.recording.generations import record_part
from tcd.demo.recording.plan import make_plan
from tcd.demo.recording.run import record
from tcd.signals.projection import derived
from tests.unit.demo.conftest import tiny_weights

PROMPTS: Final = [("story", "Once there was"), ("code", "def f(x):\n"), ("report", "Minutes of"), ("dialog", "Q: Why")]
CORRUPTIONS: Final = ("noise:0.2", "quant:4", "quantg:3", "kv:1")
REGIMES: Final = {"healthy": 3, "lowtemp": 2, "tempblow": 2, "cooldown": 2, "shift": 2, "corrupt": 8}


def run(out: Path, *, dropped: frozenset[int] = frozenset(), **options: Any) -> bool:
    """Record 19 sequences of 64 tokens into `out`."""
    model = LanguageModel(tiny_weights())
    model.drop(dropped)
    plan = make_plan(PROMPTS, regimes=REGIMES, corruptions=CORRUPTIONS, length=64, batch=2, seed=5)
    settings = {"dropped": sorted(dropped)}
    matrix = derived(model.shape.width)
    made: dict[str, Any] = {"name": "tiny", "settings": settings, "origin": "Random weights."}
    return record(lambda part: record_part(model, part, matrix), plan, out, **made, **options)


if __name__ == "__main__":
    run(Path(sys.argv[1]), tell=lambda line: print(line, flush=True))  # noqa: T201 - read by the test
