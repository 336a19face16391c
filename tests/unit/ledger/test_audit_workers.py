"""An audit whose rows are checked in other processes says what it says alone, of tampered ledgers, too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tcd.bench.audit.synthetic import keyset
from tcd.bench.controller.shim import synthetic_assets
from tcd.errors import ConfigError
from tcd.ledger.auditing.decisions import Assets
from tcd.ledger.auditing.run import Asked, run
from tcd.ledger.auditing.sources import sqlite_store
from tcd.receipts import VerifyPolicy
from tests.unit.ledger.drills import Ledger, make


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger of several pages, each of several tasks."""
    monkeypatch.setattr("tcd.ledger.auditing.sources.PAGE", 40)
    monkeypatch.setattr("tcd.ledger.auditing.workers._TASK", 16)
    return make(tmp_path / "ledger")


def report(ledger: Ledger, *, workers: int, **options: Any) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """The report but for the time it took, and the progress that was told."""
    asked = Asked(VerifyPolicy(keyset()), assets=Assets.of(calibrations=synthetic_assets()), **options)
    told: list[tuple[int, int]] = []
    with sqlite_store(ledger.path) as store:
        made = run(store, asked, workers=workers, progress=lambda done, total, _: told.append((done, total)))
    found = made.to_json()
    del found["audit"]["began_us"], found["audit"]["seconds"]
    return found, told


def test_the_report_is_the_same(ledger: Ledger) -> None:
    places = [ledger.decision(number) for number in (40, 60, 80, 100, 120)]
    ledger.do(
        """UPDATE body SET body = CAST(replace(body, '"model0"', '"model1"') AS BLOB) WHERE idx = :edited""",
        "UPDATE receipt SET sig = zeroblob(64) WHERE idx = :unsigned",
        "UPDATE receipt SET tenant = 'other' WHERE idx = :moved",
        "DELETE FROM receipt WHERE idx = :gone",
        "DELETE FROM body WHERE idx IN (:gone, :erased)",
        **dict(zip(("edited", "unsigned", "moved", "gone", "erased"), places, strict=True)),
    )
    alone, before = report(ledger, workers=0)
    others, after = report(ledger, workers=2)
    assert others == alone
    assert before[-1] == after[-1] == (ledger.size, ledger.size)
    codes = {finding["code"] for finding in alone["findings"]}
    assert codes >= {"head_mismatch", "bad_signature", "row_mismatch", "index_gap", "body_missing"}
    assert alone["counts"]["bodies erased"] == 1
    assert report(ledger, workers=1, tenant="tenant-3")[0] == report(ledger, workers=0, tenant="tenant-3")[0]


def gone(_: object) -> None:
    """What a process does that has no memory left."""
    os._exit(9)


def test_a_process_that_ends_is_no_finding(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcd.ledger.auditing.workers._check", gone)
    with pytest.raises(ConfigError, match="a process that checks rows ended"):
        report(ledger, workers=1)
