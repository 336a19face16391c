"""Commits small decisions one after the other and says which are durable: `python -m tests.faults.writer DIR COUNT`.

Light enough to be run hundreds of times under a disk that fails. After a failed commit it does what the shim does: its
events come with the next one, its receipts do not, and a new chain begins.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from sidecar_api.commit import Committer
from sidecar_api.states import StateKeeper
from tcd.errors import TcdError
from tcd.ledger import SqliteLedger
from tcd.receipts import Receipt
from tcd.risk_av import Controller, ControllerParams
from tests.unit.ledger.records import answer, issue, records

PARAMS = ControllerParams(schedule=("uniform", 10))


async def main(directory: Path, count: int) -> None:
    ledger = SqliteLedger(directory)
    # the WAL is copied back every few commits, so that those writes fail too
    await ledger._run(lambda: ledger._store._connection.execute("PRAGMA wal_autocheckpoint = 25").fetchall())
    controller = Controller(PARAMS)
    committer = Committer(ledger, now_us=lambda: 0)
    keeper = StateKeeper(ledger, controller, every=8)
    last: Receipt | None = None
    for i in range(count):
        controller.reserve(stream="s", hypothesis=str(i))
        events = controller.take_events()
        fresh = records(f"{os.getpid()}-{i}", 1) if last is None else [issue(last.next(), "gap", i)]
        done = committer.put(receipts=tuple(fresh), events=events, answers=(answer(str(i), expires=10**9),))
        keeper.handed(len(events), done)
        try:
            await done
        except TcdError as error:
            last = None
            say({"failed": i, "why": error.detail})
            continue
        last = fresh[-1]
        say({"done": i, "head": last.head_hex})
    await ledger.close()
    say({"end": True})


def say(value: object) -> None:
    os.write(1, json.dumps(value).encode() + b"\n")


if __name__ == "__main__":
    try:
        asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
    except TcdError as error:
        sys.exit(f"{error.code}: {error.detail}")
