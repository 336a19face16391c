"""A shim without HTTP on a SQLite ledger, for tests that kill it.

`python -m tests.faults.decider DIR SEED [PRAGMA...]`
Decides for ever; writes one JSON line per answer to standard output, unbuffered, after the answer is durable.
Sessions are short, tenants few, some requests carry an idempotency key and are sent twice. A PRAGMA changes how SQLite
writes: how long the WAL gets before it is copied back, or less safety than we have, for tests that must see it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import numpy as np

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from sidecar_api.recovery import recover
from tcd.errors import TcdError
from tcd.ledger import SqliteLedger
from tests.unit.shim.conftest import SEED_HEX, Client, ScriptedScorer, settings_of, synthetic_assets

WORKERS = 16


async def main(directory: Path, seed: int, pragmas: list[str]) -> None:
    ledger = SqliteLedger(directory)
    await ledger._run(lambda: [ledger._store._connection.execute(f"PRAGMA {text}").fetchall() for text in pragmas])
    random = np.random.default_rng(seed)
    scorer = ScriptedScorer(p=lambda _: float(random.uniform()), hops=2, seed=seed)
    settings = settings_of(attest_sk_hex=SEED_HEX, alpha=0.5, credit_cap=1000, state_every=40)
    client = Client(
        create_app(settings, scorer=scorer, assets=FixedAssets(synthetic_assets()), edges=Edges(ledger=ledger))
    )
    service = client.app.runtime.service
    found = await recover(ledger, service.judge)
    say({"recovered": found.events, "pid": os.getpid()})

    async def work(worker: int) -> None:
        for n in range(1_000_000):
            session = f"{seed}-{worker}-{n // 3}"
            request = {"trace_vector": [-1.0], "tenant": f"t{worker % 3}", "session": session, "step_id": n % 3}
            if n % 4 == 0:
                request["idempotency_key"] = f"{session}-{n}"
            reply = await client.post(request)
            answer = reply.json()
            if reply.status == 200 and answer["cause"] != "degraded":
                say(
                    {
                        "tenant": request["tenant"],
                        "epoch": answer["epoch"],
                        "spent": answer["alpha_spent"],
                        "index": answer["components"]["av"]["index"],
                        "receipt": answer["receipt"],
                        "request": request if "idempotency_key" in request else None,
                        "answer": reply.body.decode() if "idempotency_key" in request else "",
                    }
                )
            else:
                say({"refused": reply.status, "cause": answer.get("cause", answer.get("code"))})

    await asyncio.gather(*(work(i) for i in range(WORKERS)))


def say(value: object) -> None:
    """One line, all of it or none: pipes take up to 4096 bytes at once, longer lines are checked for their end."""
    os.write(1, json.dumps(value).encode() + b"\n")


def start(directory: str, seed: str, *pragmas: str) -> None:
    try:
        asyncio.run(main(Path(directory), int(seed), list(pragmas)))
    except TcdError as error:
        sys.exit(f"{error.code}: {error.detail}")


if __name__ == "__main__":
    start(*sys.argv[1:])
