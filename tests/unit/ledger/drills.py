"""A whole ledger as a shim leaves it, and hands that may write to its file."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcd.bench.audit.synthetic import Writer, keyset, signer
from tcd.bench.controller.shim import synthetic_assets
from tcd.ledger import Batch, Checkpoint, SqliteLedger
from tcd.ledger.auditing.decisions import Assets
from tcd.ledger.auditing.run import Asked, Result, run
from tcd.ledger.auditing.sources import Row, sqlite_store
from tcd.ledger.sqlite import FILE
from tcd.receipts import Receipt, VerifyPolicy
from tcd.receipts.merkle import CompactRange, leaf_hash
from tcd.receipts.witnessing import Seen

SESSIONS = 12
_ROW = "idx, head, sig, kid, typ, tenant, chain, seq, prev, ts_us"


@dataclass
class Ledger:
    """A ledger file, what is in it, and what an auditor saw of it.

    Attributes:
        folder: of the file.
        receipts: in order.
        seen: checkpoints by size.
    """

    folder: Path
    receipts: list[Receipt] = field(default_factory=list)
    seen: dict[int, Seen] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder / FILE

    @property
    def size(self) -> int:
        return len(self.receipts)

    def copy(self, folder: Path) -> Ledger:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.path, folder / FILE)
        return Ledger(folder, list(self.receipts), dict(self.seen))

    def audit(self, *, seen: Sequence[Seen] = (), live: bool = False, **options: Any) -> Result:
        """With the keys, the calibration, and without a checkpoint from elsewhere unless one is given."""
        policy = VerifyPolicy(keyset(), log_algorithms=frozenset({"Ed25519", "ML-DSA-44"}))
        asked = Asked(policy, seen=seen, **{"assets": Assets.of(calibrations=synthetic_assets()), **options})
        with sqlite_store(self.path, live=live) as store:
            return run(store, asked)

    def found(self, **options: Any) -> list[tuple[str, str]]:
        """Code and place of every finding."""
        return [(finding.code, finding.where) for finding in self.audit(**options).audit.findings]

    def row(self, index: int) -> Row:
        with sqlite_store(self.path) as store:
            return store.rows(index)[0]

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """The file in the hands of somebody who puts the guards back afterwards."""
        with closing(sqlite3.connect(self.path)) as db:
            guards = db.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
            for name, _ in guards:
                db.execute(f"DROP TRIGGER {name}")
            yield db
            for _, sql in guards:
                db.execute(sql)
            db.commit()

    def do(self, *statements: str, **values: Any) -> None:
        with self.changing() as db:
            for statement in statements:
                db.execute(statement, values)

    def events(self) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.path)) as db:
            return [json.loads(text) for (text,) in db.execute("SELECT event FROM event ORDER BY idx")]

    def rewrite(self, events: dict[int, dict[str, Any]]) -> None:
        """Put other events in the place of some."""
        with self.changing() as db:
            for at, event in events.items():
                db.execute("UPDATE event SET event = ? WHERE idx = ?", (json.dumps(event), at))

    def decision(self, number: int = 0) -> int:
        """Position of a decision, the third of its session or later."""
        found = [i for i, receipt in enumerate(self.receipts) if receipt.typ == "decision" and receipt.seq > 3]
        return found[number]

    def after(self, index: int) -> int:
        """Position of the next record of the same chain."""
        mine = self.receipts[index]
        return next(i for i, r in enumerate(self.receipts) if r.chain == mine.chain and r.seq == mine.seq + 1)


async def written(folder: Path, writer: Writer, *, sessions: int = SESSIONS) -> Ledger:
    """A ledger of whole sessions, with a checkpoint after half of them and one at the end."""
    made, tree, log, ledger = Ledger(folder), CompactRange(), signer(), SqliteLedger(folder)
    try:
        for number in range(sessions):
            batch = list(writer.session(number))
            await ledger.append(Batch(tuple(batch), writer.take_events()), now_us=writer.now_us)
            made.receipts += batch
            for receipt in batch:
                tree.append(leaf_hash(receipt.head))
            if number in {sessions // 2 - 1, sessions - 1}:
                root = tree.root()
                note = log.checkpoint(tree.size, root, time=writer.now_us // 1_000_000)
                await ledger.put_checkpoint(Checkpoint(tree.size, root, note))
                made.seen[tree.size] = Seen(tree.size, root, note)
    finally:
        await ledger.close()
    return made


def make(folder: Path, seed: int = 0, writer: Writer | None = None, *, sessions: int = SESSIONS) -> Ledger:
    """The same, outside a loop."""
    folder.mkdir(parents=True, exist_ok=True)
    return asyncio.run(written(folder, writer or Writer(seed), sessions=sessions))
