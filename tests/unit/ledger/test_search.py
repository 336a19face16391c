"""The search index finds what a scan finds, page by page, and knows whose ledger it is of."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcd.errors import Unavailable
from tcd.ledger.search import FILTERS, Found, ReceiptIndex, query
from tcd.ledger.values import Extent

DIGEST = "sha256:" + "0" * 64
RECORD = st.fixed_dictionaries(
    {
        "ts_us": st.integers(1, 5),
        "tenant": st.sampled_from(["a", "b"]),
        "model": st.sampled_from(["m1", "m2"]),
        "action": st.sampled_from(["allow", "block"]),
        "verdict": st.booleans(),
        "kind": st.sampled_from(["decision", "open", "admin"]),
    }
)


class Receipt:
    def __init__(self, body: bytes) -> None:
        self.body = body


class Stored:
    stub = None

    def __init__(self, index: int, head: bytes, receipt: Receipt | None) -> None:
        self.index, self.head, self.receipt = index, head.hex(), receipt


class Ledger:
    """As much of a ledger as an index reads."""

    def __init__(self, records: list[dict[str, Any]], *, name: str = "", evicted: int = 0) -> None:
        self.name = name
        self.bodies = [body_of(record) for record in records]
        self.evicted = evicted
        self.gone: set[int] = set()
        self.read = 0

    def head(self, index: int) -> bytes:
        return hashlib.sha256(f"{self.name}{index}".encode() + self.bodies[index]).digest()

    async def extent(self) -> Extent:
        return Extent(len(self.bodies), self.evicted)

    async def heads(self, *, first: int = 0, limit: int = 1) -> list[bytes]:
        return [self.head(i) for i in range(first, min(first + limit, len(self.bodies)))]

    async def records(self, *, first: int, limit: int) -> list[Stored]:
        places = range(first, min(first + limit, len(self.bodies)))
        self.read += len(places)
        return [Stored(i, self.head(i), None if i in self.gone else Receipt(self.bodies[i])) for i in places]


def body_of(record: dict[str, Any]) -> bytes:
    body: dict[str, Any] = {"typ": record["kind"], "ts_us": record["ts_us"], "tenant": record["tenant"]}
    if record["kind"] == "decision":
        decided = {"action": record["action"], "enforced": "allow", "cause": "av", "verdict": record["verdict"]}
        body |= {"subject": DIGEST, "model": {"id": record["model"]}, "decision": decided}
    elif record["kind"] == "open":
        body["open"] = {"subject": DIGEST, "model": {"id": record["model"]}}
    return json.dumps(body).encode()


def index_of(ledger: Ledger, path: Path | str = ":memory:") -> ReceiptIndex:
    return ReceiptIndex(path, ledger)  # type: ignore[arg-type]


def scanned(records: list[dict[str, Any]], wanted: dict[str, Any], since: int | None, until: int | None) -> list[int]:
    """Positions that match, newest first."""
    found = []
    for at, r in enumerate(records):
        known = {"tenant": r["tenant"], "typ": r["kind"]}
        if r["kind"] != "admin":
            known |= {"model": r["model"], "subject": DIGEST}
        if r["kind"] == "decision":
            known |= {"action": r["action"], "verdict": r["verdict"], "enforced": "allow", "cause": "av"}
        in_time = (since is None or r["ts_us"] >= since) and (until is None or r["ts_us"] < until)
        if in_time and all(known.get(name) == value for name, value in wanted.items()):
            found.append((r["ts_us"], at))
    return [at for _, at in sorted(found, reverse=True)]


async def paged(index: ReceiptIndex, wanted: dict[str, Any], limit: int, **times: Any) -> list[Found]:
    out: list[Found] = []
    before = None
    while page := await index.search(wanted, limit=limit, before=before, **times):
        out += page
        before = (page[-1].ts_us, page[-1].index)
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.lists(RECORD, max_size=30),
    st.fixed_dictionaries(
        {},
        optional={
            "tenant": st.sampled_from(["a", "b", "c"]),
            "model": st.sampled_from(["m1", "m2"]),
            "action": st.just("block"),
            "verdict": st.booleans(),
            "typ": st.sampled_from(["decision", "open", "admin"]),
            "subject": st.just(DIGEST),
        },
    ),
    st.integers(1, 7),
    st.none() | st.integers(0, 6),
    st.none() | st.integers(0, 6),
)
def test_pages_put_together_are_a_scan(
    records: list[dict[str, Any]], wanted: dict[str, Any], limit: int, since: int | None, until: int | None
) -> None:
    async def run() -> None:
        index = index_of(Ledger(records))
        assert await index.catch_up() == len(records)
        found = await paged(index, wanted, limit, since_us=since, until_us=until)
        assert [f.index for f in found] == scanned(records, wanted, since, until)
        await index.close()

    asyncio.run(run())


def made(number: int, **changes: Any) -> list[dict[str, Any]]:
    plain = {"tenant": "a", "model": "m1", "action": "allow", "verdict": False, "kind": "decision"}
    return [{**plain, "ts_us": 1 + at, **changes} for at in range(number)]


async def test_new_receipts_shift_no_page() -> None:
    ledger = Ledger(made(10))
    index = index_of(ledger)
    await index.catch_up()
    first = await index.search({}, limit=4)
    ledger.bodies += [body_of(r) for r in made(5, ts_us=100)]
    assert await index.catch_up() == 15
    second = await index.search({}, limit=4, before=(first[-1].ts_us, first[-1].index))
    assert [f.index for f in (*first, *second)] == [9, 8, 7, 6, 5, 4, 3, 2]
    await index.close()


async def test_a_second_start_reads_only_what_is_new(tmp_path: Path) -> None:
    ledger = Ledger(made(2500))
    index = index_of(ledger, tmp_path / "s.sqlite")
    assert await index.catch_up() == 2500
    await index.close()
    ledger.bodies += [body_of(r) for r in made(3, ts_us=9999)]
    index = index_of(ledger, tmp_path / "s.sqlite")
    assert await index.catch_up() == 2503
    assert ledger.read == 2503
    await index.close()


async def test_an_index_of_another_ledger_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    index = index_of(Ledger(made(3, model="m1")), path)
    await index.catch_up()
    await index.close()
    for other in (Ledger(made(5, model="m2"), name="x"), Ledger(made(1, model="m2"))):
        index = index_of(other, path)
        assert await index.catch_up() == len(other.bodies)
        assert await index.search({"model": "m1"}) == []
        assert len(await index.search({})) == len(other.bodies)
        await index.close()


async def test_what_is_no_longer_kept_is_skipped_and_a_body_that_is_gone_is_known_by_its_head() -> None:
    ledger = Ledger(made(6), evicted=2)
    ledger.gone = {3}
    index = index_of(ledger)
    assert await index.catch_up() == 6
    found = {f.index: f for f in await index.search({})}
    assert sorted(found) == [2, 3, 4, 5]
    assert (found[3].typ, found[3].head, found[3].model) == ("", ledger.head(3).hex(), None)
    await index.close()


@pytest.mark.parametrize("name", FILTERS)
async def test_every_filter_is_answered_from_an_index_without_a_sort(name: str) -> None:
    index = index_of(Ledger(made(3)))
    await index.catch_up()
    for before in (None, (3, 2)):
        plan = await index._run(index.plan, *query({name: "x"}, 1, 9, before, 10))
        assert len(plan) == 1, plan
        assert f"USING INDEX by_{name}" in plan[0]
    plan = await index._run(index.plan, *query({}, None, None, (3, 2), 10))
    assert "SEARCH receipt USING INDEX by_time" in plan[0]
    await index.close()


def test_a_filter_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="no filter"):
        query({"1=1; --": "x"}, None, None, None, 1)


@pytest.mark.parametrize("name", ["_INSERT", "_row"])
async def test_an_error_within_a_page_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    records = made(5)
    index = index_of(Ledger(records))
    with monkeypatch.context() as patch:
        if name == "_INSERT":
            patch.setattr("tcd.ledger.search._INSERT", "INSERT INTO nothing VALUES (?)")
            with pytest.raises(Unavailable, match="index of the receipts"):
                await index.catch_up()
        else:
            patch.setattr("tcd.ledger.search._row", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await index.catch_up()
    assert await index.catch_up() == len(records)
    await index.close()
