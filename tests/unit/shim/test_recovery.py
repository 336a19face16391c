"""A shim on a ledger that was used before: nothing spent comes back, nothing answered is lost, chains end honestly."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.app import Edges
from sidecar_api.recovery import recover
from sidecar_api.stores import KEY_FILE, data_directory, open_ledger, with_key
from tcd.errors import ConfigError, Unavailable
from tcd.ledger import Batch, MemoryLedger, SavedState, SqliteLedger
from tcd.ledger.sqlite import FILE
from tcd.ledger.sqlite_reader import state_digest
from tcd.receipts import KeySet, VerifyPolicy, verify_chain
from tcd.risk_av import Controller
from tests.unit.shim.conftest import Client, ScriptedScorer, settings_of

SEED = "22" * 32


@asynccontextmanager
async def serving(
    make_client: Callable[..., Client], directory: Path, *, end: bool = True, **settings: Any
) -> AsyncIterator[Client]:
    """A shim on the directory's ledger; `end=False` leaves as a crash does: without a word."""
    ledger = SqliteLedger(directory)
    client = make_client(edges=Edges(ledger=ledger), attest_sk_hex=SEED, **settings)
    service = client.app.runtime.service
    await recover(ledger, service.judge)
    try:
        yield client
    finally:
        if end:
            await service.stop(timeout=60.0)
        await service.judge.flush()
        await ledger.close()


def end_all(client: Client) -> None:
    """End every session: nothing is left that a restart would have to abandon."""
    service = client.app.runtime.service
    for session in list(service.sessions):
        service.lifecycle.end(session, "end")


async def test_what_was_spent_stays_spent_and_the_epoch_goes_on(make_client: Any, tmp_path: Path) -> None:
    indices = []
    for session in range(4):
        async with serving(make_client, tmp_path, end=session % 2 == 0) as client:
            answer = await client.step(session=f"s{session}")
            indices.append((answer["epoch"], answer["components"]["av"]["index"], answer["alpha_spent"]))
    assert [epoch for epoch, _, _ in indices] == [1] * 4
    assert [index for _, index, _ in indices] == [1, 2, 3, 4]
    assert [spent for _, _, spent in indices] == sorted({spent for _, _, spent in indices})


async def test_the_state_is_the_logs_bit_for_bit(make_client: Any, tmp_path: Path) -> None:
    async with serving(make_client, tmp_path, end=False) as client:
        for i in range(7):
            await client.step(session=f"s{i}", tenant=f"t{i % 2}")
        controller = client.app.runtime.service.budget.controller
        for stream in controller.streams:
            for hypothesis in controller.open_hypotheses(stream):
                controller.close(stream=stream, hypothesis=hypothesis, reason="abandoned")
        before = controller.digest()
    async with serving(make_client, tmp_path, end=False) as client:
        assert client.app.runtime.service.budget.controller.digest() == before


async def test_a_retry_after_a_restart_gets_the_answer_it_would_have_had(make_client: Any, tmp_path: Path) -> None:
    request = {"trace_vector": [-1.0], "session": "s", "idempotency_key": "k"}
    async with serving(make_client, tmp_path, end=False) as client:
        first = await client.post(request)
    async with serving(make_client, tmp_path) as client:
        again = await client.post(request)
        other = await client.post({**request, "trace_vector": [-2.0]})
        assert (again.status, again.body, other.status) == (200, first.body, 409)
        controller = client.app.runtime.service.budget.controller
        assert controller.state(controller.streams[0]).reserved_total == 1


async def test_every_chain_verifies_whole_after_restarts(make_client: Any, tmp_path: Path) -> None:
    pinned = []
    for round_ in range(3):
        async with serving(make_client, tmp_path, end=False) as client:
            receipts = client.app.runtime.service.judge.receipts
            assert receipts is not None
            pinned = [receipts.issuer.pinned()]
            for i in range(3):
                await client.step(session=f"s{round_}-{i}")
                await client.step(session=f"s{round_}-{i}")
    async with serving(make_client, tmp_path) as client:
        ledger = client.app.runtime.ledger
        (still_open,) = await ledger.open_chains()
        heads = await ledger.heads()
        chains: dict[str, list[Any]] = {}
        for head in heads:
            stored = await ledger.get(head.hex())
            assert stored is not None
            assert stored.receipt is not None
            chains.setdefault(stored.receipt.chain, []).append(stored.receipt)
        scopes = []
        for records in chains.values():
            report = verify_chain(
                heads=[r.head_hex for r in records],
                bodies=[r.body_text for r in records],
                sigs=[r.sig_hex for r in records],
                policy=VerifyPolicy(KeySet(pinned)),
            )
            assert report.ok, report.checks
            opened = json.loads(records[0].body)["open"]
            scopes.append(opened["scope"])
            last = json.loads(records[-1].body)
            if opened["scope"] == "session":
                assert last["close"] == {"reason": "abandoned", "count": len(records)}
            else:
                assert still_open.id == records[0].chain
        assert sorted(scopes) == ["epoch", *["session"] * 9]


async def test_new_settings_are_logged_and_a_calibrated_length_stays(make_client: Any, tmp_path: Path) -> None:
    async with serving(make_client, tmp_path, end=False, alpha=0.05) as client:
        length = (await client.step(session="a"))["components"]["av"]["details"]
    async with serving(make_client, tmp_path, end=False, alpha=0.02) as client:
        controller = client.app.runtime.service.budget.controller
        (stream,) = controller.streams
        before, after = controller.params.alpha, controller.params_of(stream)
        assert (before, after.alpha) == (0.02, 0.02)
        answer = await client.step(session="b")
        assert answer["components"]["av"]["details"].keys() == length.keys()
        assert answer["components"]["av"]["index"] == 2
    async with serving(make_client, tmp_path, alpha=0.02) as client:
        assert client.app.runtime.service.budget.controller.params_of(stream) == after


async def test_a_start_folds_only_what_came_after_the_saved_state(make_client: Any, tmp_path: Path) -> None:
    digests: list[str] = []
    found = []
    for round_ in range(4):
        ledger = SqliteLedger(tmp_path)
        client = make_client(edges=Edges(ledger=ledger), attest_sk_hex=SEED, state_every=20)
        service = client.app.runtime.service
        found.append(await recover(ledger, service.judge))
        if round_:
            assert service.budget.controller.digest() == digests[-1]
        await asyncio.gather(*(client.step(session=f"{round_}-{i}", tenant=f"t{i % 3}") for i in range(9)))
        end_all(client)
        if round_ == 1:
            await service.stop(timeout=60.0)
            assert (await ledger.states())[0] == (await ledger.stats()).events
        await service.judge.flush()
        digests.append(service.budget.controller.digest())
        await ledger.close()
    assert found[0].saved == 0
    assert all(0 < f.saved <= f.events for f in found[1:])
    assert found[2].saved == found[2].events, "a graceful stop saves where the log ends"
    ledger = SqliteLedger(tmp_path)
    page = await ledger.events(limit=100_000)
    whole = Controller.replay(page.events)
    saved = Controller()
    newest = (await ledger.states())[0]
    saved.restore((await ledger.state(newest)).data)
    saved.fold(page.events[newest:])
    assert saved.save() == whole.save()
    assert saved.digest() == digests[-1]
    await ledger.close()


@pytest.mark.parametrize("damage", ["newest", "both", "misplaced"])
async def test_a_damaged_state_costs_time_and_nothing_else(
    make_client: Any, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        async with serving(make_client, tmp_path) as client:
            for i in range(3):
                await client.step(session=f"s{i}")
            end_all(client)
            controller = client.app.runtime.service.budget.controller
    wanted = controller.digest()
    connection = sqlite3.connect(tmp_path / FILE)
    newest, older = (row[0] for row in connection.execute("SELECT events FROM state ORDER BY events DESC"))
    if damage == "misplaced":
        # the digest fits, but what follows does not
        data = connection.execute("SELECT data FROM state WHERE events = ?", (older,)).fetchone()[0]
        connection.execute("DELETE FROM state")
        connection.execute("INSERT INTO state VALUES (?, ?, ?)", (1, state_digest(SavedState(1, data)), data))
    else:
        oldest_hit = older if damage == "both" else newest
        connection.execute(
            "UPDATE state SET data = CAST(x'00' || substr(data, 2) AS BLOB) WHERE events >= ?", (oldest_hit,)
        )
    connection.commit()
    connection.close()
    async with serving(make_client, tmp_path, end=False) as client:
        assert client.app.runtime.service.budget.controller.digest() == wanted
    assert "passed over" in caplog.text


async def test_a_state_that_cannot_be_kept_is_a_warning(
    make_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tcd.ledger.rules.MAX_STATE", 10)
    async with serving(make_client, tmp_path, state_every=1) as client:
        assert (await client.step(session="s"))["cause"] == ""
    assert "was not saved" in caplog.text


class _Fails(MemoryLedger):
    """A durable ledger whose first `left` appends fail."""

    durable = True

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    async def append(self, batch: Batch, **options: Any) -> Any:
        if self.left:
            self.left -= 1
            msg = "no space"
            raise Unavailable(msg)
        return await super().append(batch, **options)


async def test_nothing_is_scored_before_its_reservation_is_durable(make_client: Any) -> None:
    ledger = _Fails(left=1)
    scorer = ScriptedScorer()
    client = make_client(scorer, edges=Edges(ledger=ledger))
    controller = client.app.runtime.service.budget.controller
    params = controller.params
    refused = await client.step(session="a")
    assert (refused["cause"], refused["action"]) == ("degraded", "block")
    assert scorer.rows == []
    fine = await client.step(session="b")
    assert (fine["cause"], len(scorer.rows)) == ("", 1)
    page = await ledger.events()
    assert Controller.replay(page.events, params).digest() == controller.digest()


def test_the_receipt_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    settings = settings_of(attest_sk_hex=None, data_dir=tmp_path)
    made = [with_key(settings, {}, random).attest_sk_hex for random in (lambda n: b"\x01" * n, bytes)]
    assert [key and key.get_secret_value() for key in made] == ["01" * 32] * 2
    path = tmp_path / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        with_key(settings, {}, bytes)
    path.chmod(0o600)
    path.write_text("not a key")
    with pytest.raises(ConfigError, match="64 hex digits") as refused:
        with_key(settings, {}, bytes)
    assert "not a key" not in refused.value.detail
    given = settings_of(data_dir=tmp_path)
    assert with_key(given, {}, bytes) is given


def test_where_the_data_is(tmp_path: Path) -> None:
    assert data_directory(settings_of(attest_sk_hex=None, data_dir=tmp_path), {"XDG_STATE_HOME": "/else"}) == tmp_path
    assert data_directory(settings_of(attest_sk_hex=None), {"XDG_STATE_HOME": "/state"}) == Path("/state/tcd")
    assert (
        data_directory(settings_of(attest_sk_hex=None), {"XDG_STATE_HOME": "relative"})
        == Path.home() / ".local/state/tcd"
    )
    assert isinstance(open_ledger(settings_of(attest_sk_hex=None, ledger="memory"), {}), MemoryLedger)
    with_key(settings_of(attest_sk_hex=None, ledger="memory"), {"XDG_STATE_HOME": str(tmp_path)}, bytes)
    assert list(tmp_path.iterdir()) == []


async def test_two_hundred_sessions_under_way_are_closed_in_pages(
    make_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar_api.recovery._CHAINS", 32)
    monkeypatch.setattr("sidecar_api.recovery._PAGE", 64)
    async with serving(make_client, tmp_path, end=False) as client:
        await asyncio.gather(*(client.step(session=f"s{i}") for i in range(100)))
    ledger = SqliteLedger(tmp_path)
    client = make_client(edges=Edges(ledger=ledger), attest_sk_hex=SEED)
    found = await recover(ledger, client.app.runtime.service.judge)
    assert (found.hypotheses, found.chains, found.streams) == (100, 100, 1)
    assert len(await ledger.open_chains()) == 1
    await ledger.close()
