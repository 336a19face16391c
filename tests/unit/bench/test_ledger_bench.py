"""The ledger's bench at its small scale: what it measures is there, and fits together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tcd.bench import ledger, ledger_report
from tcd.cli.main import app


def test_the_small_scale_end_to_end(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["bench", "ledger", "--small", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "ledger.json").read_text())
    assert (tmp_path / "ledger.md").read_text() == ledger_report.markdown(found)
    assert found["slow"] is not None, "no strace"
    for disk in (found["slow"], found["here"]):
        assert [run["clients"] for run in disk["runs"]] == [1, 64]
        one, many = disk["runs"]
        assert one["decisions_per_commit"] == 1.0
        assert 1.0 < many["decisions_per_commit"] <= 64.0
        assert many["group"]["n"] == 64 * 6
    assert found["slow"]["runs"][0]["sync"]["p10_ms"] >= ledger.SLOW_MS
    small, large = found["start"]
    assert small["saved_state"]["folded"] == small["events"], "no state was due yet"
    assert large["saved_state"]["folded"] < large["whole_log"]["folded"] == large["events"]
    # twice two at 64 waiting, and the lease; growth is of the whole scale
    assert len(ledger_report.targets(found)) == 5


@pytest.mark.parametrize(("ratio", "syncs", "held"), [(25.0, 3.0, [True, True]), (24.9, 3.1, [False, False])])
def test_targets_are_judged_at_their_boundary(ratio: float, syncs: float, held: list[bool]) -> None:
    disk = {"runs": [{"clients": 64, "ratio": ratio, "p50_in_syncs": syncs}]}
    at_rest = {"us_per_request": {"1000": 2.0, "1000000": 3.1}}
    found = {
        "slow": disk,
        "here": None,
        "cost": {"per_second": {"reserve+settle from a lease": 100_000}, "at_rest": at_rest},
    }
    assert [fine for *_, fine in ledger_report.targets(found)] == [*held, True, False]
