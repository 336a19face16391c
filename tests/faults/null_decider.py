"""Benign sessions for ever, through the shim on a SQLite ledger.

Session n has one step and one uniform p-value, the same in every life. First the sessions whose answers were not heard
in the last life are sent `again`; then `first` and all after it. Says what was answered, after it is durable.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from sidecar_api.recovery import recover
from tcd.bench.controller.shim import LENGTH, NullScorer, post, synthetic_assets
from tcd.config import Settings
from tcd.ledger import SqliteLedger
from tests.unit.shim.conftest import PATIENT

WORKERS = 32


async def main(directory: Path, seed: int, numbers: Iterator[int]) -> None:
    values: dict[str, Any] = {
        **dict.fromkeys(("http_rate_cap", "http_rate_refill", "edge_rate_cap", "edge_rate_refill"), 1e9),
        "attest_sk_hex": "11" * 32,
        "receipts_enable": False,
        "log_decisions": False,
        **PATIENT,
        "sessions_max": 1_000_000,
        "epoch_length": LENGTH,
        "state_every": 500,
    }
    ledger = SqliteLedger(directory)
    edges = Edges(ledger=ledger)
    app = create_app(Settings(**values), scorer=NullScorer(seed), assets=FixedAssets(synthetic_assets()), edges=edges)
    await recover(ledger, app.runtime.service.judge)
    os.write(1, json.dumps({"pid": os.getpid()}).encode() + b"\n")

    async def work() -> None:
        for n in numbers:
            request = {"trace_vector": [-float(n)], "session": f"s{n}", "step_id": 0, "request_id": f"r{n}"}
            answer = await post(app, "/diagnose", request)
            said = {"n": n, "epoch": answer["epoch"], "trigger": answer["trigger"], "cause": answer["cause"]}
            os.write(1, json.dumps(said).encode() + b"\n")

    await asyncio.gather(*(work() for _ in range(WORKERS)))


def start(directory: str, seed: str, first: str, *again: str) -> None:
    asyncio.run(main(Path(directory), int(seed), itertools.chain(map(int, again), itertools.count(int(first)))))
