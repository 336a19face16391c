"""The receipts' bench at its small scale: what it measures is there, and fits together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tcd.bench.receipts import report
from tcd.bench.receipts.rates import Batches
from tcd.bench.receipts.sample import DECISION


def test_the_small_scale_end_to_end(tmp_path: Path) -> None:
    # in a process of its own: what is measured is collected before each turn, which in that of the tests takes longest
    command = [sys.executable, "-m", "tcd.cli.main", "bench", "receipts", "--small", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "receipts.json").read_text())
    assert (tmp_path / "receipts.md").read_text() == report.markdown(found, images="receipts-")
    rows = found["rates"]["rows"]
    assert all(row["us"] >= row["best_us"] > 0 for row in rows.values())
    assert 2_200 < found["rates"]["body_bytes"] < 2_600 < found["rates"]["full_body_bytes"]
    assert [row["records"] for row in found["memory"]] == [20, 1_100]
    assert [row["size"] for row in found["log"]] == [300, 1_000]
    assert found["log"][-1]["path"] == 10
    # rates, the ratio; growth of memory is of longer chains
    assert len(report.targets(found)) == 6
    assert report.bound(found, 128) > report.bound(found, 8) > 1
    assert ET.fromstring((tmp_path / "receipts-growth.svg").read_text()).tag.endswith("svg")  # noqa: S314 - ours


def _found(us: float, peaks: tuple[float, ...]) -> dict[str, object]:
    names = ["canonical: encode", "issue, Ed25519", "verify, Ed25519", "verify a chain, a record of it"]
    rates = dict(zip(names, (30_000, 12_000, 6_000, 6_000), strict=True)) | {"inclusion, 20 hashes": 50_000}
    rows = {name: {"us": 1.0, "per_second": rate} for name, rate in rates.items()}
    rows["issue, hybrid"] = {"us": us, "per_second": 1}
    rows["hybrid of the batch alone, batch of 128"] = {"us": 10.0, "per_second": 1}
    memory = [{"records": 1_000 * 10**n, "peak_mb": peak} for n, peak in enumerate(peaks)]
    return {"tree": 1 << 20, "rates": {"rows": rows}, "memory": memory}


@pytest.mark.parametrize(("us", "peaks", "held"), [(250.0, (70, 77), [True] * 2), (249.0, (70, 78), [False] * 2)])
def test_targets_are_judged_at_their_boundary(us: float, peaks: tuple[float, ...], held: list[bool]) -> None:
    assert [fine for *_, fine in report.targets(_found(us, peaks))] == [True] * 5 + held


def test_a_batch_without_signatures_of_its_own_has_the_same_leaves() -> None:
    """What is left out is the signing, not the writing, checking, hashing and linking."""
    makers = Batches(DECISION)
    makers.alone(8)
    makers.by_layer(8)
    assert len(makers.tree) == 16
