"""Several shims, one log: they take turns at signing, and each proves what any of them wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")

from sidecar_api.app import Edges, create_app
from sidecar_api.log.assemble import verify_policy
from sidecar_api.pins import FixedAssets
from sidecar_api.reload import Reloader
from tcd.keystore import KeyStore
from tcd.ledger.port import Ledger
from tcd.ledger.postgres import PostgresLedger
from tcd.receipts import VerifyPolicy, verify_single
from tcd.receipts.merkle import CompactRange
from tests.faults.shims import Shim, shims, start_shim
from tests.postgres import PostgresServer
from tests.unit.shim.conftest import SEED_HEX, Client, ScriptedScorer, settings_of, synthetic_assets


async def proof(shim: Shim, head: str) -> bytes:
    reply = await shim.client.get(f"/v1/log/proof/{head}", query="wait=30")
    assert reply.status == 200, reply.body
    found: bytes = reply.body
    return found


async def sign(shim: Shim) -> None:
    log = shim.client.app.runtime.log
    assert log is not None
    log.checkpointer.start()


async def quiet(shim: Shim) -> None:
    log = shim.client.app.runtime.log
    assert log is not None
    await log.checkpointer.stop(timeout=30.0)


async def load(made: list[Shim], sessions: int) -> list[dict[str, Any]]:
    work = [shim.client.step(session=f"{i}-{n}") for i, shim in enumerate(made) for n in range(sessions)]
    return list(await asyncio.gather(*work))


async def check_checkpoints(ledger: Ledger) -> int:
    """Every stored root is that of the heads; how many there are."""
    roots, tree = [CompactRange().root()], CompactRange()
    for head in await ledger.heads():
        tree.extend([head])
        roots.append(tree.root())
    size = count = 0
    while (stored := await ledger.checkpoint(covering=size)) is not None:
        assert stored.root == roots[stored.size]
        size, count = stored.size, count + 1
    return count


async def test_shims_take_turns(postgres: PostgresServer) -> None:
    """Three shims write and sign at once; the one that signs is killed, the others go on and prove its receipts."""
    url = postgres.place()
    async with shims(url, 3, log_interval_s=0.01) as made:
        for shim in made:
            await sign(shim)
        answers: list[dict[str, Any]] = []
        for _ in range(5):
            answers += await load(made, 6)
            # a checkpoint of this round, however slow the machine
            await proof(made[-1], answers[-1]["receipt"])
        dead, *alive = made
        await dead.crash()
        # the connection is gone, and with it the turn, whoever had it
        answers += await load(alive, 6)
        keyring = alive[0].client.app.runtime.keyring
        assert keyring is not None
        policy = verify_policy(keyring.keys, None)
        for answer in answers:
            for shim in alive:
                report = verify_single(
                    answer["receipt_body"],
                    head=answer["receipt"],
                    sig=answer["receipt_sig"],
                    policy=policy,
                    proof=await proof(shim, answer["receipt"]),
                )
                assert report.ok, report
        for shim in made:
            await quiet(shim)
        assert await check_checkpoints(alive[0].ledger) >= 5
    later = await start_shim(url, log_interval_s=0.01)
    await sign(later)
    assert await proof(later, answers[0]["receipt"])
    await quiet(later)
    await check_checkpoints(later.ledger)
    await later.stop()


async def test_keys_are_rotated_under_shims_one_after_the_other(postgres: PostgresServer, tmp_path: Path) -> None:
    """One shim signs with the new key already, the other with the old one still, and a third starts: all verifies."""
    url = postgres.place()
    keys = KeyStore(tmp_path, os.urandom, lambda: time.time_ns() // 1000)
    keys.generate(purpose="receipt", origin="tcd.localhost")
    keys.generate(purpose="checkpoint", origin="tcd.localhost")
    options = {"keys_dir": tmp_path, "log_interval_s": 0.01, "lease_ttl_s": 60.0, "attest_sk_hex": SEED_HEX}

    async def serving(stack: contextlib.AsyncExitStack) -> Client:
        settings = settings_of(**options)
        ledger = await PostgresLedger.open(url, subjects=b"test", origin=settings.origin)
        stack.push_async_callback(ledger.close)
        app = create_app(
            settings, scorer=ScriptedScorer(), assets=FixedAssets(synthetic_assets()), edges=Edges(ledger=ledger)
        )
        await stack.enter_async_context(app.router.lifespan_context(app))
        return Client(app)

    async with contextlib.AsyncExitStack() as stack:
        first, second = await serving(stack), await serving(stack)
        old = json.loads((await first.step(session="a"))["receipt_body"])["kid"]
        _, new = keys.rotate(old, overlap_us=60_000_000)
        answers = [await second.step(session="b")]
        assert Reloader(first.app.runtime).keys()
        answers += [await first.step(session="c"), await second.step(session="d")]
        assert [json.loads(answer["receipt_body"])["kid"] for answer in answers] == [old, new.kid, old]
        # its predecessor is the other shim, whose last record may be of the old key: it hands over once more
        third = await serving(stack)
        assert Reloader(second.app.runtime).keys()
        for client in (first, second, third):
            answers.append(await client.step(session=f"e{len(answers)}"))
        assert [json.loads(answer["receipt_body"])["kid"] for answer in answers[3:]] == [new.kid] * 3
        ledger = first.app.runtime.ledger
        stored = [await ledger.get(head.hex()) for head in await ledger.heads()]
        records = [item.receipt for item in stored if item is not None and item.receipt is not None]
        assert len(records) == len(stored)
        kids = [record.kid for record in records]
        assert "rotate" in {record.typ for record in records[: kids.index(new.kid)]}
        policy = VerifyPolicy(keys.keyset())
        for record in records:
            report = verify_single(record.body, head=record.head_hex, sig=record.sig_hex, policy=policy)
            assert report.ok, (record.typ, report.code)
