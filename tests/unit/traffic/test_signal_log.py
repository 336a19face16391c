"""The signal log: whole generations, no names, bounded; what is fitted on it keeps its false-alarm rate."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import betabinom

from sidecar_api.signal_log import PARTS, SignalLog, parts
from sidecar_api.traffic import Line, items_of
from tcd.calibration.log import load
from tcd.calibration.store import default_asset_dir, load_assets
from tests.unit.traffic.kit import STEPS, fitted, generation, record, shim


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "signals"


def rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in parts(log) for line in path.read_text().splitlines()]


async def test_whole_generations_are_kept_without_names(log: Path) -> None:
    secret = "hunter2"
    async with shim(default_asset_dir(), signal_log=log) as served:
        for number in range(3):
            for request in generation(0, number, session=secret, steps=20):
                await served.ask(msgspec.structs.replace(request, tenant=secret, user=secret, token_ids=[7]))
    found = rows(log)
    assert len(found) == 2
    assert secret not in json.dumps(found)
    assert set(found[0]) == {
        *("session", "model_id", "gpu_id", "task", "lang", "complete", "temperature"),
        *("log_prob", "entropy", "spectrum", "features"),
    }
    sent = list(generation(0, 1, steps=20))
    assert np.allclose(found[1]["log_prob"], [r.trace_vector[0] for r in sent], rtol=1e-6)
    sent_features = np.array([r.features for r in sent], np.float32)
    assert np.array_equal(np.array(found[1]["features"], np.float32), sent_features)
    assert found[0]["session"].split(".")[0] == found[1]["session"].split(".")[0]
    (path,) = parts(log)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # what is kept can be fitted on, and replayed to the requests that were sent
    assert [s.complete for s in load(log).sequences] == [True, True]
    again = [item.request for item in items_of(path) if isinstance(item, Line)]
    assert [np.float32(r.trace_vector[0]) for r in again[20:]] == [np.float32(r.trace_vector[0]) for r in sent]


HOW: dict[str, tuple[str, dict[str, Any]]] = {
    "two tokens in a step": ("not one token per step", {"trace_vector": [-1.0, -1.0]}),
    "a signal is gone": ("signals come and go", {"entropy": None}),
    "another temperature": ("cut off", {"context": {"temperature": 0.0}}),
    "whole windows": ("not one token per step", {"window": "full"}),
}


@pytest.mark.parametrize("name", HOW)
async def test_what_is_no_row_of_a_session_log_is_counted_and_left_out(log: Path, name: str) -> None:
    why, change = HOW[name]
    async with shim(default_asset_dir(), signal_log=log) as served:
        for number in range(2):
            for request in generation(0, number, steps=8):
                odd = request.step_id == 5 and number == 0
                await served.ask(msgspec.structs.replace(request, **change) if odd else request)
        await served.generate(0, 2, steps=2)
        signals = served.service.judge.signals
    assert signals is not None
    assert signals.counts == {why: 1, "written": 1}
    assert len(rows(log)) == 1


async def test_a_session_that_was_not_seen_from_its_beginning_is_not_kept(log: Path) -> None:
    async with shim(default_asset_dir(), signal_log=log) as served:
        for request in list(generation(0, 0, steps=8))[3:]:
            await served.ask(request)
        await served.generate(0, 1, steps=8)
        await served.generate(0, 2, steps=2)
    assert len(rows(log)) == 1


async def test_a_share_of_the_subjects_is_kept(log: Path) -> None:
    async with shim(default_asset_dir(), signal_log=log, signal_log_share=0.3, receipts_enable=False) as served:
        for number in range(120):
            for n in (0, 1):
                for request in generation(0, number + n, session=f"s{number}", steps=1):
                    await served.ask(request)
    assert 15 <= len(rows(log)) <= 60


def test_the_log_is_bounded_and_mends_a_torn_line(log: Path) -> None:
    signals = SignalLog(log, most=PARTS * 1000, share=1.0, boot=0)
    line = b"x" * 299 + b"\n"
    for _ in range(5):
        signals._append(line)
    with parts(log)[-1].open("ab") as file:
        file.write(b"torn")
    for _ in range(100):
        signals._append(line)
    files = parts(log)
    assert len(files) == PARTS
    assert sum(path.stat().st_size for path in files) <= PARTS * 1000
    assert all(set(path.read_bytes().splitlines(keepends=True)) == {line} for path in files)


def test_a_disk_that_refuses_loses_rows_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    signals = SignalLog(tmp_path / "file" / "below", most=1 << 20, share=1.0, boot=0)
    signals._write(b"{}\n")
    assert signals.counts == {"the disk refuses": 1}
    assert not os.path.exists(tmp_path / "file" / "below")  # noqa: PTH110 - a path below a file


async def _false_alarms(folder: Path, *, seed: int, fit: int, judged: int) -> tuple[int, int]:
    """Hits at 0.1 among fresh healthy sessions, served under what was fitted on the log of others."""
    await record(folder / "log", default_asset_dir(), fit, seed=seed)
    live = fitted(folder / "log", folder / "live")
    hits = 0
    async with shim(live, receipts_enable=False) as served:
        for number in range(judged):
            answers = await served.generate(seed + 1_000_000, number)
            assert "fallback" not in answers[-1].guarantee
            hits += answers[-1].p_value <= 0.1
    return hits, judged


async def test_a_calibration_fitted_on_the_log_keeps_its_false_alarm_rate(tmp_path: Path) -> None:
    """One set of 90 logged sessions, 120 fresh ones, which share that set's luck: the number of hits is beta-binomial.

    Over seeds as many hits as found come more often than once in 10^4 if P(p <= 0.1) <= 0.1; the long test below has
    many sets.
    """
    hits, n = await _false_alarms(tmp_path, seed=11, fit=90, judged=120)
    detectors = load_assets(tmp_path / "live").detectors.values()
    used = min(len(table.sessions) for detector in detectors for table in detector.masks.values())
    below = int(0.1 * (used + 1))
    assert 30 <= used <= 90
    assert betabinom.sf(hits - 1, n, below, used + 1 - below) > 1e-4, (hits, n, used)
    # and it is no calibration that never finds anything
    assert hits > 0


@pytest.mark.long
async def test_over_many_logs_the_false_alarm_rate_is_as_claimed(tmp_path: Path) -> None:
    """40 logs of 90 sessions, 60 fresh sessions each: marginally P(p <= 0.1) <= 0.1."""
    found = [await _false_alarms(tmp_path / str(i), seed=100 + i, fit=90, judged=60) for i in range(40)]
    hits = np.array([hits for hits, _ in found])
    # sessions of one set share its luck: the interval is over sets
    mean, error = hits.mean() / 60, hits.std(ddof=1) / 60 / np.sqrt(40)
    assert mean - 3.3 * error <= 0.1, (mean, error, hits.tolist())
    assert STEPS == 40
