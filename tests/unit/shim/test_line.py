"""Steps are concluded together: in order, stage by stage, a few in each turn, and none is left half done."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.app import Edges
from sidecar_api.line import SLICE, Line
from sidecar_api.recovery import recover
from tcd.ledger import SqliteLedger
from tcd.receipts import KeySet, VerifyPolicy, verify_chain
from tcd.risk_av import Controller


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


async def test_the_line_goes_on_where_even_the_failure_fails() -> None:
    ran: list[int] = []
    seen: list[str] = []

    def stage(item: int) -> None:
        ran.append(item)
        if not item:
            msg = "odd"
            raise ValueError(msg)

    def failed(item: int, error: Exception) -> None:
        msg = f"worse: {error}"
        raise RuntimeError(msg)

    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(str(context["exception"])))
    line = Line([stage], failed)
    line.add(0)
    await settled()
    line.add(1)
    await settled()
    assert (ran, seen) == ([0, 1], ["worse: odd"])


async def test_who_is_in_a_hurry_takes_all_with_him() -> None:
    ran: list[str] = []
    line = Line([lambda i: ran.append(f"a{i}"), lambda i: ran.append(f"b{i}")], failed=lambda *_: None)
    for item in range(2):
        line.add(item)
    line.hurry()
    assert ran == ["a0", "a1", "b0", "b1"]
    await settled()
    assert len(ran) == 4
    line.add(2)
    await settled()
    assert ran[4:] == ["a2", "b2"], "the turn that was announced before does not keep later ones away"


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


async def test_a_client_that_goes_away_leaves_no_step_half_done(
    make_client: Any, kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled between its evidence and the turn of the loop that concludes it."""
    ledger = SqliteLedger(tmp_path)
    client = make_client(kit.ScriptedScorer(0.4), edges=Edges(ledger=ledger), attest_sk_hex="22" * 32)
    service = client.app.runtime.service
    await recover(ledger, service.judge)
    await client.step(session="s")
    line = service.judge._line
    add = Line.add

    def cancelled(self: Any, case: Any) -> None:
        add(self, case)
        if self is line and case.turn.session.steps == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    monkeypatch.setattr(Line, "add", cancelled)
    gone = asyncio.ensure_future(client.step(session="s", trace_vector=[-2.0]))
    with pytest.raises(asyncio.CancelledError):
        await gone
    (session,) = service.sessions
    assert (session.steps, session.busy, session.window.tokens) == (2, False, 2)
    answer = await client.step(session="s")
    assert answer["step"] == 2
    await service.judge.flush()
    assert await _log_is_the_state(client, ledger)
    assert await _verified(client, ledger) == [5], "open, three decisions, close"
    await ledger.close()


@pytest.mark.parametrize("stage", ["prepare", "write", "sign", "encode"])
async def test_a_defect_of_one_step_is_that_steps_alone(
    make_client: Any, kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """What it settled is in the log all the same, and the next step of its session goes on."""
    from sidecar_api.draft import Draft  # noqa: PLC0415 - what is broken here

    ledger = SqliteLedger(tmp_path)
    client = make_client(kit.ScriptedScorer(0.4), edges=Edges(ledger=ledger), attest_sk_hex="22" * 32)
    service = client.app.runtime.service
    await recover(ledger, service.judge)
    work = getattr(Draft, stage)
    whole = [False]

    def breaks(self: Draft, *args: Any) -> Any:
        if self._turn.request.session == "s1" and not whole[0]:
            msg = "a defect"
            raise RuntimeError(msg)
        return work(self, *args)

    monkeypatch.setattr(Draft, stage, breaks)
    replies = await asyncio.gather(*(client.post({"trace_vector": [-1.0], "session": f"s{i}"}) for i in range(3)))
    assert [reply.status for reply in replies] == [200, 500, 200]
    whole[0] = True
    answers = [await client.step(session=f"s{i}") for i in range(3)]
    assert [answer["step"] for answer in answers] == [1, 1, 1]
    await service.judge.flush()
    assert await _log_is_the_state(client, ledger)
    assert sorted(await _verified(client, ledger)) == [3, 4, 4]
    await ledger.close()
