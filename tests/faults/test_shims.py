"""Several shims on one PostgreSQL: budgets, sequence, idempotency, and what happens to a shim that is lost."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("asyncpg", reason="postgres: pip install 'tcd[postgres]'")

from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
from tcd.errors import ConfigError, Unavailable
from tcd.ledger.postgres import PostgresLedger
from tcd.receipts import KeySet, VerifyPolicy, verify_chain
from tcd.risk_av.events import Drawn
from tests.faults.shims import Shim, all_events, check_log, shims, start_shim
from tests.postgres import PostgresServer
from tests.unit.ledger.lost_answer import LostAnswer
from tests.unit.shim.conftest import SEED_HEX, Client, ScriptedScorer, settings_of, synthetic_assets


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.place()


def null_scorer(seed: int = 1) -> ScriptedScorer:
    random = np.random.default_rng(seed)
    return ScriptedScorer(p=lambda _: float(random.uniform()), hops=3, seed=seed)


async def load(made: list[Shim], *, workers: int, sessions: int, tenants: int = 2) -> list[dict[str, Any]]:
    """Sessions of three steps at every shim at once; each answer."""
    answers: list[dict[str, Any]] = []

    async def work(worker: int) -> None:
        shim = made[worker % len(made)]
        for n in range(sessions * 3):
            session = f"{worker}-{n // 3}"
            found = await shim.client.step(tenant=f"t{worker % tenants}", session=session, step_id=n % 3)
            answers.append(found)

    await asyncio.gather(*(work(i) for i in range(workers)))
    return answers


async def test_two_shims_share_budgets_and_one_gapless_log(url: str) -> None:
    async with shims(url, 2, null_scorer()) as made:
        answers = await load(made, workers=16, sessions=6)
        assert {answer["cause"] for answer in answers} <= {"", "av"}
        assert all("supfdr" in answer["guarantee"] for answer in answers)
        for shim in made:
            await shim.service.judge.flush()
        events = await all_events(made[0].ledger)
        controller = check_log(events)
        assert sum(isinstance(event, Drawn) for event in events) == 16 * 6
        for shim in made:
            await shim.replica.follower.catch_up()
            assert shim.service.budget.controller.digest() == controller.digest()
        heads = await made[0].ledger.heads()
        assert len(heads) == (await made[1].ledger.stats()).receipts
        for answer in answers:
            assert bytes.fromhex(answer["receipt"]) in heads
    ledger = (await start_shim(url)).ledger
    # both left in order: nothing is open, nothing was lost, and everything drawn was folded
    controller = check_log(await all_events(ledger))
    for stream in controller.streams:
        view = controller.state(stream)
        assert (view.open, view.waiting) == (0, 0)
        assert view.folded == sum(isinstance(e, Drawn) and e.stream == stream for e in await all_events(ledger))
    await ledger.close()


@pytest.mark.parametrize("seed", range(3))
async def test_commits_in_doubt_under_load_leave_a_log_that_follows(
    url: str, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Commits of both shims happen or not, and nobody can be asked: each event is there once, and read in its place."""
    random = np.random.default_rng(seed)
    monkeypatch.setattr("tcd.ledger.postgres._DOUBT_TRIES", 0)
    async with shims(url, 2, null_scorer(seed), epoch_length=40, on_failure="static", lease_ttl_s=60.0) as made:
        for shim in made:
            whole, lossy = shim.ledger._commit, [LostAnswer(shim.ledger, happens=happens) for happens in (True, False)]

            async def commit(transaction: Any, doubt: Any, whole: Any = whole, lossy: Any = lossy) -> None:
                await (lossy[int(random.integers(2))] if random.random() < 0.4 else whole)(transaction, doubt)

            monkeypatch.setattr(shim.ledger, "_commit", commit)
        answers = await load(made, workers=12, sessions=10, tenants=3)
        assert "degraded" in {answer["cause"] for answer in answers}
        monkeypatch.undo()
        for shim in made:
            await shim.service.judge.flush()
            await shim.replica._beat()
            await shim.service.judge.flush()
        controller = check_log(await all_events(made[0].ledger))
        for shim in made:
            await shim.replica.follower.catch_up()
            assert shim.replica.problem() == ""
            assert shim.service.budget.controller.digest() == controller.digest()
        for answer in answers:
            if answer["cause"] != "degraded":
                assert await made[0].ledger.get(answer["receipt"]) is not None


async def test_chains_of_both_shims_verify(url: str) -> None:
    async with shims(url, 2, null_scorer(2), epoch_length=8) as made:
        answers = await load(made, workers=8, sessions=4)
        receipts = made[0].service.judge.receipts
        assert receipts is not None
        policy = VerifyPolicy(KeySet([receipts.issuer.pinned()]))
    shim = await start_shim(url)
    assert all([await is_epoch(shim, state.id) for state in await shim.ledger.open_chains()])
    chains = {json.loads(answer["receipt_body"])["chain"]["id"] for answer in answers}
    epochs: set[str] = set()
    for stored in [await shim.ledger.get(head.hex()) for head in await shim.ledger.heads()]:
        assert stored is not None
        assert stored.receipt is not None
        if await is_epoch(shim, stored.receipt.chain):
            epochs.add(stored.receipt.chain)
    assert len(epochs) > 2
    for chain in chains | epochs:
        records = [s.receipt for s in await shim.ledger.chain_records(chain) if s.receipt is not None]
        report = verify_chain(
            heads=[r.head_hex for r in records],
            bodies=[r.body_text for r in records],
            sigs=[r.sig_hex for r in records],
            policy=policy,
        )
        assert report.ok, report.checks
    await shim.stop()


async def is_epoch(shim: Shim, chain: str) -> bool:
    first = (await shim.ledger.first_records([chain]))[chain].receipt
    assert first is not None
    return bool(json.loads(first.body)["open"]["scope"] == "epoch")


async def test_a_retry_at_the_other_shim_gets_the_same_answer(url: str) -> None:
    async with shims(url, 2, null_scorer(3)) as made:
        for n in range(10):
            body = {"trace_vector": [-1.0], "tenant": "t", "session": f"s{n}", "step_id": 0, "idempotency_key": f"k{n}"}
            first = await made[n % 2].client.post(body)
            again = await made[(n + 1) % 2].client.post(body)
            assert (again.status, again.body) == (first.status, first.body) == (200, first.body)
        other = await made[0].client.post({**body, "trace_vector": [-2.0]})
        assert other.status == 409
        await made[0].service.judge.flush()
        assert sum(isinstance(e, Drawn) for e in await all_events(made[0].ledger)) == 10


async def test_the_same_request_at_both_shims_at_once_is_decided_once(url: str) -> None:
    async with shims(url, 2, null_scorer(4)) as made:

        async def both(n: int) -> None:
            body = {"trace_vector": [-1.0], "tenant": "t", "session": f"s{n}", "step_id": 0, "idempotency_key": f"k{n}"}
            replies = await asyncio.gather(*(shim.client.post(body) for shim in made for _ in range(2)))
            assert {reply.status for reply in replies} == {200}
            assert len({reply.body for reply in replies}) == 1

        await asyncio.gather(*(both(n) for n in range(12)))
        for shim in made:
            await shim.service.judge.flush()
        assert sum(isinstance(e, Drawn) for e in check_events(await all_events(made[0].ledger))) == 12


def check_events(events: Any) -> Any:
    check_log(events)
    return events


async def test_a_lost_shim_is_ended_by_the_others_and_its_lease_is_lost(url: str) -> None:
    async with shims(url, 2, null_scorer(5), epoch_length=40) as made:
        lost, other = made
        answers = [await lost.client.step(tenant="t", session=f"s{n}", step_id=0) for n in range(3)]
        await lost.crash()
        before = await all_events(other.ledger)
        spent = check_log(before).state(next(iter(check_log(before).streams))).spent
        # from here on: before, a busy machine could have taken any of them for lost
        other.replica._succession._ttl = 2.0
        for _ in range(3000):
            await other.replica._beat()
            if lost.ledger.epoch not in {m.epoch for m in await other.ledger.members()}:
                break
            await other.client.step(tenant="t", session="still-served", step_id=None)
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the shim was not declared lost")
        chains = [json.loads(answer["receipt_body"])["chain"]["id"] for answer in answers]
        for _ in range(3000):
            states = [await other.ledger.chain(chain) for chain in chains]
            if all(state is not None and state.closed for state in states):
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("chains of the lost shim were left open")
        events = await all_events(other.ledger)
        controller = check_log(events)
        view = controller.state(next(iter(controller.streams)))
        # 40/(4*2) = 5 were leased by the one that was lost: three known, none of them comes back
        assert view.spent >= spent
        after = await other.client.step(tenant="t", session="new", step_id=0)
        assert after["cause"] in {"", "av"}


async def test_a_shim_that_was_declared_lost_joins_again_and_spends_nothing_twice(url: str) -> None:
    async with shims(url, 2, null_scorer(6), epoch_length=40) as made:
        paused, other = made
        for n in range(3):
            await paused.client.step(tenant="t", session=f"s{n}", step_id=0)
        await other.replica._succession.retire([paused.ledger.epoch])
        old = paused.ledger.epoch
        # it goes on as if nothing had happened: what it says now is not stored, and it says so
        first = await paused.client.step(tenant="t", session="s0", step_id=1)
        assert first["cause"] == "degraded"
        for _ in range(3000):
            if paused.ledger.epoch != old and paused.replica._rejoining is None:
                break
            await asyncio.sleep(0.02)
        again = await paused.client.step(tenant="t", session="s0", step_id=2)
        assert again["guarantee"].startswith("none (")
        fresh = await paused.client.step(tenant="t", session="fresh", step_id=0)
        assert "supfdr" in fresh["guarantee"]
        for shim in made:
            await shim.service.judge.flush()
        check_log(await all_events(other.ledger))


async def test_a_shim_with_other_parameters_is_refused_while_others_run(url: str) -> None:
    # it gives signs of life far more often than the other one waits for them, and takes nobody for lost
    shim = await start_shim(url, lease_ttl_s=0.8)
    shim.replica._succession._ttl = 60.0
    with pytest.raises(ConfigError, match="other parameters"):
        await start_shim(url, lease_ttl_s=3.0, alpha=0.1)
    await shim.stop()
    changed = await start_shim(url, lease_ttl_s=1.0, alpha=0.1)
    assert changed.service.budget.controller.params.alpha == 0.1
    await changed.stop()


async def test_a_shim_of_the_same_name_takes_over_at_once(url: str) -> None:
    first = await start_shim(url, null_scorer(), replica="a", lease_ttl_s=60.0)
    answer = await first.client.step(tenant="t", session="s", step_id=0)
    await first.crash()
    second = await start_shim(url, null_scorer(), replica="a", lease_ttl_s=60.0)
    assert [m.epoch for m in await second.ledger.members()] == [second.ledger.epoch]
    state = await second.ledger.chain(json.loads(answer["receipt_body"])["chain"]["id"])
    assert state is not None
    assert state.closed
    controller = check_log(await all_events(second.ledger))
    view = controller.state(next(iter(controller.streams)))
    assert (view.open, view.waiting) == (0, 0)
    await second.stop()


async def test_an_idle_lease_is_returned_so_that_the_fold_goes_on(url: str) -> None:
    async with shims(url, 2, null_scorer(7), epoch_length=80, session_idle_s=0.3) as made:
        one, two = made
        await one.client.step(tenant="t", session="a", step_id=0)
        await two.client.step(tenant="t", session="b", step_id=0)
        for _ in range(3000):
            for shim in made:
                await shim.replica._beat()
            await one.replica.follower.catch_up()
            view = one.service.budget.view(one.service.subjects.tenant("t"))
            if view.folded == 2:
                break
            await asyncio.sleep(0.05)
        assert (view.folded, view.open, view.waiting) == (2, 0, 0)
        check_log(await all_events(one.ledger))


async def test_an_exhausted_budget_is_no_silent_allow(url: str) -> None:
    async with shims(url, 2, null_scorer(8), epoch_length=2, epoch_roll="manual") as made:
        answers = [await made[n % 2].client.step(tenant="t", session=f"s{n}", step_id=0) for n in range(6)]
        assert [answer["cause"] == "budget" for answer in answers] == [False, False, True, True, True, True]
        assert {answer["action"] for answer in answers[2:]} <= {"degrade", "block"}
        assert all(answer["alpha_alloc"] == 0.0 for answer in answers[2:])
        assert (await made[0].client.step(tenant="t", session="s5", step_id=1))["cause"] == "budget"


async def test_subjects_of_a_tenant_share_its_budget_across_shims(url: str) -> None:
    async with shims(url, 2, null_scorer(9), unit="request", pool_shares=2, epoch_length=4) as made:

        async def one(n: int) -> None:
            await made[n % 2].client.step(tenant="t", user=f"u{n % 5}", session=f"s{n}", step_id=0)

        await asyncio.gather(*(one(n) for n in range(30)))
        for shim in made:
            await shim.service.judge.flush()
        events = await all_events(made[0].ledger)
        controller = check_log(events)
        epoch, given, spent = controller.pool(made[0].service.subjects.tenant("t"))
        assert given <= 2
        assert spent <= 0.5 * (1 + 1e-12)
        assert epoch >= 7


async def test_a_reload_of_alpha_counts_at_all_shims(url: str) -> None:
    async with shims(url, 2, null_scorer(10), epoch_length=8) as made:
        for n in range(4):
            await made[n % 2].client.step(tenant="t", session=f"a{n}", step_id=0)
        made[0].service.budget.retune(0.25)
        for shim in made:
            await shim.replica._beat()
        assert [shim.service.budget.controller.params.alpha for shim in made] == [0.25, 0.25]
        for n in range(24):
            await made[n % 2].client.step(tenant="t", session=f"b{n}", step_id=0)
        for shim in made:
            await shim.service.judge.flush()
        events = await all_events(made[0].ledger)
        view = check_log(events).state(made[0].service.subjects.tenant("t"))
        assert (view.epoch > 2, view.alpha) == (True, 0.25)
        assert view.spent <= 0.25 * (1 + 1e-12)


async def test_a_request_that_the_ledger_cannot_answer_for_is_decided_by_the_policy(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shims(url, 1, null_scorer(11), on_failure="static") as (shim,):

        async def gone(*_: Any, **__: Any) -> Any:
            msg = "the ledger cannot be read"
            raise Unavailable(msg)

        monkeypatch.setattr(shim.ledger, "claim", gone)
        body = {"trace_vector": [-1.0], "tenant": "t", "session": "s", "idempotency_key": "k"}
        reply = await shim.client.post(body)
        answer = reply.json()
        assert (reply.status, answer["cause"], answer["action"]) == (200, "degraded", "degrade")
        assert answer["guarantee"].startswith("none (")
        monkeypatch.undo()
        await shim.service.judge.flush()
        assert not [event for event in await all_events(shim.ledger) if isinstance(event, Drawn)], "it was debited"
        again = (await shim.client.post(body)).json()
        assert again["cause"] in {"", "av"}


async def test_a_start_that_took_longer_than_the_others_wait_joins_again(url: str) -> None:
    # short for whoever watches, so that the slow one is declared lost soon
    async with shims(url, 1, lease_ttl_s=0.4) as (other,):
        await other.client.step(session="before", step_id=0)
        settings = settings_of(attest_sk_hex=SEED_HEX, lease_ttl_s=60.0, alpha=0.5, credit_cap=1000)
        ledger = await PostgresLedger.open(url, subjects=b"test", origin=settings.origin)
        slow = ledger.epoch
        until = time.monotonic() + 60
        while slow in {member.epoch for member in await other.ledger.members()}:
            assert time.monotonic() < until, "a shim that is silent was not declared lost"
            await asyncio.sleep(0.05)
        # patient again: what is slow from here on is the machine
        other.replica._succession._ttl = 60.0
        app = create_app(
            settings, scorer=ScriptedScorer(), assets=FixedAssets(synthetic_assets()), edges=Edges(ledger=ledger)
        )
        late = Shim(Client(app), ledger)
        await late.replica.start()
        assert ledger.epoch > slow
        late.service.start()
        try:
            answer = await late.client.step(session="after", step_id=0)
            assert answer["cause"] != "degraded"
        finally:
            await late.stop()
