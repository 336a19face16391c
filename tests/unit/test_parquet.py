"""Receipts as Parquet: DuckDB reads what the bodies say, erased ones are known as such, memory does not grow."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tcd.bench.audit.writing import write as write_log
from tcd.cli.export import app
from tcd.ledger import Batch, SqliteLedger
from tcd.ledger.auditing.sources import Row, sqlite_store
from tcd.ledger.sqlite import FILE
from tcd.parquet import VERSION, Wanted, schema, write
from tcd.risk_av import unhex64
from tests.unit.receipts.conftest import Session

#: Rows of a group, where a test needs small ones.
GROUP = 2048
PAGE = Path(__file__).resolve().parents[2] / "docs" / "log-export.md"


async def filled(folder: Path) -> list[Any]:
    """A session with everything that a decision can have, a second one whose opening and decision are erased."""
    one, two = Session(name="one"), Session(name="two", tenant="other")
    one.open()
    one.fold(0.01)
    risk = {"tier": 1, "alarm": False, "floor": False, "failed": False}
    one.decision(risk=risk | dict.fromkeys(("spent", "distrust", "pressure"), "3fb999999999999a"))
    one.decision()
    one.issue("gap", {"gap": {"from": 2, "to": 3, "reason": "lost"}})
    act = {"action": "a", "actor": "alice + bob", "object": "sha256:" + "0" * 64, "reason": "why"}
    one.issue("admin", {"admin": act})
    one.close()
    two.open()
    two.decision()
    made = [*one.receipts, *two.receipts]
    ledger = SqliteLedger(folder)
    await ledger.append(Batch(tuple(made)), now_us=0)
    await ledger.append(Batch(erase=(len(made) - 2, len(made) - 1)), now_us=0)
    await ledger.close()
    return made


@contextmanager
def queried(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        db.execute("CREATE TABLE r AS SELECT * FROM read_parquet(?)", [str(file)])
        yield db


async def test_duckdb_reads_what_the_bodies_say(tmp_path: Path) -> None:
    made = await filled(tmp_path / "data")
    file = tmp_path / "receipts.parquet"
    done = CliRunner().invoke(app, ["parquet", str(tmp_path / "data"), "--out", str(file), "--bodies"])
    assert done.exit_code == 0, done.output
    assert f"{len(made)} receipts" in done.output
    with queried(file) as db:
        rows = db.execute('SELECT "index", head, typ, tenant, seq, erased, body FROM r ORDER BY "index"').fetchall()
        for at, (row, receipt) in enumerate(zip(rows, made, strict=True)):
            gone = at >= len(made) - 2
            text = None if gone else receipt.body_text
            assert row == (at, receipt.head_hex, receipt.typ, receipt.tenant, receipt.seq, gone, text)
        body = json.loads(made[1].body)
        found = db.execute(
            "SELECT verdict, score, action, cause, temperature, tags, p, wealth, e_log10, distrust, model_id, subject,"
            " invertibility_z, multivariate_p, epoch_us(time) FROM r WHERE seq = 1 AND tenant = 'acme'"
        ).fetchone()
        assert found is not None
        decision, av, eproc = body["decision"], body["av"], body["eproc"]
        assert found[:6] == (decision["verdict"], 0.75, "degrade", "detector", 0.7, ["é"])
        assert found[6:8] == (unhex64(av["p"]), unhex64(av["wealth"]))
        assert 10 ** found[8] == pytest.approx(unhex64(eproc["e"]) * 2.0 ** eproc["e_exp2"])
        assert found[9:12] == (unhex64("3fb999999999999a"), "model0", body["subject"])
        assert found[12:] == (-3.5, None, body["ts_us"])
        # an opening names its subject too; what is no decision has no verdict; an erased row has nothing but its place
        assert db.execute("SELECT count(*) FROM r WHERE subject = ?", [body["subject"]]).fetchone() == (3,)
        assert db.execute("SELECT count(*) FROM r WHERE verdict IS NULL AND NOT erased").fetchone() == (4,)
        assert db.execute("SELECT DISTINCT subject, action, p, config FROM r WHERE erased").fetchall() == [(None,) * 4]
        assert db.execute("SELECT actor, admin_action, admin_reason FROM r WHERE typ = 'admin'").fetchall() == [
            ("alice + bob", "a", "why")
        ]


async def test_a_part_of_it(tmp_path: Path) -> None:
    await filled(tmp_path / "data")
    for options, count in ((["--typ", "decision"], 3), (["--tenant", "other"], 2), (["--first", "5"], 3)):
        file = tmp_path / "part.parquet"
        done = CliRunner().invoke(app, ["parquet", str(tmp_path / "data"), "--out", str(file), *options])
        assert done.exit_code == 0, done.output
        assert pq.read_metadata(file).num_rows == count
        assert "body" not in pq.read_schema(file).names


async def test_a_ledger_in_use_is_exported_and_what_is_none_is_refused(tmp_path: Path) -> None:
    await filled(tmp_path / "data")
    ledger = SqliteLedger(tmp_path / "data")
    file = tmp_path / "live.parquet"
    assert CliRunner().invoke(app, ["parquet", str(tmp_path / "data"), "--out", str(file)]).exit_code == 0
    await ledger.close()
    (tmp_path / FILE).write_bytes(b"no database at all, whatever it is called")
    for place in (tmp_path, tmp_path / "nowhere"):
        other = tmp_path / "other.parquet"
        done = CliRunner().invoke(app, ["parquet", str(place), "--out", str(other)])
        assert done.exit_code == 2
        assert not other.exists()


class _Endless:
    """A ledger of so many copies of one row."""

    name, live = "copies", False

    def __init__(self, row: Row, size: int) -> None:
        self._row, self._size = row, size

    def sizes(self) -> Any:
        from tcd.ledger.auditing.sources import Sizes  # noqa: PLC0415

        return Sizes(self._size, 0, 0)

    def rows(self, first: int) -> list[Row]:
        return [self._row._replace(idx=at) for at in range(first, min(first + 2048, self._size))]


class _Nowhere:
    """Counts bytes."""

    closed = False

    def __init__(self) -> None:
        self.size = 0

    def write(self, data: Any) -> int:
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None: ...

    def close(self) -> None: ...


async def test_memory_does_not_grow_with_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tcd.parquet.GROUP", GROUP)
    await filled(tmp_path)
    with sqlite_store(tmp_path / FILE) as store:
        row = store.rows(0)[2]
    peaks = []
    for groups in (2, 5):
        out = _Nowhere()
        tracemalloc.start()
        assert write(_Endless(row, groups * GROUP), out, Wanted()) == groups * GROUP  # type: ignore[arg-type] # as much of both as is used
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert out.size > 0
    assert peaks[1] < 1.3 * peaks[0]


def test_row_groups_and_a_synthetic_log(tmp_path: Path) -> None:
    write_log(tmp_path / "data", 3000)
    file = tmp_path / "log.parquet"
    with sqlite_store(tmp_path / "data" / FILE) as store, file.open("wb") as out:
        size = store.sizes().receipts
        assert write(store, out, Wanted()) == size
    found = pq.ParquetFile(file)
    assert (found.metadata.num_rows, found.schema_arrow.metadata[b"tcd"].decode()) == (size, VERSION)
    with queried(file) as db:
        share = db.execute("SELECT avg(trigger::int), count(*) FROM r WHERE typ = 'decision'").fetchone()
    assert share is not None
    assert share[1] > 2000


def test_the_page_has_every_column() -> None:
    table = PAGE.read_text().partition("## As Parquet")[2].partition("\n## ")[0]
    said = {name for cell in re.findall(r"(?m)^\| (`.*?) \|", table) for name in re.findall(r"`(\w+)`", cell)}
    names = set()
    for name in schema(bodies=True).names:
        part = re.fullmatch(r"(?:invertibility|entropy_drop|sigma_cut|recurrence|multivariate)_(\w+)", name)
        names.add(f"NAME_{part[1]}" if part else name)
    assert said == names
