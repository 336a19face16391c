"""Records the demo's default scenarios for `tcd.demo.replay`: the signals of every step, no logits, no hidden states.

Run as `python -m tcd.demo.record` where the weights are installed; the file it writes is package data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcd import signals
from tcd.calibration.assets import AssetSet
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.contract import SPECTRUM_RANK
from tcd.demo.generate import generate
from tcd.demo.llm import LanguageModel
from tcd.demo.records import Answer, Route
from tcd.demo.replay import RECORDING
from tcd.demo.scenarios import TITLES, Scenario, scenario
from tcd.demo.watch import Seen, Tensors, newest

_COLUMNS: Final = ("lp", "entropy", "spectrum", "features", "token", "temperature", "asked")


class Recorder:
    """A watcher that keeps the signals of every step and always answers that all is well."""

    def __init__(self, assets: AssetSet) -> None:
        """Record with the projection of `assets`."""
        self._assets = assets
        self._windows: Tensors = dict(signals.start(1))
        self.steps: list[dict[str, Any]] = []

    def observe(self, seen: Seen) -> Answer:
        """Keep one step."""
        token = np.array([seen.token], np.int32)
        made = signals.raw_step(seen.logits[None], token, seen.hidden[None], self._windows, self._assets)
        self._windows = {n.replace("NEXT", "PREV"): a for n, a in made.items() if n.startswith("NEXT")}
        self.steps.append(newest(made))
        route = Route(seen.base.temperature, seen.base.top_p, seen.left)
        return Answer(score=0.0, p_value=1.0, tier=0, verdict=False, route=route)

    def close(self) -> None:
        """Nothing is held."""


def record(model: LanguageModel, assets: AssetSet, chosen: Scenario) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and texts of one scenario whose route is ignored."""
    recorder = Recorder(assets)
    params = chosen.run(via="none", obey=False, session="record")
    tokens = list(generate(model, chosen.prompt, params, recorder))
    spectrum = np.zeros((len(tokens), SPECTRUM_RANK), np.float32)
    for row, step in zip(spectrum, recorder.steps, strict=True):
        row[: len(step["spectrum"])] = step["spectrum"]
    columns = {
        "lp": np.array([s["trace_vector"][0] for s in recorder.steps], np.float32),
        "entropy": np.array([s["entropy"] for s in recorder.steps], np.float32),
        "spectrum": spectrum,
        "features": np.array([s["features"] for s in recorder.steps], np.float32),
        "token": np.array([t.token for t in tokens], np.int32),
        "temperature": np.array([t.temperature for t in tokens], np.float32),
        "asked": np.array([t.asked for t in tokens], np.float32),
    }
    assert tuple(columns) == _COLUMNS  # noqa: S101 - replay reads these
    return columns, {"prompt": chosen.prompt, "texts": [t.text for t in tokens], "top_p": params.top_p}


def main(path: Path = RECORDING) -> None:
    """Record the three default scenarios into `path`."""
    model = LanguageModel.load()
    assets = load_assets(default_asset_dir())
    arrays: dict[str, NDArray[Any]] = {}
    texts = {}
    for kind in TITLES:
        columns, texts[kind] = record(model, assets, scenario(kind))
        arrays |= {f"{kind}_{name}": column for name, column in columns.items()}
    arrays["meta"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    main()
