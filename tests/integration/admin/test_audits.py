"""An audit of a running shim: a job that reads the shim's own ledger while it grows, and its report."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sidecar_api.admin.plane import Limits
from sidecar_api.admin.principals import SCOPES
from sidecar_api.admin.serving import AdminServer
from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from tcd.client.admin import OperatorKey
from tcd.ledger import SqliteLedger
from tcd.ledger.sqlite import FILE
from tcd.scoring import LibraryScorer
from tests.integration.admin.kit import UNLIMITED, Running
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of
from tests.unit.shim.test_confidence import conditional_assets
from tests.unit.shim.test_replay import publish, session_of, steps

BUNDLE = '[[policy]]\nname = "all"\nversion = 1\n'


@asynccontextmanager
async def shim(folder: Path) -> AsyncIterator[tuple[Running, Client]]:
    """A shim on SQLite that scores by itself and decides by a policy, and its admin plane."""
    place, assets = folder / "policies.toml", conditional_assets()
    place.write_text(BUNDLE)
    published = publish(folder / "assets", assets)
    settings = settings_of(
        edge_rate_cap=1e9, edge_rate_refill=1e9, data_dir=folder, policies=place, assets=published, log_interval_s=0.05,
        log_level="error",
    )  # fmt: skip
    ledger = SqliteLedger(folder)
    app = create_app(settings, scorer=LibraryScorer(assets), assets=FixedAssets(assets), edges=Edges(ledger=ledger))
    async with app.router.lifespan_context(app):
        limits = Limits(UNLIMITED, UNLIMITED, UNLIMITED)
        server = AdminServer(app.runtime, folder / "admin", host="127.0.0.1", port=0, limits=limits)
        said: list[str] = []
        await server.start(said.append)
        server.plane.signatures._since -= 1
        admin = Running(app, server, ScriptedScorer(), said)
        await admin.enrol()
        try:
            yield admin, Client(app)
        finally:
            await server.stop()
    await ledger.close()


async def ended(admin: Running, identifier: str) -> Any:
    for _ in range(3000):
        answer = await admin.call(admin.alice, "GET", f"/jobs/{identifier}")
        # the job may write its file at this moment
        if answer.status_code != 503:
            assert answer.status_code == 200, answer.text
            job = answer.json()
            if job["state"] != "running":
                return job
        await asyncio.sleep(0.1)
    pytest.fail("the job did not end within five minutes")


async def audited(admin: Running, **order: Any) -> tuple[Any, Any]:
    """A job that has ended, and its report."""
    started = await admin.call(admin.alice, "POST", "/audits", order)
    assert started.status_code == 200, started.text
    job = await ended(admin, started.json()["result"]["id"])
    assert job["state"] == "done", job
    report = await admin.call(admin.alice, "GET", f"/jobs/{job['id']}/files/report.json")
    return job, report.json()


async def covered(admin: Running, head: str) -> None:
    """Wait for a checkpoint that has the receipt."""
    log = admin.runtime.log
    assert log is not None
    await log.proof(head, wait=30.0)


async def told(admin: Running) -> tuple[Any, Any]:
    """What whoever is alice now is told by an audit, but for times and names of jobs."""
    job, report = await audited(admin)
    for name in ("began_us", "seconds"):
        del report["audit"][name]
    for name in ("seconds", "peak_mib"):
        del job["result"][name]
    # progress is per cent, told now and then
    assert job["total"] in {0, 100}
    return {name: job[name] for name in ("arguments", "result", "error")}, report


async def test_an_audit_while_the_shim_decides(tmp_path: Path) -> None:
    async with shim(tmp_path) as (admin, client):
        rng = np.random.default_rng(3)
        for number in range(6):
            await session_of(client, steps(rng, 20, (1, 15)[number % 2], session=f"a{number}", tenant="acme"))
        going = True

        async def traffic() -> int:
            number = 0
            while going:
                await session_of(client, steps(rng, 20, 1, session=f"b{number}", tenant="other"))
                number += 1
            return number

        task = asyncio.create_task(traffic())
        job, report = await audited(admin)
        going = False
        assert await task > 0
        assert report["findings"] == []
        assert (job["result"]["ok"], job["result"]["findings"]) == (True, {})
        assert job["result"]["receipts"] == report["log"]["size"] == report["audit"]["receipts"] >= 126
        assert report["audit"]["live"] is True
        replay = report["replay"]
        for name in ("trigger", "level recomputed", "p-value", "action", "verdict", "e-process step"):
            assert replay[name] > 0, (name, replay)
        assert replay.get("level absent", 0) == replay.get("action absent", 0) == 0
        assert report["budgets"]["epochs"] == report["budgets"]["within_their_claim"] >= 1
        assert report["service"]["tcd_stage_duration_seconds"]
        page = await admin.call(admin.alice, "GET", f"/jobs/{job['id']}/files/report.html")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "No check failed." in page.text
        assert "<script" not in page.text
        assert "http://" not in page.text
        # the job says nothing of where the ledger is, and the act is in the log
        assert str(tmp_path) not in json.dumps(job)
        assert ("audit.start", "alice") in await admin.acts()


async def test_what_was_tampered_with_under_a_running_shim_is_named(tmp_path: Path) -> None:
    async with shim(tmp_path) as (admin, client):
        rng = np.random.default_rng(4)
        await session_of(client, steps(rng, 20, 1, session="a", tenant="acme"))
        job, _ = await audited(admin)
        assert job["result"]["checkpoint"].startswith("tcd.localhost\n")
        edit = """UPDATE body SET body = CAST(replace(body, '"id":"m"', '"id":"n"') AS BLOB) WHERE idx = ?"""
        with closing(sqlite3.connect(tmp_path / FILE)) as db:
            (index,) = db.execute("SELECT max(idx) FROM receipt WHERE typ = 'decision'").fetchone()
            db.execute(edit, (index,))
            db.commit()
        job, report = await audited(admin)
        assert report["audit"]["given_checkpoints"] == 1
        named = [(finding["code"], finding["where"]) for finding in report["findings"]]
        assert named == [("head_mismatch", f"receipt {index}")]
        assert job["result"]["ok"] is False


async def test_a_principal_of_one_tenant_audits_its_own(tmp_path: Path) -> None:
    async with shim(tmp_path) as (admin, client):
        rng = np.random.default_rng(5)
        for tenant in ("acme", "other"):
            await session_of(client, steps(rng, 4, 1, session=tenant, tenant=tenant))
        carol = OperatorKey.generate("carol")
        keys = [
            admin.alice.public(SCOPES),
            admin.bob.public(SCOPES),
            carol.public(["receipts:audit", "receipts:read"], tenant="acme"),
        ]
        proposed = await admin.call(admin.alice, "PUT", "/principals", {"keys": keys})
        assert (await admin.call(admin.bob, "POST", f"/approvals/{proposed.json()['id']}")).status_code == 200
        everybodys, _ = await audited(admin)
        admin.alice = carol
        foreign = await admin.call(carol, "POST", "/audits", {"tenant": "other"})
        assert foreign.status_code == 404
        found = (await admin.call(carol, "GET", "/receipts")).json()
        assert (len(found["receipts"]), found["indexed"]) == (6, None)
        await covered(admin, found["receipts"][0]["head"])
        job, report = before = await told(admin)
        assert report["statistics"]["tenants"].keys() == {"acme"}
        assert report["audit"]["tenant"] == "acme"
        assert report["service"] is None
        assert job["result"]["receipts"] == report["log"]["checkpointed"] == 6
        assert "other" not in json.dumps({**report, "service": None, "statistics": report["statistics"]["tenants"]})
        # it depends on nobody else's records: the same after more of them
        await session_of(client, steps(rng, 20, 1, session="more", tenant="other"))
        assert await told(admin) == before
        own = (await admin.call(carol, "GET", "/jobs")).json()["jobs"]
        assert [one["tenant"] for one in own] == ["acme", "acme"]
        assert (await admin.call(carol, "GET", f"/jobs/{everybodys['id']}")).status_code == 404


async def test_a_ledger_in_memory_is_not_audited(tmp_path: Path) -> None:
    from tests.integration.admin.kit import running  # noqa: PLC0415 - a fixture's context

    async with running(tmp_path) as admin:
        await admin.enrol()
        reply = await admin.call(admin.alice, "POST", "/audits", {})
        assert (reply.status_code, reply.json()["code"]) == (409, "conflict"), reply.text
        assert (await admin.call(admin.alice, "POST", "/audits", {"x": 1})).status_code == 422
