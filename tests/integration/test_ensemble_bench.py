"""The ensemble's bench against real servers; the load generator is a stand-in that sends one row by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tcd.bench import ensemble
from tcd.bench.ensemble import growth, lengths, report, starts
from tcd.calibration.store import load_assets
from tcd.contract import DETECTOR, DIAGNOSE
from tcd.triton.launcher import TritonServer
from tcd.triton.perf_tool import PerfAnalyzer

_CSV = "Concurrency,Inferences/Second,p50 latency,p99 latency\\n4,1000,200,900\\n"


@pytest.fixture
def tool(tmp_path: Path) -> PerfAnalyzer:
    binary = tmp_path / "perf_analyzer"
    take = 'while [ $# -gt 1 ]; do case "$1" in -f) out=$2;; --input-data) cp "$2" "$(dirname "$0")/data.json";; esac'
    binary.write_text(f'#!/bin/sh\n{take}; shift; done; printf "{_CSV}" > "$out"\n')
    binary.chmod(0o755)
    return PerfAnalyzer(binary, {"PATH": "/usr/bin:/bin"})


@pytest.mark.triton
def test_the_small_scale_end_to_end(tool: PerfAnalyzer, tmp_path: Path) -> None:
    said: list[str] = []
    scale = ensemble.Scale.small()
    found = json.loads(json.dumps(ensemble.run(scale, tool=tool, say=said.append)))
    assert said == ["peers", "latencies", "lengths", "growth", "starts"]
    points = found["peers"]["points"]
    assert len(points) == 5 * len(scale.batches)
    assert all(p["cpu_us_per_row"] is not None for p in points)
    assert {p["model"] for p in points} == {"noop_diagnose", "tcd_diagnose", "noop_fused", "tcd_fused", "tcd_detector"}
    assert all(by["n"] == 96 for by in found["latency"].values())
    assert [p["features"] for p in found["growth"]["features"]] == list(scale.features)
    # torch is not imported where it is not used: by none of the default models
    assert found["starts"]["processes_with_torch"] == []
    assert found["starts"]["ratio"]["median"] > 0
    assert json.loads((tmp_path / "data.json").read_text())["data"][0]["FEATURES"]["shape"]


@pytest.mark.triton
def test_models_that_have_answered_hold_no_torch(triton_server: TritonServer) -> None:
    assert triton_server.check()
    assert triton_server.pid is not None
    assert starts.with_torch(triton_server.pid) == []


def found(ratio: float, mixed: float, start: float, torch: list[str]) -> dict[str, object]:
    def of(value: float) -> dict[str, float]:
        return {"median": value, "low": value, "high": value, "n": 1}

    batches = {"32": of(ratio), "128": of(ratio)}
    return {
        "peers": {
            "ratios": {
                "ensemble over no-op ensemble": batches,
                "ensemble, CPU per row over that at batch 1": {"32": of(ratio / 31)},
            }
        },
        "lengths": {"batches of 32, padded to the bucket": {"ratio": of(mixed)}},
        "starts": {"ratio": of(start), "processes_with_torch": torch},
    }


def test_targets_are_judged_at_their_boundary() -> None:
    assert [ok for *_, ok in report.targets(found(1.15, 1.05, 0.5, []))] == [True] * 6
    assert [ok for *_, ok in report.targets(found(1.31, 1.06, 0.51, ["stub"]))] == [False] * 6
    assert [ok for *_, ok in report.targets(found(1.2, 1.0, 0.4, []))] == [True, False, True, True, True, True]


def test_rows_of_mixed_lengths_share_the_bucket_of_the_equal_ones() -> None:
    widths = {row.widths for n in (lengths.MIXED[0], lengths.EQUAL, lengths.MIXED[1]) for row in lengths.rows([n])}
    assert len(widths) == 1
    assert sum(lengths.MIXED) / 2 == lengths.EQUAL


def test_the_assets_of_the_growth_plot_answer_every_width(tmp_path: Path) -> None:
    growth.write_assets(tmp_path)
    assets = load_assets(tmp_path)
    for width in growth.FEATURES:
        detector, reference = assets.detector(growth.key_of(width))[0], assets.multivariate(growth.key_of(width))[0]
        assert detector is not None
        assert reference is not None
        assert detector.features == reference.features == width
    assert {t.name for t in DETECTOR.inputs} < {t.name for t in DIAGNOSE.inputs}
