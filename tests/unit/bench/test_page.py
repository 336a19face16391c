"""`docs/performance.md` has the figures of the reports that lie beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tcd.bench import growth, overload, page, shim_report, soak_report
from tcd.bench.e2e import report as e2e
from tcd.bench.ensemble import report as ensemble


def test_the_page_is_what_the_reports_make_it() -> None:
    assert page.main(["--check"]) == 0


def test_the_reports_are_what_their_raw_data_make_them() -> None:
    found = json.loads((page.REPORTS / "ensemble.json").read_text())
    assert (page.REPORTS / "ensemble.md").read_text() == ensemble.markdown(found, images="ensemble-")
    for name, drawing in ensemble.plots(found).items():
        assert (page.REPORTS / f"ensemble-{name}.svg").read_text() == drawing
    found = json.loads((page.REPORTS / "e2e.json").read_text())
    assert (page.REPORTS / "e2e.md").read_text() == e2e.markdown(found, images="e2e-")
    assert (page.REPORTS / "e2e-tokens.svg").read_text() == e2e.plot(found)
    found = json.loads((page.REPORTS / "growth.json").read_text())
    assert (page.REPORTS / "growth.md").read_text() == growth.markdown(found, image="growth.svg")
    assert (page.REPORTS / "growth.svg").read_text() == growth.plot(found)
    found = json.loads((page.REPORTS / "shim.json").read_text())
    result = overload.read(found["overload"])
    assert (page.REPORTS / "shim.md").read_text() == shim_report.markdown(found, result, images="shim-")
    assert (page.REPORTS / "shim-load.svg").read_text() == shim_report.plots(found["summary"])["load"]
    found = soak_report.read(json.loads((page.REPORTS / "soak.json").read_text()))
    assert (page.REPORTS / "soak.md").read_text() == soak_report.document(found)


def test_a_figure_that_was_changed_by_hand_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.PAGE.read_text()
    copy = tmp_path / "performance.md"
    copy.write_text(text.replace("| without tcd |", "| with nothing |", 1))
    monkeypatch.setattr(page, "PAGE", copy)
    assert page.main(["--check"]) == 1
    assert page.main([]) == 0
    assert copy.read_text() == text
