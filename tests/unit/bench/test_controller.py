"""The controller's experiments at a small scale, and that they can fail."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tcd.bench.controller import alarm, arrays, metamorphic, null, report, suite, supfdr
from tcd.bench.controller.rate import Rate, clopper_pearson
from tcd.cli.bench import app
from tcd.risk_av import RULES, Controller, RuleName, Settled
from tcd.risk_av.stream import Stream


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report")
    done = CliRunner().invoke(app, ["controller", "--small", "--out", str(path)])
    assert done.exit_code == 0, done.output
    return path


def test_the_command_runs_everything_and_writes_its_report(written: Path) -> None:
    found = json.loads((written / "controller.json").read_text())
    assert found["ok"]
    rates = found["rates"]
    assert {row["experiment"] for row in rates} == set(report.TITLES)
    assert all(row["n"] >= 10 and row["low"] <= row["rate"] <= row["high"] for row in rates)
    assert any(row["label"].startswith("shim, 64 at once") for row in rates)
    assert sum(row["check"] == "above" for row in rates) >= 5
    assert set(found["online_fdr"]) == {"LordPlusPlus", "Saffron", "Addis"}
    page = (written / "controller.md").read_text()
    assert "FAILED" not in page
    assert "**NO**" not in page
    for name in report.TITLES:
        drawing = (written / f"controller-{name}.svg").read_text()
        assert drawing.startswith("<svg ")
        assert drawing.count("<circle") == sum(row["experiment"] == name for row in rates)


def test_a_result_that_is_not_what_it_is_held_to_is_seen(written: Path) -> None:
    def of(hits: int, check: str) -> Rate:
        return Rate.of_hits("null", "x", hits, 1000, bound=0.05, check=check)

    assert [of(50, "contains").ok, of(150, "contains").ok, of(5, "contains").ok] == [True, False, False]
    assert [of(50, "at_most").ok, of(5, "at_most").ok, of(150, "at_most").ok] == [True, True, False]
    assert [of(150, "above").ok, of(50, "above").ok] == [True, False]
    assert clopper_pearson(0, 10)[0] == 0.0
    assert clopper_pearson(10, 10)[1] == 1.0
    found = json.loads((written / "controller.json").read_text())
    assert "FAILED" in report.markdown({**found, "rates": [of(150, "at_most").to_json()], "ok": False})


@pytest.mark.parametrize("length", [10, 200])
def test_the_numpy_rule_is_the_controllers_bit_for_bit(length: int) -> None:
    assert null.equal_to_the_controller(20, length, seed=length)


@pytest.mark.parametrize("concurrency", [1, 8, 64])
def test_the_numpy_e_process_is_the_controllers_whatever_settles_first(concurrency: int) -> None:
    assert alarm.equal_to_the_controller(8, 150, concurrency, seed=concurrency)


def test_the_omega_schedule_in_numpy_is_the_rules() -> None:
    p = np.random.default_rng(3).random((10, 100)) ** 4
    levels, _ = arrays.rai(p, alpha=0.05, omega=0.02)
    from tcd.risk_av import ControllerParams  # noqa: PLC0415

    for row, expected in zip(p.tolist(), levels.tolist(), strict=True):
        controller = Controller(ControllerParams(schedule=("omega", 0.02), epoch_roll="manual"))
        got = []
        for t, value in enumerate(row):
            got.append(controller.reserve(stream="s", hypothesis=str(t)).alpha)
            controller.settle(stream="s", hypothesis=str(t), p=value, trigger=value <= got[-1])
        assert got == expected


def test_fastest_first_keeps_at_most_so_many_open() -> None:
    p = np.array([[0.5, 0.1, 0.9, 0.3]])
    assert arrays.fastest_first(p, 1).tolist() == [[0.5, 0.1, 0.9, 0.3]]
    assert arrays.fastest_first(p, 2).tolist() == [[0.1, 0.5, 0.3, 0.9]]
    assert arrays.fastest_first(p, 4).tolist() == [[0.1, 0.3, 0.5, 0.9]]


def test_sup_fdp() -> None:
    rejected = np.array([[True, True, True], [False, True, False]])
    signal = np.array([[True, False, True], [False, True, False]])
    assert arrays.sup_fdp(rejected, signal).tolist() == [0.5, 0.0]


def test_online_fdr_decides_the_same() -> None:
    found = supfdr.agreement(3, 300, seed=5)
    assert {name: other for name, (_, other) in found.items()} == {"LordPlusPlus": 0, "Saffron": 0, "Addis": 0}


@pytest.mark.parametrize("relation", metamorphic.RELATIONS)
@pytest.mark.parametrize("rule", RULES)
def test_relations_hold_for_every_rule(rule: RuleName, relation: str) -> None:
    assert metamorphic.violations(rule, relation, histories=25, seed=31) == 0


@pytest.mark.parametrize(
    "relation", ["a_second_trigger_credits_nothing", "epochs_are_apart", "budget_holds", "a_kill_loses_nothing"]
)
def test_relations_catch_a_controller_that_breaks_them(relation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Stream.apply_settle

    def credits_every_settlement(self: Stream, event: Settled) -> bool:
        credited = honest(self, event)
        if event.p <= self.live[event.hypothesis].level.alpha and self.epoch is not None:
            self.epoch.rule.rejected(self.epoch.rule.index)
        return credited

    def forgets_what_was_spent(self: Stream, event: Settled) -> bool:
        credited = honest(self, event)
        if self.epoch is not None and self.epoch.rule.index:
            self.epoch.rule.spent = 0.0  # type: ignore[misc]
        return credited

    class Unlogged(Controller):
        def settle(self, **values: object) -> object:  # type: ignore[override]
            settled = super().settle(**values)  # type: ignore[arg-type]
            self._pending.pop()
            return settled

    if relation == "a_kill_loses_nothing":
        monkeypatch.setattr(metamorphic, "Controller", Unlogged)
    else:
        broken = forgets_what_was_spent if relation == "budget_holds" else credits_every_settlement
        monkeypatch.setattr(Stream, "apply_settle", broken)
    assert metamorphic.violations("rai", relation, histories=40, seed=32) > 0


@pytest.mark.long
def test_the_whole_suite() -> None:
    """About ten minutes: 10^6 x 200 and 10^5 x 1000 null streams, 2*10^4 streams elsewhere, 10^6 subjects."""
    found = suite.run(suite.Scale())
    assert found["ok"], report.markdown(found)
    assert found["cost"]["at_rest"]["rss_bytes_per_subject"] <= 256
