"""Several shims, one log: they take turns at signing, and each proves what any of them wrote."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")

from sidecar_api.log.assemble import verify_policy
from tcd.ledger.port import Ledger
from tcd.receipts import verify_single
from tcd.receipts.merkle import CompactRange
from tests.faults.shims import Shim, shims, start_shim
from tests.postgres import PostgresServer


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
            await asyncio.sleep(0.02)
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
