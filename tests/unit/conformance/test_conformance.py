"""Golden files pass, any changed number fails, and a malformed file is refused, not passed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tcd.cli.main import app
from tcd.conformance import CHECKERS, Finding, Malformed, check
from tcd.conformance.findings import compare
from tcd.conformance.statistics import arl0

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "statistics"
FILES = ("controller_events.json", "rai.json", "rules.json")


def load(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((VECTORS / name).read_text())
    return data


@pytest.mark.parametrize("name", FILES)
def test_committed_vectors_conform(name: str) -> None:
    report = check(load(name))
    assert not report.failed
    assert sum(finding.compared for finding in report.findings) > 100
    assert all(finding.deviation <= 1e-9 for finding in report.findings if finding.compared)


def test_all_shared_vectors_conform(shared: Path) -> None:
    names = ("online_fdr", "controller_events", "mewma_h", "eprocess_conformal_cov")
    found = {n: check(json.loads((shared / f"vectors/statistics/{n}.json").read_text())) for n in names}
    findings = [f for report in found.values() for f in report.findings]
    assert not [f for f in findings if f.status == "deviates"]
    missing = {f.rule for f in findings if f.status == "not implemented"}
    assert not missing
    assert sum(f.status == "ok" for f in found["online_fdr"].findings) == 16 * 8
    assert sum(f.status == "ok" for f in found["mewma_h"].findings) == 28


def test_disputed_rules_are_said_not_to_be_golden(shared: Path) -> None:
    report = check(json.loads((shared / "vectors/statistics/DISPUTED.json").read_text()))
    assert [f.status for f in report.findings] == ["not compared"]
    assert "not golden" in report.findings[0].note


@pytest.mark.parametrize("kind", ["level", "decision", "state"])
def test_one_changed_number_fails(kind: str) -> None:
    data = copy.deepcopy(load("controller_events.json" if kind == "state" else "rules.json"))
    if kind == "state":
        data["logs"][0]["events"][5]["state"]["e_value"] *= 1 + 1e-8
    else:
        result = next(iter(data["streams"].values()))["results"]["lordpp"]
        if kind == "level":
            result["alpha_t"][-1] *= 1 + 2e-9
        else:
            result["reject"][0] = 1 - result["reject"][0]
    report = check(data)
    assert [f.status for f in report.findings].count("deviates") == 1


def test_a_missing_rule_fails_and_a_foreign_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load("rules.json")
    monkeypatch.setattr("tcd.conformance.online.RULES", ("rai",))
    report = check(data)
    assert report.failed
    assert {f.status for f in report.findings if f.rule.endswith("/addis")} == {"not implemented"}
    monkeypatch.undo()
    stream = next(iter(data["streams"].values()))
    stream["results"] = {"lord3": next(iter(stream["results"].values()))}
    report = check({"streams": {"one": stream}})
    assert [f.status for f in report.findings] == ["not compared"]
    assert not report.failed


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"streams": {}},
        {"logs": []},
        {"streams": {"a": {"alpha": 0.05, "p": [0.1], "E": [], "results": {}}}},
        {"streams": {"a": {"alpha": 0.05, "p": [0.1], "E": [1], "results": {"lordpp": {"alpha_t": [1]}}}}},
        {"streams": {"a": {"alpha": 7, "p": [0.1], "E": [1], "results": {"lordpp": {"alpha_t": [1], "reject": [0]}}}}},
        {"logs": [{"name": "x", "alpha": 0.1, "omega": 0.1, "kappa": 0.5, "events": [{"op": "?"}]}]},
        {"h": [{"p": 2}]},
        {"covariance": {"cases": [{"X": "no"}]}},
        {"calibrators": {"p": [2.0], "power_0.5": [1.0]}},
    ],
)
def test_malformed_files_are_refused(data: Any) -> None:
    with pytest.raises(Malformed):
        check(data)


def test_nan_deviates() -> None:
    assert compare("r", [float("nan"), 0.0]).failed
    assert not Finding("r", "not compared").failed


@pytest.mark.parametrize("change", [0.95, 1.05])
def test_a_wrong_limit_is_outside_two_per_cent(change: float) -> None:
    limit = 8.63358064354408
    assert arl0(2, 0.1, limit) == pytest.approx(200, rel=0.02)
    assert arl0(2, 0.1, limit * change) != pytest.approx(200, rel=0.02)


def test_exit_codes_and_json(tmp_path: Path) -> None:
    runner = CliRunner()
    good = runner.invoke(app, ["conformance", str(VECTORS / "rai.json")])
    assert good.exit_code == 0
    assert "ok" in good.stdout
    data = load("rai.json")
    next(iter(next(iter(data["streams"].values()))["results"].values()))["alpha_t"][0] *= 1.1
    (tmp_path / "bad.json").write_text(json.dumps(data))
    bad = runner.invoke(app, ["conformance", str(tmp_path / "bad.json"), "--json"])
    assert bad.exit_code == 1
    assert json.loads(bad.stdout)[0]["failed"] is True
    (tmp_path / "broken.json").write_text("{")
    broken = runner.invoke(app, ["conformance", str(tmp_path / "broken.json"), str(tmp_path / "absent.json")])
    assert broken.exit_code == 2
    assert "not JSON" in broken.stderr


def test_formats_have_distinct_names() -> None:
    assert len({checker.name for checker in CHECKERS}) == len(CHECKERS)
