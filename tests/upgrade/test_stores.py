"""Kept stores of every earlier version of the tables, opened by this one: nothing is lost, and everything goes on.

`tests.upgrade.make` made them: `tcd serve` of a commit, killed with open sessions.
"""

from __future__ import annotations

import json
import lzma
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from sidecar_api.subjects import subject_fingerprint
from tcd.calibration.store import default_asset_dir, load_assets
from tcd.config import Settings
from tcd.ledger import SqliteLedger
from tcd.ledger.audit import audit_store
from tcd.ledger.port import Ledger
from tcd.ledger.postgres import PostgresLedger
from tcd.receipts import KeySet, PinnedKey, SigningKey, VerifyPolicy, verify_chain
from tcd.risk_av import Controller, EpochOpened
from tests.faults.shims import all_events
from tests.postgres import PostgresServer, binaries
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of
from tests.upgrade.make import STORES
from tests.upgrade.old import SEED, STEPS, requests

ORIGIN = "tcd.localhost"


@dataclass(frozen=True)
class Old:
    """A kept store: where it was put, and what was answered from it."""

    place: str
    answered: list[dict[str, Any]]
    policy: VerifyPolicy

    @property
    def heads(self) -> list[str]:
        return [json.loads(row["answer"])["receipt"] for row in self.answered]


def put(name: str, folder: Path, postgres: PostgresServer) -> Old:
    kept = STORES / name
    about = json.loads(lzma.decompress((kept / "answers.json.xz").read_bytes()))
    if name.startswith("sqlite"):
        (folder / "ledger.sqlite").write_bytes(lzma.decompress((kept / "store.sqlite.xz").read_bytes()))
        place = str(folder)
    else:
        place = restored(postgres, lzma.decompress((kept / "store.sql.xz").read_bytes()))
    key = PinnedKey(SigningKey(bytes.fromhex(SEED)).public, "receipt", ORIGIN)
    keys = KeySet([key]) if about["keys"] is None else KeySet.from_json(about["keys"])
    return Old(place, about["answered"], VerifyPolicy(keys))


def restored(postgres: PostgresServer, dump: bytes) -> str:
    """A database of its own: the dump names its schema."""
    found = binaries()
    assert found is not None
    psql = [str(found / "psql"), "-q", "-v", "ON_ERROR_STOP=1"]
    subprocess.run([*psql, postgres.url(), "-c", "CREATE DATABASE upgrade"], capture_output=True, check=True)
    done = subprocess.run([*psql, postgres.url("upgrade")], input=dump, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return postgres.url("upgrade")


@asynccontextmanager
async def present(old: Old) -> AsyncIterator[tuple[Client, Ledger]]:
    """This version on the store."""
    settings: Settings = settings_of(attest_sk_hex=SEED, alpha=0.9, log_interval_s=0.05, log_decisions=False)
    ledger: Ledger
    if old.place.startswith("postgresql"):
        ledger = await PostgresLedger.open(old.place, subjects=subject_fingerprint(settings), origin=ORIGIN)
    else:
        ledger = SqliteLedger(Path(old.place))
    assets = FixedAssets(load_assets(default_asset_dir()))
    app = create_app(settings, scorer=ScriptedScorer(), assets=assets, edges=Edges(ledger=ledger))
    try:
        async with app.router.lifespan_context(app):
            yield Client(app), ledger
    finally:
        await ledger.close()


async def every(ledger: Ledger) -> list[str]:
    return [head.hex() for head in await ledger.heads()]


async def check_chains(ledger: Ledger, policy: VerifyPolicy) -> int:
    """All of them, each from its first record."""
    chains: defaultdict[str, list[Any]] = defaultdict(list)
    for head in await every(ledger):
        stored = await ledger.get(head)
        assert stored is not None
        assert stored.receipt is not None
        chains[stored.receipt.chain].append(stored.receipt)
    for records in chains.values():
        report = verify_chain(
            heads=[r.head_hex for r in records],
            bodies=[r.body_text for r in records],
            sigs=[r.sig_hex for r in records],
            policy=policy,
        )
        assert report.ok, report.checks
    return len(chains)


@pytest.mark.parametrize("name", sorted(path.name for path in STORES.iterdir()))
async def test_a_store_of_an_earlier_version_goes_on(name: str, tmp_path: Path, postgres: PostgresServer) -> None:
    old = put(name, tmp_path, postgres)
    async with present(old) as (client, ledger):
        before = await every(ledger)
        # the log is what it was, and has what was answered
        assert set(old.heads) <= set(before)
        assert await check_chains(ledger, old.policy) >= 4
        # budgets are not behind what callers were told
        controller = Controller.replay(await all_events(ledger))
        for row in old.answered:
            said = json.loads(row["answer"])
            view = controller.state(client.app.runtime.service.subjects.tenant(row["request"]["tenant"]))
            assert view.epoch >= said["epoch"]
            assert view.epoch > said["epoch"] or view.spent >= said["alpha_spent"]
        # retries of what was answered: the same bytes, nothing debited
        for row in old.answered:
            reply = await client.post(row["request"])
            assert (reply.status, reply.body.decode()) == (200, row["answer"])
        assert await every(ledger) == before
        # sessions go on, and new ones begin: each is debited once, after what was debited before
        for request in [*requests(STEPS, 2), *requests(0, 2, name="new")]:
            reply = await client.post(request)
            assert reply.status == 200, reply.body
            answer = reply.json()
            assert answer["cause"] != "degraded"
            assert ("joined in the middle" in answer["guarantee"]) == request["session"].startswith("s")
        after = await all_events(ledger)
        goes_on = Controller.replay(after)
        streams = {event.stream for event in after if isinstance(event, EpochOpened)}
        assert len(streams) == 2
        for stream in streams:
            assert goes_on.state(stream).spent <= 0.9 * (1 + 1e-12)
        assert (await every(ledger))[: len(before)] == before
        await check_chains(ledger, old.policy)
        # also by the keys that this version shows: the ones that it took over
        shown = VerifyPolicy(KeySet.from_json((await client.get("/v1/log/keys")).json()))
        await check_chains(ledger, shown)
    if name.startswith("sqlite"):
        found = audit_store(tmp_path / "ledger.sqlite", policy=shown, origin=ORIGIN)
        assert found.findings == []
