"""The dashboard and its provisioning, read by the types that Grafana generates from its own schemas.

Grafana itself has no package that can be had here, so it is not run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

pytest.importorskip("grafana_foundation_sdk", reason="grafana: its package needs Python 3.11")

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.conftest import ROOT

GRAFANA = ROOT / "docker" / "grafana"
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]["grafana"]


def lost(given: Any, read: Any, place: str = "") -> Iterator[str]:
    """Places of what was given and did not come back; what is null says nothing."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            yield from lost(value, read.get(key), f"{place}/{key}")
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for number, (value, back) in enumerate(zip(given, read, strict=True)):
            yield from lost(value, back, f"{place}/{number}")
    elif given != read:
        yield place


def read(text: str) -> Any:
    """What is left of a dashboard after Grafana's types have read it."""
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(json.loads(text)), cls=JSONEncoder))


def test_grafana_reads_every_member_of_the_dashboard() -> None:
    text = (GRAFANA / "tcd.json").read_text()
    given = json.loads(text)
    assert list(lost(given, read(text))) == []
    # it is seen where one is not what Grafana knows
    given["panels"][1]["fieldConfig"]["defaults"]["units"] = given["panels"][1]["fieldConfig"]["defaults"].pop("unit")
    given["panels"][2]["targets"][0]["expression"] = given["panels"][2]["targets"][0].pop("expr")
    assert list(lost(given, read(json.dumps(given)))) == [
        "/panels/1/fieldConfig/defaults/units",
        "/panels/2/targets/0/expression",
    ]


def test_panels_are_drawn_from_the_source_that_is_provisioned() -> None:
    dashboard = json.loads((GRAFANA / "tcd.json").read_text())
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (variable,) = dashboard["templating"]["list"]
    assert variable["query"] == source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert panels
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{variable['name']}}}"}
        assert panel["targets"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_panels_do_not_overlap() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in json.loads((GRAFANA / "tcd.json").read_text())["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


def test_grafana_finds_the_files_where_compose_puts_them() -> None:
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/tcd.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in COMPOSE["volumes"])
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    assert mounts["./grafana/tcd.json"] == f"{provider['options']['path']}/tcd.json"
    assert provider["type"] == "file"
