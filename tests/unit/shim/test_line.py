"""Steps are concluded together: in order, stage by stage, a few in each turn, and none is left half done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.app import Edges
from sidecar_api.draft import Draft
from sidecar_api.idempotency import Idempotency
from sidecar_api.line import SLICE, Line
from sidecar_api.receipting import Receipts
from sidecar_api.recovery import recover
from tcd.ledger import SqliteLedger
from tcd.receipts import KeySet, VerifyPolicy, verify_chain
from tcd.risk_av import Controller


def defect(*_: Any, **__: Any) -> Any:
    msg = "a defect"
    raise RuntimeError(msg)


async def settled() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def test_a_stage_is_run_for_all_before_the_next_one() -> None:
    ran: list[str] = []
    line = Line([lambda i: ran.append(f"a{i}"), lambda i: ran.append(f"b{i}")], failed=lambda *_: None)
    for item in range(3):
        line.add(item)
    assert not ran, "items pass in the next turn of the loop"
    await settled()
    assert ran == ["a0", "a1", "a2", "b0", "b1", "b2"]


async def test_no_more_than_a_slice_passes_in_one_turn() -> None:
    ran: list[int] = []
    line = Line([ran.append], failed=lambda *_: None)
    for item in range(2 * SLICE + 1):
        line.add(item)
    seen = []
    for _ in range(5):
        seen.append(len(ran))
        await asyncio.sleep(0)
    assert seen == [0, SLICE, 2 * SLICE, 2 * SLICE + 1, 2 * SLICE + 1]
    assert ran == list(range(2 * SLICE + 1))


async def test_who_raises_leaves_and_the_others_go_on() -> None:
    ran: list[str] = []
    lost: list[tuple[int, str]] = []

    def first(item: int) -> None:
        if item == 1:
            msg = "odd"
            raise ValueError(msg)
        ran.append(f"a{item}")

    line = Line([first, lambda i: ran.append(f"b{i}")], failed=lambda item, error: lost.append((item, str(error))))
    for item in range(3):
        line.add(item)
    await settled()
    assert ran == ["a0", "a2", "b0", "b2"]
    assert lost == [(1, "odd")]


async def test_the_line_goes_on_where_even_the_failure_fails(caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []

    def stage(item: int) -> None:
        ran.append(f"a{item}")
        if not item:
            msg = "odd"
            raise ValueError(msg)

    def failed(item: int, error: Exception) -> None:
        msg = f"worse: {error}"
        raise RuntimeError(msg)

    line = Line([stage, lambda i: ran.append(f"b{i}")], failed)
    for item in range(3):
        line.add(item)
    await settled()
    line.add(3)
    await settled()
    assert ran == ["a0", "a1", "a2", "b1", "b2", "a3", "b3"]
    assert "worse: odd" in caplog.text


async def test_who_is_in_a_hurry_takes_those_before_it_along() -> None:
    ran: list[str] = []
    line = Line([lambda i: ran.append(f"a{i}"), lambda i: ran.append(f"b{i}")], failed=lambda *_: None)
    for item in range(SLICE + 2):
        line.add(item)
    line.hurry(1)
    assert ran == [f"{stage}{item}" for stage in "ab" for item in range(SLICE)], "and no more than a slice"
    line.hurry(1)
    assert len(ran) == 2 * SLICE, "it has passed"
    await settled()
    assert len(ran) == 2 * (SLICE + 2)
    line.add(99)
    await settled()
    assert ran[-2:] == ["a99", "b99"], "the turn that was announced before does not keep later ones away"


async def _verified(client: Any, ledger: SqliteLedger) -> list[int]:
    """Lengths of the chains of sessions, each verified as a whole."""
    service = client.app.runtime.service
    for session in list(service.sessions):
        service.lifecycle.end(session, "end")
    await service.judge.flush()
    records = [stored.receipt for stored in await ledger.records(limit=1024) if stored.receipt is not None]
    policy = VerifyPolicy(KeySet([service.judge.receipts.issuer.pinned()]))
    chains: dict[str, list[Any]] = {}
    for record in records:
        chains.setdefault(record.chain, []).append(record)
    lengths = []
    for chain in chains.values():
        if any(record.typ == "decision" for record in chain):
            report = verify_chain(
                heads=[r.head_hex for r in chain],
                bodies=[r.body_text for r in chain],
                sigs=[r.sig_hex for r in chain],
                policy=policy,
            )
            assert report.ok, report.checks
            lengths.append(len(chain))
    return lengths


async def _log_is_the_state(client: Any, ledger: SqliteLedger) -> bool:
    page = await ledger.events()
    controller = client.app.runtime.service.budget.controller
    return bool(Controller.replay(page.events).digest() == controller.digest())


@asynccontextmanager
async def shim(make_client: Any, kit: Any, directory: Path) -> AsyncIterator[tuple[Any, SqliteLedger]]:
    ledger = SqliteLedger(directory)
    client = make_client(kit.ScriptedScorer(0.4), edges=Edges(ledger=ledger), attest_sk_hex="22" * 32)
    await recover(ledger, client.app.runtime.service.judge)
    try:
        yield client, ledger
    finally:
        await ledger.close()


def stalled(monkeypatch: pytest.MonkeyPatch, line: Line[Any], then: Callable[[], None]) -> None:
    """From a session's second step on, nothing passes the line by itself."""
    add = Line.add

    def waits(self: Any, case: Any) -> None:
        if self is not line or case.turn.session.steps != 1:
            add(self, case)
            return
        self._waiting.append(case)
        then()

    monkeypatch.setattr(Line, "add", waits)


async def _goes_on(client: Any, ledger: SqliteLedger) -> None:
    """The one session had two steps; a third one is taken, and all of them are in the log."""
    service = client.app.runtime.service
    (session,) = service.sessions
    assert (session.steps, session.busy, session.window.tokens) == (2, False, 2)
    answer = await client.step(session="s")
    assert answer["step"] == 2
    await service.judge.flush()
    assert await _log_is_the_state(client, ledger)
    assert await _verified(client, ledger) == [5], "open, three decisions, close"


async def test_a_client_that_goes_away_leaves_no_step_half_done(
    make_client: Any, kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled between its evidence and the turn of the loop that would conclude it."""
    async with shim(make_client, kit, tmp_path) as (client, ledger):
        service = client.app.runtime.service
        await client.step(session="s")

        def cancel() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

        stalled(monkeypatch, service.judge._line, cancel)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.ensure_future(client.step(session="s", trace_vector=[-2.0]))
        await _goes_on(client, ledger)


async def test_a_deadline_that_passes_in_the_line_leaves_no_step_half_done(
    make_client: Any, kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shim(make_client, kit, tmp_path) as (client, ledger):
        service = client.app.runtime.service
        await client.step(session="s")
        stalled(monkeypatch, service.judge._line, lambda: None)
        reply = await client.post({"trace_vector": [-2.0], "session": "s"}, x_deadline_ms="300")
        answer = reply.json()
        assert (reply.status, answer["receipt"], answer["step"]) == (200, None, 1)
        assert any(check["reason"] == "not durable in time" for check in answer["checks"])
        # it is in the log although its answer could not wait for that
        await _goes_on(client, ledger)


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("where", ["prepare", "decision", "seal", "encode", "record"])
async def test_a_defect_of_one_step_is_that_steps_alone(
    make_client: Any, kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, steps: int
) -> None:
    """What it settled is in the log all the same, and the next step of its session goes on where the last one ended."""
    async with shim(make_client, kit, tmp_path) as (client, ledger):
        service = client.app.runtime.service
        for _ in range(steps):
            await asyncio.gather(*(client.step(session=f"s{i}") for i in range(3)))
        whole, calls = False, 0
        owner = {"decision": Receipts, "seal": Receipts, "record": Idempotency}.get(where, Draft)
        work = getattr(owner, where)

        def breaks(*args: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            return (defect if calls == 2 and not whole else work)(*args, **named)

        monkeypatch.setattr(owner, where, breaks)
        requests = [{"trace_vector": [-1.0], "session": f"s{i}", "idempotency_key": f"k{i}"} for i in range(3)]
        replies = await asyncio.gather(*(client.post(request) for request in requests))
        assert [reply.status for reply in replies] == [200, 500, 200]
        await service.judge.flush()
        assert await _log_is_the_state(client, ledger)
        whole = True
        answers = [await client.step(session=f"s{i}") for i in range(3)]
        assert [answer["step"] for answer in answers] == [steps + 1] * 3
        await service.judge.flush()
        assert await _log_is_the_state(client, ledger)
        assert sorted(await _verified(client, ledger)) == [steps + 3, steps + 4, steps + 4]


async def test_what_a_failed_step_settled_is_in_the_log_at_once(
    make_client: Any, kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shim(make_client, kit, tmp_path) as (client, ledger):
        monkeypatch.setattr(Draft, "encode", defect)
        assert (await client.post({"trace_vector": [-1.0], "session": "s"})).status == 500
        await client.app.runtime.service.judge.flush()
        assert await _log_is_the_state(client, ledger)


async def test_what_was_spent_is_in_the_log_where_its_epoch_has_no_record(
    make_client: Any, kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shim(make_client, kit, tmp_path) as (client, ledger):
        service = client.app.runtime.service
        monkeypatch.setattr(Receipts, "epochs", defect)
        reply = await client.post({"trace_vector": [-1.0], "session": "s"})
        assert reply.status != 200 or reply.json()["receipt"] is None
        await service.judge.flush()
        assert (await ledger.events()).events
        assert await _log_is_the_state(client, ledger)
