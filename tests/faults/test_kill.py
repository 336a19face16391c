"""kill -9 at random moments: what was answered is there, what was spent stays spent, retries are charged once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from sidecar_api.recovery import recover
from sidecar_api.service import Service
from tcd.ledger import SqliteLedger
from tcd.ledger.audit import audit_store
from tcd.ledger.sqlite import FILE
from tcd.receipts import KeySet, VerifyPolicy, verify_chain
from tcd.risk_av import Controller
from tcd.risk_av.events import EpochOpened, Reserved
from tests.faults import decider
from tests.faults.forked import Forked
from tests.faults.recording import lines
from tests.unit.shim.conftest import SEED_HEX, Client, ScriptedScorer, settings_of, synthetic_assets


def decide_until_killed(directory: Path, seed: int, *, answers: int, wait: float) -> list[dict[str, Any]]:
    """Answers of a process that is killed `wait` seconds after its `answers`-th one."""
    process = Forked(decider.start, str(directory), str(seed))
    said = process.lines(answers + 1)
    time.sleep(wait)
    process.kill()
    return lines(said + process.rest())


async def check(directory: Path, said: list[dict[str, Any]]) -> int:
    """Every invariant on what the ledger has against what was said; returns the number of events."""
    ledger = SqliteLedger(directory)
    answered = [line for line in said if "receipt" in line]
    assert not [line for line in said if "refused" in line]
    for line in answered:
        assert await ledger.get(line["receipt"]) is not None, "an answered decision is lost"
    page = await ledger.events(limit=1_000_000)
    spent: dict[tuple[str, int], float] = {}
    indices: dict[tuple[str, int], list[int]] = {}
    alphas: dict[tuple[str, int], float] = {}
    for event in page.events:
        if isinstance(event, EpochOpened):
            alphas[event.stream, event.epoch] = event.params.alpha
        if isinstance(event, Reserved):
            key = (event.stream, event.epoch)
            spent[key] = spent.get(key, 0.0) + event.cost
            indices.setdefault(key, []).append(event.index)
    for key, total in spent.items():
        assert total <= alphas[key] * (1 + 1e-12), "more was spent than an epoch has"
        assert indices[key] == list(range(1, len(indices[key]) + 1)), "a reservation was given twice"
    whole = Controller.replay(page.events).save()
    for events in await ledger.states():
        started = Controller()
        started.restore((await ledger.state(events)).data)
        started.fold(page.events[events:])
        assert started.save() == whole, "a saved state is not what its events come to"
    policy = await _check_service(ledger, answered)
    await ledger.close()
    assert audit_store(directory / FILE, policy=policy).findings == []
    return len(page.events)


async def _check_service(ledger: SqliteLedger, answered: list[dict[str, Any]]) -> VerifyPolicy:
    """A shim on the ledger: budgets are not below what was answered, retries get the same bytes, chains verify.

    Returns:
        What its own verifier demands.
    """
    settings = settings_of(attest_sk_hex=SEED_HEX, alpha=0.5, credit_cap=1000, state_every=40)
    app = create_app(
        settings, scorer=ScriptedScorer(), assets=FixedAssets(synthetic_assets()), edges=Edges(ledger=ledger)
    )
    service = app.runtime.service
    await recover(ledger, service.judge)
    controller = service.budget.controller
    reserved = {s: controller.state(s).reserved_total for s in controller.streams}
    newest: dict[str, tuple[int, float]] = {}
    for line in answered:
        mark = (line["epoch"], line["spent"])
        newest[line["tenant"]] = max(newest.get(line["tenant"], mark), mark)
    for tenant, mark in newest.items():
        view = controller.state(service.subjects.tenant(tenant))
        assert (view.epoch, view.spent) >= mark, "spent went back"
    await _check_steps(ledger, service, answered)
    client = Client(app)
    for line in [line for line in answered if line["request"]][-20:]:
        reply = await client.post(line["request"])
        assert (reply.status, reply.body.decode()) == (200, line["answer"])
    assert {s: controller.state(s).reserved_total for s in controller.streams} == reserved, "a retry was charged"
    assert service.judge.receipts is not None
    policy = VerifyPolicy(KeySet([service.judge.receipts.issuer.pinned()]))
    for line in answered[:: max(1, len(answered) // 20)]:
        stored = await ledger.get(line["receipt"])
        assert stored is not None
        assert stored.receipt is not None
        records = [s.receipt for s in await ledger.chain_records(stored.receipt.chain) if s.receipt is not None]
        report = verify_chain(
            heads=[r.head_hex for r in records],
            bodies=[r.body_text for r in records],
            sigs=[r.sig_hex for r in records],
            policy=policy,
        )
        assert report.ok, report.checks
        assert records[-1].typ == "close", "a chain that cannot go on was left open"
    await service.judge.flush()
    assert app.runtime.verifier is not None
    return app.runtime.verifier.policy


async def _check_steps(ledger: SqliteLedger, service: Service, answered: list[dict[str, Any]]) -> None:
    """No e-process is behind what an answered decision's receipt says of it."""
    controller = service.budget.controller
    now = {view.snapshot.stream: (view.claim, view.folded) for view in map(controller.state, controller.streams)}
    for line in answered:
        stored = await ledger.get(line["receipt"])
        assert stored is not None
        assert stored.receipt is not None
        eproc = json.loads(stored.receipt.body)["eproc"]
        assert now[eproc["stream"]] >= (eproc["claim"], eproc["step"]), "step went back"


async def drill(directory: Path, kills: int, *, seed: int) -> None:
    random = np.random.default_rng(seed)
    said: list[dict[str, Any]] = []
    for number in range(kills):
        fresh = decide_until_killed(
            directory, seed * 1000 + number, answers=int(random.integers(1, 60)), wait=float(random.uniform(0, 0.02))
        )
        said = [*said, *fresh][-3000:]
        await check(directory, said)
    assert sum("receipt" in line for line in said) > kills
    ledger = SqliteLedger(directory)
    assert await ledger.states(), "no state was saved"
    await ledger.close()


async def test_eight_kills(tmp_path: Path) -> None:
    await drill(tmp_path, 8, seed=1)


@pytest.mark.long
async def test_two_hundred_kills(tmp_path: Path) -> None:
    for block in range(20):
        await drill(tmp_path / str(block), 10, seed=100 + block)
