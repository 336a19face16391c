"""`tcd serve` of the previous commit and of this one: in turn on one store, and side by side on PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")

from tcd.ledger.audit import audit_store
from tcd.receipts import KeySet, VerifyPolicy
from tests.conftest import ROOT
from tests.postgres import PostgresServer
from tests.scaleout.check import check
from tests.scaleout.load import Step
from tests.upgrade.old import SEED, STEPS, Serving, ask_all, checkout, git, requests

pytestmark = pytest.mark.long


def previous() -> str:
    """The commit before the newest one that changed what is served."""
    return git("rev-list", "-1", "HEAD~1", "--", "tcd", "sidecar_api", "model_repository")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_data_directory_goes_on(tmp_path: Path, number: int) -> None:
    with checkout(previous()) as tree:
        old = Serving(tree, tmp_path)
        try:
            before = ask_all(old, requests())
        finally:
            old.stop(number)
    new = Serving(ROOT, tmp_path)
    try:
        assert ask_all(new, requests()) == before
        ask_all(new, requests(STEPS, 2))
        keys = new.ask("/v1/log/keys")[1]
        for row in before:
            head = json.loads(row["answer"])["receipt"]
            status, proof = new.ask(f"/v1/log/proof/{head}?wait=30")
            assert status == 200, proof
    finally:
        new.stop()
    found = audit_store(tmp_path / "ledger.sqlite", policy=VerifyPolicy(KeySet.from_json(json.loads(keys))))
    assert found.findings == []


def test_a_rolling_upgrade_on_postgresql(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.place()
    places = [tmp_path / "old", tmp_path / "new"]
    for place in places:
        place.mkdir()
    with checkout(previous()) as tree:
        old = Serving(tree, places[0], TCD_LEDGER=url, TCD_REPLICA="old")
        try:
            first = ask_all(old, requests())
            # the newer one joins while the older one serves
            new = Serving(ROOT, places[1], TCD_LEDGER=url, TCD_REPLICA="new")
            try:
                both = ask_all(new, requests(name="n")) + ask_all(old, requests(STEPS, 1))
                # retries at the other version
                assert ask_all(new, requests()) == first
                assert ask_all(old, requests(name="n")) == both[: len(first)]
            finally:
                old.stop()
            try:
                last = ask_all(new, requests(STEPS + 1, 1)) + ask_all(new, requests(name="m"))
            finally:
                new.stop()
        finally:
            old.stop()
    steps = [Step(row["request"], row["answer"].encode(), 200, 0.0, 0.0, 1) for row in (*first, *both, *last)]
    found = asyncio.run(check(url, steps, seed=SEED))
    assert found["answered"] == len(steps)
    assert found["most_spent_of_alpha"] <= 1.0 + 1e-12
