"""Attacks on the controller through the shim, each with the outcome that docs/controller.md states."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.app import Edges
from sidecar_api.recovery import recover
from tcd.ledger import SqliteLedger

ALPHA, LENGTH = 0.05, 10
BASE = ALPHA / LENGTH


def view(client: Any, tenant: str = "tenant0") -> Any:
    service = client.app.runtime.service
    return service.budget.view(service.subjects.tenant(tenant))


async def test_draining_a_budget_with_benign_traffic_only_rolls_the_epoch(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(lambda row: 1e-6 if row.trace[0] < -9 else 0.9))
    for i in range(5 * LENGTH):
        await client.step(user="mallory", session=f"drain{i}")
    victim = await client.step(user="alice", session="bad", trace_vector=[-10.0])
    assert victim["alpha_alloc"] == BASE
    assert victim["trigger"]
    assert victim["action"] == "block"
    other = await client.step(tenant="other", session="fresh")
    assert (other["epoch"], other["alpha_alloc"]) == (1, BASE)


async def test_an_exhausted_budget_tightens_and_is_never_a_silent_allow(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(0.9), epoch_roll="manual")
    calm = [await client.step(user="mallory", session=f"drain{i}") for i in range(LENGTH)]
    assert {a["action"] for a in calm} == {"allow"}
    after = await client.step(user="alice", session="next")
    assert after["alpha_alloc"] == 0.0
    assert after["cause"] == "budget"
    assert after["action"] != "allow"
    assert view(client).exhausted
    # the detectors without a budget go on
    before = view(client)
    client.app.runtime.service.lifecycle.end(next(iter(client.app.runtime.service.sessions)), "end")
    assert view(client).folded == before.folded + 1


async def test_rotating_sessions_and_users_buys_no_budget(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(0.9))
    spent: dict[int, float] = {}
    for i in range(3 * LENGTH):
        answer = await client.step(user=f"u{i}", session=f"s{i}")
        spent[answer["epoch"]] = answer["alpha_spent"]
    assert sorted(spent) == [1, 2, 3]
    assert all(value <= ALPHA * (1 + 1e-12) for value in spent.values())
    # a session of the same name that begins again pays again
    one = await client.step(session="again", step_id=0)
    two = await client.step(session="again", step_id=0)
    assert two["components"]["av"]["index"] == one["components"]["av"]["index"] % LENGTH + 1


async def test_triggering_on_purpose_raises_neighbours_levels_up_to_a_cap_and_never_across_tenants(
    make_client: Any, kit: Any
) -> None:
    client = make_client(kit.ScriptedScorer(lambda row: 0.0 if row.trace[0] < -9 else 0.9), credit_cap=2)
    for i in range(6):
        await client.step(user="mallory", session=f"m{i}", trace_vector=[-10.0])
    neighbour = await client.step(user="alice", session="a")
    assert neighbour["alpha_alloc"] == pytest.approx(3 * BASE)
    assert (await client.step(tenant="other", session="o"))["alpha_alloc"] == BASE


async def test_retries_are_no_lottery_tickets(make_client: Any, kit: Any) -> None:
    draws = itertools.count(1)
    scorer = kit.ScriptedScorer(lambda _: 1.0 / next(draws))
    client = make_client(scorer)
    answers = [await client.step(session="s", request_id="one") for _ in range(20)]
    assert all(a == answers[0] for a in answers)
    assert len(scorer.rows) == 1
    # without an id every call is a step of the same generation: one level, one debit, p is the minimum
    more = [await client.step(session="s") for _ in range(20)]
    assert {a["alpha_alloc"] for a in more} == {answers[0]["alpha_alloc"]}
    assert {a["alpha_spent"] for a in more} == {answers[0]["alpha_spent"]}
    assert [a["p_value"] for a in more] == sorted((a["p_value"] for a in more), reverse=True)


async def test_a_replayed_request_id_with_another_payload_is_refused(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(0.9))
    await client.step(session="s", request_id="one")
    digest = client.app.runtime.service.budget.controller.digest()
    for change in ({"trace_vector": [-9.0]}, {"session": "t"}, {"user": "u"}, {"context": {"temperature": 2.0}}):
        reply = await client.post({"trace_vector": [-1.0], "session": "s", "request_id": "one", **change})
        assert reply.status == 409
    assert client.app.runtime.service.budget.controller.digest() == digest
    # ids are a tenant's own
    assert (await client.step(tenant="other", session="s", request_id="one"))["epoch"] == 1


@pytest.mark.parametrize(
    "member",
    ["alpha", "alpha_alloc", "threshold", "p_value", "calibration", "sup", "guarantee", "unit", "epoch", "policy"],
)
async def test_a_client_cannot_send_its_own_evidence_or_level(make_client: Any, kit: Any, member: str) -> None:
    client = make_client(kit.ScriptedScorer(0.9))
    reply = await client.post({"trace_vector": [-1.0], member: 1})
    assert reply.status == 422
    assert reply.json()["pointer"] == f"/{member}"
    assert view(client).reservations == 0


async def test_leaving_signals_out_ends_the_hypothesis_and_pays_again(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(0.9))
    full = await client.step(session="s", entropy=1.0)
    less = await client.step(session="t")
    assert less["alpha_spent"] == pytest.approx(2 * BASE)
    # the shim keeps the windows: what a later step leaves out is still in the row
    later = await client.step(session="s")
    assert later["components"]["av"]["index"] == full["components"]["av"]["index"]
    assert (
        len(
            client.app.runtime.service.budget.controller.open_hypotheses(
                client.app.runtime.service.subjects.tenant("tenant0")
            )
        )
        == 2
    )
    # another detector key is another hypothesis, and the trigger of the session stays
    other = await client.step(session="s", entropy=1.0, context={"temperature": 0.1})
    assert other["components"]["av"]["index"] == 3


async def test_a_trigger_outlives_a_change_of_key(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(lambda row: 0.0 if row.trace[-1] < -9 else 0.9))
    await client.step(session="s", trace_vector=[-10.0])
    after = await client.step(session="s", context={"temperature": 0.1})
    assert after["trigger"]
    assert after["action"] == "block"


async def test_drift_and_negative_tokens_only_tighten(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(0.9), http_rate_cap=2.0, http_rate_refill=1e-6)
    await client.step(session="s", tokens_delta=50)
    await client.step(session="s", tokens_delta=-(10**7), drift_score=-5.0)
    reply = await client.post({"trace_vector": [-1.0], "session": "s", "tokens_delta": 50})
    assert reply.status == 429


@pytest.mark.parametrize("jump", [-(10**15), 10**15])
async def test_clock_jumps_change_no_level_and_no_decision(make_client: Any, kit: Any, jump: int) -> None:
    def run(now: Any) -> Any:
        scorer = kit.ScriptedScorer(lambda row: 1e-9 if row.trace[-1] < -9 else 0.9)
        return make_client(scorer, edges=Edges(now_us=now))

    times = itertools.count(1_700_000_000_000_000, 1000)
    jumps = (1_700_000_000_000_000 + 1000 * i + (jump if i % 3 == 1 else 0) for i in itertools.count())
    steady, jumping = run(lambda: next(times)), run(lambda: max(0, next(jumps)))
    names = ("alpha_alloc", "alpha_spent", "p_value", "trigger", "action", "epoch", "e_process", "guarantee")
    for i in range(2 * LENGTH + 3):
        members = {"session": f"s{i % 7}", "trace_vector": [-10.0 if i == 5 else -1.0], "request_id": f"r{i}"}
        a, b = await steady.step(**members), await jumping.step(**members)
        assert {n: a[n] for n in names} == {n: b[n] for n in names}


async def test_rotating_users_in_unit_request_takes_shares_of_the_tenants_budget(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(0.9), unit="request", pool_shares=5)
    service = client.app.runtime.service
    spent = []
    for i in range(12):
        answer = await client.step(user=f"u{i}", session="s")
        assert answer["guarantee"].startswith("supfdr<=0.01|unit=request|")
        spent.append(answer["alpha_alloc"])
    assert spent == pytest.approx([BASE] * 12)
    assert service.budget.controller.pool(service.subjects.tenant("tenant0"))[:2] == (3, 2)


async def test_a_jump_of_the_clock_forgets_answers_early_and_charges_nothing(make_client: Any, kit: Any) -> None:
    now = [1_700_000_000_000_000]
    scorer = kit.ScriptedScorer(0.9)
    client = make_client(scorer, edges=Edges(now_us=lambda: now[0]))
    first = await client.step(session="s", request_id="one")
    for jump in (-86_400_000_000, 0, 86_399_000_000):
        now[0] = 1_700_000_000_000_000 + jump
        assert await client.step(session="s", request_id="one") == first
    assert len(scorer.rows) == 1
    now[0] = 1_700_000_000_000_000 + 86_400_000_000
    later = await client.step(session="s", request_id="one")
    assert len(scorer.rows) == 2
    # a further step of the same generation: one reservation, one level
    assert (later["alpha_alloc"], later["alpha_spent"]) == (first["alpha_alloc"], first["alpha_spent"])
    assert view(client).reserved_total == 1


async def test_a_crash_before_the_answer_sells_no_second_ticket_for_the_first_price(
    make_client: Any, kit: Any, tmp_path: Path
) -> None:
    """The reservation was durable, the answer was not: it stays spent, and the retry pays for its own."""

    scoring = asyncio.Event()

    async def never(_: Any) -> None:
        scoring.set()
        await asyncio.Event().wait()

    ledger = SqliteLedger(tmp_path)
    client = make_client(kit.ScriptedScorer(0.9, before=never), edges=Edges(ledger=ledger))
    request = asyncio.create_task(client.step(session="s", request_id="one"))
    await scoring.wait()
    spent = view(client).spent
    assert spent == BASE
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    await ledger.close()
    ledger = SqliteLedger(tmp_path)
    client = make_client(kit.ScriptedScorer(0.9), edges=Edges(ledger=ledger))
    await recover(ledger, client.app.runtime.service.judge)
    assert view(client).spent == spent
    retried = await client.step(session="s", request_id="one")
    assert retried["components"]["av"]["index"] == 2
    assert retried["alpha_alloc"] == BASE
    assert retried["alpha_spent"] == 2 * BASE
    assert await client.step(session="s", request_id="one") == retried
    await client.app.runtime.service.judge.flush()
    await ledger.close()
