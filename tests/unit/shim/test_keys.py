"""A calibration per key and temperature, from a log to the answers of the shim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner

from tcd.calibration import load_assets
from tcd.cli.calibrate import app
from tcd.contract import detector_key
from tcd.scoring import LibraryScorer

STEPS = 24


def write(path: Path, counts: dict[tuple[str, float], int]) -> Path:
    """A log of the requests that a client sent, by task and temperature."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for (task, temperature), count in counts.items():
            for i in range(count):
                for t in range(STEPS):
                    surprise = float((1 + temperature) * rng.exponential())
                    row = {
                        "model_id": "m",
                        "task": task,
                        "session": f"{task}-{temperature}-{i}",
                        "step_id": t,
                        "trace_vector": [-surprise],
                        "context": {"temperature": temperature},
                    }
                    file.write(json.dumps(row) + "\n")
    return path


async def test_from_a_log_of_requests_to_answers_by_key(tmp_path: Path, make_client: Any) -> None:
    log = write(tmp_path / "requests.jsonl", {("chat", 0.5): 40, ("chat", 1.0): 40, ("code", 1.0): 5})
    done = CliRunner().invoke(app, ["fit", "--data", str(log), "--out", str(tmp_path / "assets")])
    assert done.exit_code == 0, done.output
    assert "m/gpu0/code/en/1.00: " in done.stdout
    assets = load_assets(tmp_path / "assets")
    client = make_client(LibraryScorer(assets), assets=assets, alpha=0.9)
    own = {
        temperature: assets.bindings[detector_key("m", "gpu0", "chat", "en", bucket)[0]].detector
        for temperature, bucket in ((0.5, "0.50"), (1.0, "1.00"))
    }
    assert own[0.5] != own[1.0]
    cases = (
        ("chat", 0.5, own[0.5], False),
        ("chat", 1.0, own[1.0], False),
        ("chat", 1.5, assets.bindings[detector_key("m", "gpu0", "chat", "en", "")[1]].detector, True),
        ("code", 1.0, assets.bindings[detector_key("m", "", "", "", "")[2]].detector, True),
    )
    for task, temperature, digest, fallback in cases:
        for t in range(17):
            answer = await client.step(
                model_id="m",
                task=task,
                session=f"{task}{temperature}",
                step_id=t,
                trace_vector=[-1.0],
                context={"temperature": temperature},
            )
        assert answer["calibration"]["detector"] == digest, (task, temperature)
        assert ("fallback" in answer["guarantee"]) is fallback, (task, temperature)
        assert answer["guarantee"].startswith("none (") is fallback, answer["guarantee"]
        assert 0 < answer["p_value"] <= 1
