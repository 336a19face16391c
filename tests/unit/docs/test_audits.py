"""docs/audits.md says what an audit says: every code, every member of the report, every option."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from tcd.cli.audit import app
from tcd.ledger.findings import MEANINGS
from tests.unit.ledger.drills import make

PAGE = (Path(__file__).parents[3] / "docs" / "audits.md").read_text()


def test_every_code_with_its_meaning() -> None:
    rows = dict(re.findall(r"^\| `([a-z_0-9]+)` \| (.+) \|$", PAGE, re.MULTILINE))
    assert {code: rows.get(code) for code in MEANINGS} == MEANINGS


def members(report: dict[str, Any]) -> set[str]:
    """Members of the report, and of its parts where their names are fixed."""
    found = set(report)
    for part in ("audit", "log", "budgets", "statistics"):
        found |= set(report[part])
    return found | set(report["statistics"]["over_time"]) | (set(report["log"]["to_last_witness"]) - {"count"})


def test_every_member_of_the_report(tmp_path: Path) -> None:
    named = set(re.findall(r"`([a-z_0-9]+)`", PAGE))
    assert members(make(tmp_path / "ledger").audit().to_json()) - named == set()


@pytest.mark.parametrize("name", ["store", "postgresql"])
def test_every_option(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined] # a group
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    assert {option for option in options if f"{option}" not in PAGE} <= {"--help"}
