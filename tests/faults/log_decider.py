"""A shim without HTTP that signs checkpoints as fast as it can, for tests that kill it.

Decides for ever on the ledger in `data` and exports its log to `log`; writes one JSON line per receipt that was
answered, and one per checkpoint that was published, unbuffered.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from tcd.ledger import SqliteLedger
from tests.unit.shim.conftest import SEED_HEX, Client, ScriptedScorer, settings_of, synthetic_assets

WORKERS = 8


def say(value: object) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


async def main(data: Path, log: Path, policy: Path) -> None:
    ledger = SqliteLedger(data)
    settings = settings_of(
        attest_sk_hex=SEED_HEX, log_interval_s=0.002, log_dir=log, log_witnesses=policy, log_no_quorum="hold"
    )
    app = create_app(
        settings, scorer=ScriptedScorer(0.5), assets=FixedAssets(synthetic_assets()), edges=Edges(ledger=ledger)
    )
    client, name = Client(app), os.urandom(4).hex()

    async def work(worker: int) -> None:
        for n in range(1_000_000):
            answer = await client.step(session=f"{name}-{worker}-{n // 3}", step_id=n % 3)
            if answer["receipt"] is not None:
                say({"receipt": answer["receipt"]})

    async def watch() -> None:
        assert app.runtime.log is not None
        size = 0
        while True:
            found = await app.runtime.log.checkpointer.after(size, timeout=1.0)
            if found is not None:
                size = found.size
                say({"size": found.size, "root": found.root.hex(), "enough": found.enough})

    async with app.router.lifespan_context(app):
        await asyncio.gather(watch(), *(work(i) for i in range(WORKERS)))


def start(*places: str) -> None:
    asyncio.run(main(*map(Path, places)))
