"""Rules and dashboard: promtool is clean, the dashboard is as built, and nothing names a series that nobody exports."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sidecar_api.app import make_exporter
from tcd.config import load
from tcd.telemetry import dashboard
from tcd.triton.metrics import ModelMetrics

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "docker/prometheus"
#: Series of the original contract; each must be exported.
CONTRACT = (
    "tcd_requests_total",
    "tcd_request_duration_seconds",
    "tcd_stage_duration_seconds",
    "tcd_decisions_total",
    "tcd_detector_score",
    "tcd_p_value",
    "tcd_e_value_log10",
    "tcd_alpha_wealth_ratio",
    "tcd_alpha_spent_total",
    "tcd_av_rejections_total",
    "tcd_budget_exhausted_total",
    "tcd_throttle_total",
    "tcd_slo_violations_total",
    "tcd_receipts_total",
    "tcd_receipt_size_bytes",
    "tcd_verify_failures_total",
    "tcd_chain_gap_total",
    "tcd_degraded_decisions_total",
    "tcd_triton_batch_size",
    "tcd_ledger_commit_duration_seconds",
    "tcd_build_info",
)
#: What Triton itself exports; the live test asks a real one.
TRITON = {"nv_inference_request_duration_us", "nv_inference_request_success"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


def exported() -> set[str]:
    """Names of all series that the shim and the models export, also those that have no sample yet."""
    names: set[str] = set()
    for family in make_exporter(load({}).settings).registry.collect():
        names |= {family.name + suffix for suffix in SUFFIXES[family.type]}
    made: list[tuple[str, str]] = []

    class Family:
        COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

        def __init__(self, name: str, _: str, kind: str) -> None:
            made.append((name, kind))

        def Metric(self, **_: Any) -> None:  # noqa: N802 - Triton's name
            return

    ModelMetrics(SimpleNamespace(MetricFamily=Family), "m")
    for name, kind in made:
        names |= {name + suffix for suffix in (SUFFIXES[kind] if kind == "histogram" else ("",))}
    return names | TRITON


def named(text: str) -> set[str]:
    return set(re.findall(r"\b((?:tcd|nv)_[a-z0-9_]+)\b", text))


def expressions() -> list[str]:
    text = (FOLDER / "rules.yml").read_text()
    return [m[1] for m in re.finditer(r"expr: (.*(?:\n {10,}.*)*)", text)]


def test_the_contract_is_exported() -> None:
    have = exported()
    for name in CONTRACT:
        assert name in have or f"{name}_bucket" in have, name


def test_rules_and_dashboard_name_only_what_is_exported() -> None:
    have = exported()
    rules = expressions()
    assert len(rules) >= 24
    recorded = set(re.findall(r"record: (\S+)", (FOLDER / "rules.yml").read_text()))
    for expression in [*rules, *dashboard.queries()]:
        assert named(expression) <= have, expression
        assert set(re.findall(r"\btcd:[a-z0-9_:]+", expression)) <= recorded, expression


def test_the_check_would_find_a_stranger() -> None:
    assert not named("sum(rate(tcd_nonsense_total[5m]))") <= exported()


def test_the_dashboard_is_as_built_and_does_not_overlap() -> None:
    assert dashboard.main(["--check"]) == 0
    taken: set[tuple[int, int]] = set()
    for panel in dashboard.build()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_no_label_of_a_metric_names_a_subject() -> None:
    labels = {
        label
        for family in make_exporter(load({}).settings).registry.collect()
        for s in family.samples
        for label in s.labels
    }
    assert not labels & {"tenant", "user", "session", "subject", "request_id"}


@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "rules.yml"), ("check", "config", "prometheus.yml"), ("test", "rules", "rules_test.yml")],
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None, "apt-get install prometheus"
    done = subprocess.run([promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    alerts = re.findall(r"alert: (\w+)", (FOLDER / "rules.yml").read_text())
    tested = (FOLDER / "rules_test.yml").read_text()
    assert [a for a in alerts if a not in tested] == []
    assert (FOLDER / "rules.yml").read_text().count("action:") == len(alerts)
