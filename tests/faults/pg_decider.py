"""A shim without HTTP on PostgreSQL, for tests that kill it or its server.

Decides for ever; one JSON line per answer to standard output, after it is durable.
While the ledger is away its answers are the failure policy's, and it says so.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from tests.faults.decider import say
from tests.faults.shims import start_shim
from tests.unit.shim.conftest import ScriptedScorer

WORKERS = 12


async def main(url: str, seed: int, ttl: float) -> None:
    random = np.random.default_rng(seed)
    scorer = ScriptedScorer(p=lambda _: float(random.uniform()), hops=2, seed=seed)
    shim = await start_shim(url, scorer, lease_ttl_s=ttl, epoch_length=40, on_failure="static")
    say({"recovered": shim.replica.follower.position})

    async def work(worker: int) -> None:
        for n in range(1_000_000):
            session = f"{seed}-{worker}-{n // 3}"
            request: dict[str, Any] = {"trace_vector": [-1.0], "tenant": f"t{worker % 3}", "session": session}
            request["step_id"] = n % 3
            if n % 4 == 0:
                request["idempotency_key"] = f"{session}-{n}"
            reply = await shim.client.post(request)
            answer = reply.json()
            if reply.status == 200 and answer["cause"] != "degraded":
                keyed = "idempotency_key" in request
                say(
                    {
                        "tenant": request["tenant"],
                        "epoch": answer["epoch"],
                        "spent": answer["alpha_spent"],
                        "step": answer["components"]["av"]["index"],
                        "receipt": answer["receipt"],
                        "request": request if keyed else None,
                        "answer": reply.body.decode() if keyed else "",
                    }
                )
            else:
                why = [check["reason"] for check in answer.get("checks", ()) if check["status"] == "failed"]
                say({"refused": reply.status, "action": answer.get("action"), "why": why or answer.get("detail")})
                # an outage is not a busy loop
                await asyncio.sleep(0.02)

    await asyncio.gather(*(work(i) for i in range(WORKERS)))


def start(url: str, seed: str, ttl: str) -> None:
    asyncio.run(main(url, int(seed), float(ttl)))
