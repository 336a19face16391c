"""The GPU's bench on torch's CPU device: the same code but for the server's part, which needs a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tcd.bench import gpu
from tcd.bench.gpu import agreement, served, times
from tcd.bench.gpu.report import markdown
from tcd.cli.main import app
from tcd.signals.device import eigenvalues, to_device


def test_the_small_scale_on_the_cpu(tmp_path: Path) -> None:
    arguments = ["bench", "gpu", "--device", "cpu", "--small", "--no-server", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert (tmp_path / "gpu.md").read_text() == markdown(found)
    assert found["device"] == "torch's cpu device, no GPU"
    assert len(found["checks"]) == len(agreement.DECISIONS) + 5
    assert all(ok for _, ok, _ in found["checks"])
    assert [line["rows"] for line in found["times"]] == [1, 4]


def test_without_a_gpu_it_says_so_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(app, ["bench", "gpu"])
    assert done.exit_code == 1
    assert "no GPU" in done.output
    assert "remedy" in done.output


def test_a_device_that_decides_otherwise_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "to_device", lambda array, device: to_device(array * np.float32(1.5), device))
    found = agreement.walk("cpu", 8, 24, 500, 64)
    held = {what: ok for what, ok, _ in agreement.checks(found)}
    assert not held["running maxima as on the host"]


def test_a_row_whose_bits_hang_on_its_neighbours_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def dependent(hidden: Any, matrix: Any, *, solve_there: bool = False) -> Any:
        return np.full((len(hidden), 2), len(hidden)), np.zeros((len(hidden), 2))

    monkeypatch.setattr(agreement, "hidden_signals", dependent)
    assert [ok for _, ok, _ in agreement.invariance("cpu", 300, 32)] == [True, False, False]


@pytest.mark.parametrize(
    ("moved", "rows"), [([1.0, 1.0, 1.0], 1), ([3.0, 1.0, 1.0], 8), ([3.0, 3.0, 3.0], 0), ([1.0, 3.0, 1.0], 64)]
)
def test_break_even_is_where_the_device_stays_faster(moved: list[float], rows: int) -> None:
    lines = [
        {"rows": r, "host": 2.0, "device, from the host": ms, "device, at rest there": 1.0}
        for r, ms in zip((1.0, 8.0, 64.0), moved, strict=True)
    ]
    found = times.break_even(lines, 1000)
    assert found == {"rows_from_host": rows, "rows_at_rest": 1, "logits": rows * 1000}


def test_the_servers_checks_see_a_cpu_a_wrong_answer_and_a_small_pool() -> None:
    good = {"kinds": {"tcd_signals": "KIND_GPU"}, "differ": 0, "rows": 9, "pool_errors": []}
    assert [ok for _, ok, _ in served.checks(good)] == [True, True, True]
    bad = {"kinds": {"tcd_signals": "KIND_CPU"}, "differ": 1, "rows": 9, "pool_errors": ["failed to copy data"]}
    assert [ok for _, ok, _ in served.checks(bad)] == [False, False, False]


@pytest.mark.parametrize("rows", [1, 5])
def test_batched_eigenvalues_are_those_of_each_matrix(rows: int) -> None:
    tables = np.random.default_rng(rows).normal(size=(rows, 6, 9))
    gram = tables @ tables.transpose(0, 2, 1)
    found = eigenvalues(torch.from_numpy(gram)).numpy()
    np.testing.assert_allclose(found, np.linalg.eigvalsh(gram), rtol=1e-12)


def test_full_scale_is_a_real_models() -> None:
    assert (gpu.Scale().vocabulary, gpu.Scale().width) == (49_152, 576)
