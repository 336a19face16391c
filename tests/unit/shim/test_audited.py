"""No false alarms: ledgers of shims to which everything happened that may honestly happen have no findings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidecar_api.app import Edges
from sidecar_api.bindings import defaults_of
from sidecar_api.reload import Reloader
from tcd.errors import Unavailable
from tcd.ledger import SqliteLedger
from tcd.ledger.auditing.decisions import Assets
from tcd.ledger.auditing.run import Asked, Result, run
from tcd.ledger.auditing.sources import sqlite_store
from tcd.ledger.sqlite import FILE
from tcd.receipts import VerifyPolicy
from tcd.scoring import LibraryScorer
from tests.unit.shim.test_confidence import conditional_assets
from tests.unit.shim.test_key_drill import Clock, made, serving
from tests.unit.shim.test_replay import session_of, steps

BUNDLE = '[[policy]]\nname = "all"\nversion = 1\n[[policy.decision]]\nname = "high"\nwhen = { score = 0.99 }\n'
BUNDLE += 'action = "throttle"\ncause = "policy"\n'


class Life:
    """A shim's data directory, and the shims that ran on it."""

    def __init__(self, folder: Path, make_client: Callable[..., Any]) -> None:
        self.folder = folder
        self.clock, self.assets = Clock(), conditional_assets()
        self.store = made(folder / "keys", self.clock)
        self.make_client = make_client
        self.rng = np.random.default_rng(1)
        self.count = 0
        (folder / "policies.toml").write_text(BUNDLE)

    def shim(self, ledger: SqliteLedger, **changes: Any) -> Any:
        settings = {
            "keys_dir": self.folder / "keys", "log_interval_s": 0.02, "subject_key_hex": "77" * 32,
            "policies": self.folder / "policies.toml", "log_level": "error", "attest_sk_hex": None, **changes,
        }  # fmt: skip
        edges = Edges(now_us=self.clock, ledger=ledger)
        return self.make_client(LibraryScorer(self.assets), assets=self.assets, edges=edges, **settings)

    async def sessions(self, client: Any, count: int, *, mask: int = 1) -> None:
        for _ in range(count):
            self.count += 1
            self.clock.now += 1_000_000
            requests = steps(self.rng, 20, mask, session=f"s{self.count}", tenant=f"t{self.count % 2}")
            await session_of(client, requests)

    def audit(self, client: Any, *, live: bool = False) -> Result:
        runtime = client.app.runtime
        policy = VerifyPolicy(self.store.keyset(), log_algorithms=frozenset({"Ed25519", "ML-DSA-44"}))
        assets = Assets.of(
            policies=runtime.policies,
            defaults=defaults_of(runtime.service.judge.rules),
            config=runtime.settings.config_hash,
            calibrations=self.assets,
        )
        with sqlite_store(self.folder / FILE, live=live) as store:
            return run(store, Asked(policy, assets=assets))


async def gap(client: Any, ledger: SqliteLedger) -> None:
    """A commit that is lost, and its repair."""
    client.app.runtime.service.judge.mender._pause = 0.01
    before = [await client.step(session="gap", tenant="t0", step_id=i) for i in range(2)]
    append, tried = ledger.append, asyncio.Event()

    async def fail(*_: Any, **__: Any) -> None:
        tried.set()
        msg = "away"
        raise Unavailable(msg)

    ledger.append = fail  # type: ignore[method-assign, assignment]
    lost = await client.step(session="gap", tenant="t0", step_id=2)
    assert lost["cause"] == "degraded"
    await asyncio.wait_for(tried.wait(), 60)
    ledger.append = append  # type: ignore[method-assign]
    chain = json.loads(before[0]["receipt_body"])["chain"]["id"]
    for _ in range(6000):
        state = await ledger.chain(chain)
        if state is not None and state.closed:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the gap was not repaired within a minute")


async def erase(client: Any, ledger: SqliteLedger) -> list[int]:
    """Bodies of one tenant go, in the transaction of the record that says so."""
    judge, heads, places = client.app.runtime.service.judge, await ledger.heads(), []
    for place, head in enumerate(heads):
        stored = await ledger.get(head.hex())
        if stored is not None and stored.receipt is not None and stored.receipt.tenant == "t1" and place % 3:
            places.append(place)
    assert judge.receipts is not None
    made = judge.receipts.erased(actor="a + b", reason="subject", places=places, heads=[heads[at] for at in places])
    await judge.put(made, erase=tuple(places))
    await ledger.scrub()
    return places


async def test_rotation_gap_reload_erasure_and_a_crash(tmp_path: Path, make_client: Callable[..., Any]) -> None:
    life = Life(tmp_path, make_client)
    ledger = SqliteLedger(tmp_path)
    async with serving(life.shim(ledger)) as client:
        await life.sessions(client, 6)
        await life.sessions(client, 2, mask=15)
        (old,) = [key for key in life.store.keyset() if key.purpose == "receipt"]
        life.store.rotate(old.kid, overlap_us=60_000_000)
        assert Reloader(client.app.runtime).keys()
        await life.sessions(client, 2)
        await gap(client, ledger)
        live = life.audit(client, live=True)
        assert live.audit.findings == []
        erased = await erase(client, ledger)
        await life.sessions(client, 2)
    await ledger.close()
    # another alpha from here on; then a shim that is gone without a word
    ledger = SqliteLedger(tmp_path)
    client = life.shim(ledger, alpha=0.2)
    context = client.app.router.lifespan_context(client.app)
    await context.__aenter__()
    await life.sessions(client, 3)
    await client.app.runtime.service.judge.flush()
    await ledger.close()
    await context.__aexit__(None, None, None)
    ledger = SqliteLedger(tmp_path)
    async with serving(life.shim(ledger, alpha=0.05)) as client:
        await life.sessions(client, 3)
    await ledger.close()

    found = life.audit(client)
    assert found.audit.findings == []
    types = found.statistics.types
    for typ in ("open", "decision", "close", "gap", "rotate", "erase", "admin"):
        assert types[typ] > 0, (typ, types)
    assert found.audit.counts["bodies erased"] == len(erased) > 0
    assert found.statistics.admitted == 1
    for name in ("trigger", "level recomputed", "p-value", "action", "verdict", "e-process step"):
        assert found.replay[name] > 0, (name, found.replay)
    assert found.budgets.within == found.budgets.epochs >= 4
    assert found.log["checkpointed"] > 0


async def test_an_erasure_that_is_undone_or_lies(tmp_path: Path, make_client: Callable[..., Any]) -> None:
    from tests.unit.ledger.drills import Ledger  # noqa: PLC0415 - beside the drills

    life = Life(tmp_path, make_client)
    ledger = SqliteLedger(tmp_path)
    async with serving(life.shim(ledger)) as client:
        await life.sessions(client, 2)
        bodies = {}
        for place, head in enumerate(await ledger.heads()):
            stored = await ledger.get(head.hex())
            assert stored is not None
            assert stored.receipt is not None
            bodies[place] = stored.receipt.body
        erased = await erase(client, ledger)
    await ledger.close()
    assert life.audit(client).audit.findings == []
    back = Ledger(tmp_path)
    back.do("INSERT INTO body VALUES (:at, :body)", at=erased[2], body=bodies[erased[2]])
    found = [(f.code, f.where) for f in life.audit(client).audit.findings]
    assert found == [("body_kept", f"receipt {erased[2]}"), ("count_mismatch", "tally")]
    back.do("DELETE FROM body WHERE idx = :at", at=erased[2])
    back.do("DELETE FROM body WHERE idx = :at", at=0)
    found = [(f.code, f.where) for f in life.audit(client).audit.findings]
    assert found == [("body_missing", "receipt 0")] or ("body_missing", "receipt 0") in found
