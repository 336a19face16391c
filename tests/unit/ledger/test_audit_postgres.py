"""Drills over PostgreSQL: the same hands, by whoever owns the database."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")

from typer.testing import CliRunner

from tcd.bench.audit.synthetic import Writer, keyset, signer
from tcd.bench.controller.shim import synthetic_assets
from tcd.cli.main import app
from tcd.errors import ConfigError
from tcd.ledger import Batch, Checkpoint
from tcd.ledger.auditing.decisions import Assets
from tcd.ledger.auditing.postgres import postgres_store
from tcd.ledger.auditing.run import Asked, Result, run
from tcd.ledger.postgres import PostgresLedger
from tcd.ledger.postgres_connect import connect
from tcd.receipts import Receipt, VerifyPolicy
from tcd.receipts.merkle import CompactRange, leaf_hash
from tcd.receipts.witnessing import Seen
from tests.postgres import PostgresServer


class Ledger:
    """A database of six sessions with a checkpoint, and its owner's hands."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.receipts: list[Receipt] = []
        self.seen: Seen | None = None

    async def fill(self) -> None:
        writer, tree, ledger = Writer(), CompactRange(), await PostgresLedger.open(self.url)
        for number in range(6):
            batch = list(writer.session(number))
            await ledger.append(Batch(tuple(batch), writer.take_events()), now_us=writer.now_us)
            self.receipts += batch
        for receipt in self.receipts:
            tree.append(leaf_hash(receipt.head))
        note = signer().checkpoint(tree.size, tree.root(), time=writer.now_us // 1_000_000)
        await ledger.put_checkpoint(Checkpoint(tree.size, tree.root(), note))
        self.seen = Seen(tree.size, tree.root(), note)
        await ledger.close()

    def audit(self, **options: Any) -> Result:
        asked = Asked(VerifyPolicy(keyset()), assets=Assets.of(calibrations=synthetic_assets()), **options)
        with postgres_store(self.url) as store:
            return run(store, asked)

    def found(self, **options: Any) -> list[tuple[str, str]]:
        return [(finding.code, finding.where) for finding in self.audit(**options).audit.findings]

    def do(self, *statements: str, guarded: bool = True) -> None:
        """As the owner: guards are switched off, and on again where nobody is to notice."""

        async def work() -> None:
            connection = await connect(self.url)
            try:
                await connection.execute("SET session_replication_role = replica")
                for statement in statements:
                    await connection.execute(statement)
                if not guarded:
                    await connection.execute("ALTER TABLE tcd_receipt DISABLE TRIGGER tcd_receipt_kept")
            finally:
                await connection.close()

        asyncio.run(work())


EDIT = "UPDATE tcd_body SET body = convert_to(replace(convert_from(body, 'UTF8'), '{}', '{}'), 'UTF8') WHERE idx = 9"


@pytest.fixture
def ledger(postgres: PostgresServer) -> Ledger:
    made = Ledger(postgres.place())
    asyncio.run(made.fill())
    return made


def test_an_honest_database_then_one_hand_after_the_other(ledger: Ledger) -> None:
    size = len(ledger.receipts)
    assert ledger.seen is not None
    result = ledger.audit(seen=(ledger.seen,))
    assert result.audit.findings == []
    assert (result.log["size"], result.log["checkpointed"], result.facts["live"]) == (size, size, True)
    assert result.replay["decisions"] == result.replay["level recomputed"] == 108
    # a row of the issuer's; the index of (chain, seq) and of heads are still there
    ledger.do("UPDATE tcd_receipt SET tenant = 'other' WHERE idx = 7")
    assert ledger.found() == [("row_mismatch", "receipt 7")]
    ledger.do("UPDATE tcd_receipt SET tenant = (SELECT tenant FROM tcd_receipt WHERE idx = 6) WHERE idx = 7")
    ledger.do(EDIT.format("model0", "model1"))
    assert ledger.found() == [("head_mismatch", "receipt 9")]
    ledger.do(EDIT.format("model1", "model0"))
    assert ledger.found() == []
    ledger.do(guarded=False)
    assert ledger.found() == [("guard_missing", "trigger tcd_receipt_kept")]
    ledger.do("ALTER TABLE tcd_receipt ENABLE TRIGGER tcd_receipt_kept")
    ledger.do("ALTER TABLE tcd_receipt DROP CONSTRAINT tcd_receipt_chain")
    assert ledger.found() == [("schema_changed", "constraint tcd_receipt_chain")]
    ledger.do("DELETE FROM tcd_event WHERE idx = 3")
    assert ("event_gap", "event 3") in ledger.found()
    ledger.do(f"DELETE FROM tcd_receipt WHERE idx = {size - 1}", f"DELETE FROM tcd_body WHERE idx = {size - 1}")  # noqa: S608 - a number
    found = ledger.found(seen=(ledger.seen,))
    for expected in (("rollback", "tcd_head"), ("rollback", f"checkpoint {size}"), ("rollback", "ledger")):
        assert expected in found


def test_the_command_and_what_it_cannot_reach(ledger: Ledger, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, out = tmp_path / "keys.json", tmp_path / "report"
    keys.write_text(json.dumps(keyset().to_json()))
    monkeypatch.setenv("TCD_LEDGER", ledger.url)
    done = CliRunner().invoke(app, ["audit", "postgresql", "--keyset", str(keys), "--out", str(out), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["ok"]) == (0, True)
    report = json.loads((out / "report.json").read_text())
    assert report["audit"]["store"] == "PostgreSQL"
    assert ledger.url not in (out / "report.json").read_text() + (out / "report.html").read_text()
    for url in ("postgresql://nobody:secret@127.0.0.1:1/x", "nothing"):
        with pytest.raises(ConfigError) as refused, postgres_store(url):
            pass
        assert "secret" not in refused.value.detail
