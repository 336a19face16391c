"""The Grafana dashboard, built from code: `python -m tcd.telemetry.dashboard` writes docker/grafana/tcd.json."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tcd.kept import keep

PATH: Final = Path(__file__).resolve().parents[2] / "docker" / "grafana" / "tcd.json"
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3
_SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
_WINDOW: Final = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """A graph: title, unit of Grafana, what it tells, and (query, legend) pairs."""

    title: str
    unit: str
    about: str
    queries: tuple[tuple[str, str], ...]


def _rate(metric: str, by: str = "", match: str = "") -> str:
    sums = f"sum by ({by})" if by else "sum"
    return f"{sums} (rate({metric}{match}{_WINDOW}))"


def _rare(metric: str, by: str) -> str:
    """A rate of something that may never have happened: 0 then."""
    return f"{_rate(metric, by)} or vector(0)"


def _quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    group = f"le, {by}" if by else "le"
    legend = f" {{{{{by}}}}}" if by else ""
    return tuple(
        (f"histogram_quantile({q}, sum by ({group}) (rate({metric}_bucket{_WINDOW})))", f"p{round(q * 100)}{legend}")
        for q in (0.5, 0.99)
    )


_MEAN: Final = (
    f"sum by (model) (rate(nv_inference_request_duration_us{_WINDOW})) / 1e6"
    f" / sum by (model) (rate(nv_inference_request_success{_WINDOW}))"
)

ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "Decisions",
        (
            Panel(
                "Decisions",
                "ops",
                "By the action that the policy asks for and the one that the mode enforces.",
                ((_rate("tcd_decisions_total", "action, enforced"), "{{action}} / {{enforced}}"),),
            ),
            Panel(
                "Degraded decisions",
                "ops",
                "Decided by the failure policy, by what was away. Should be zero.",
                ((_rare("tcd_degraded_decisions_total", "reason"), "{{reason}}"),),
            ),
            Panel(
                "Error budget burn",
                "percentunit",
                "Degraded and slow shares; the objectives are 0.1 % and 1 %.",
                (("tcd:degraded:ratio_rate5m", "degraded"), ("tcd:slow:ratio_rate5m", "slow")),
            ),
        ),
    ),
    (
        "Evidence and budget",
        (
            Panel("Score", "none", "1 - p of the steps.", _quantiles("tcd_detector_score")),
            Panel(
                "p-values",
                "none",
                "p of the hypotheses; benign traffic keeps the median high.",
                _quantiles("tcd_p_value"),
            ),
            Panel(
                "Budget",
                "percentunit",
                "Share of the epoch's budget that is left at each decision, and budget debited per second.",
                (*_quantiles("tcd_alpha_wealth_ratio"), (_rate("tcd_alpha_spent_total"), "spent per second")),
            ),
            Panel(
                "Rejections",
                "ops",
                "Generations rejected, and steps that had no budget.",
                (
                    (_rate("tcd_av_rejections_total", "policy"), "rejected {{policy}}"),
                    (_rate("tcd_budget_exhausted_total", "policy"), "exhausted {{policy}}"),
                ),
            ),
            Panel("Evidence", "none", "log10 of the e-values.", _quantiles("tcd_e_value_log10")),
            Panel("Sessions", "short", "Generations with windows in memory.", (("tcd_sessions_live", "live"),)),
        ),
    ),
    (
        "Latency",
        (
            Panel("Answers", "s", "By surface.", _quantiles("tcd_request_duration_seconds", "surface")),
            Panel("Stages", "s", "Where the time goes.", _quantiles("tcd_stage_duration_seconds", "stage")),
            Panel(
                "Slow answers",
                "ops",
                "Slower than TCD_SLO_MS.",
                ((_rate("tcd_slo_violations_total", "slo"), "{{slo}}"),),
            ),
        ),
    ),
    (
        "Traffic",
        (
            Panel(
                "Requests",
                "reqps",
                "By surface and outcome (ok or the code of a problem).",
                ((_rate("tcd_requests_total", "surface, outcome"), "{{surface}} {{outcome}}"),),
            ),
            Panel(
                "Refused by limits",
                "ops",
                "By limit: subject, edge, in flight, the queue before Triton.",
                ((_rare("tcd_throttle_total", "zone"), "{{zone}}"),),
            ),
            Panel(
                "Build",
                "none",
                "Versions and settings in use; two rows in a roll-out.",
                (("sum by (version, config_hash) (tcd_build_info)", "{{version}} {{config_hash}}"),),
            ),
        ),
    ),
    (
        "Receipts",
        (
            Panel(
                "Receipts",
                "ops",
                "Issued, failed or disabled.",
                ((_rate("tcd_receipts_total", "result"), "{{result}}"),),
            ),
            Panel("Size", "bytes", "Of receipt bodies.", _quantiles("tcd_receipt_size_bytes")),
            Panel(
                "Commits", "s", "Time until a decision is durable.", _quantiles("tcd_ledger_commit_duration_seconds")
            ),
            Panel(
                "Failed verifications",
                "ops",
                "By the code of the first check that failed.",
                ((_rare("tcd_verify_failures_total", "code"), "{{code}}"),),
            ),
            Panel(
                "Cut chains",
                "ops",
                "Chains of receipts cut by a lost commit, and log lines dropped.",
                ((_rate("tcd_chain_gap_total"), "cut"), (_rate("tcd_log_lines_dropped_total"), "log lines")),
            ),
            Panel(
                "Not in the log yet",
                "short",
                "Receipts that no checkpoint covers.",
                (("tcd_log_pending", "{{instance}}"),),
            ),
            Panel(
                "Age of the checkpoint",
                "s",
                "Of the newest one. It grows where nothing is written, too.",
                (("time() - tcd_log_checkpoint_timestamp_seconds", "{{instance}}"),),
            ),
            Panel(
                "Witnesses",
                "ops",
                "Cosigned or failed.",
                ((_rare("tcd_log_cosignatures_total", "witness, result"), "{{witness}} {{result}}"),),
            ),
        ),
    ),
    (
        "Triton",
        (
            Panel("Rows per call", "short", "Of the micro-batcher.", _quantiles("tcd_triton_batch_size")),
            Panel("Calls", "ops", "Of the ensemble.", ((_rate("tcd_triton_calls_total", "outcome"), "{{outcome}}"),)),
            Panel("Queue", "short", "Rows that wait for a call.", (("tcd_triton_queue_depth", "rows"),)),
            Panel(
                "Rows by model",
                "ops",
                "As the models count them, canaries included.",
                ((_rate("tcd_model_rows_total", "model"), "{{model}}"),),
            ),
            Panel(
                "Model failures",
                "ops",
                "Rows or asset reloads that failed.",
                ((_rare("tcd_model_failures_total", "model"), "{{model}}"),),
            ),
            Panel(
                "Inference time",
                "s",
                "Mean per request and model, as Triton measures it.",
                (
                    (
                        _MEAN,
                        "{{model}}",
                    ),
                ),
            ),
        ),
    ),
)


def queries() -> list[str]:
    """Every query of the dashboard."""
    return [query for _, panels in ROWS for panel in panels for query, _ in panel.queries]


def build() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}, "panels": []})
        y += 1
        for index, panel in enumerate(row):
            panels.append(_panel(panel, x=index % _COLUMNS * _WIDTH, y=y + index // _COLUMNS * _HEIGHT))
        y += -(-len(row) // _COLUMNS) * _HEIGHT
    for number, made in enumerate(panels, 1):
        made["id"] = number
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": "tcd",
        "title": "tcd",
        "tags": ["tcd", "llm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def _panel(panel: Panel, *, x: int, y: int) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": None}, "overrides": []},
        "targets": [
            {"refId": chr(65 + i), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for i, (query, legend) in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """The file's content."""
    return json.dumps(build(), indent=1, ensure_ascii=True) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` say whether it is as built."""
    return keep("tcd.telemetry.dashboard", {PATH: text}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
