"""Budget arithmetic under concurrency, and experiment 1: the realised trigger rate behind the real shim code.

Null, i.i.d. uniform p-values: at L = 10 an epoch triggers with 1 - (1 - alpha/L)^L = .0489, at any concurrency. A lost
update would show as a rate that grows with the concurrency.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, binom

from sidecar_api.app import Edges
from tcd.ledger import MemoryLedger
from tcd.risk_av import Controller, ControllerParams, Reservation, Settlement, e_value

ALPHA, LENGTH, EPOCHS = 0.05, 10, 250
QUIET: dict[str, Any] = {
    "receipts_enable": False,
    "log_decisions": False,
}
EXPECTED = 1.0 - (1.0 - ALPHA / LENGTH) ** LENGTH


def clopper_pearson(k: int, n: int, confidence: float = 0.999) -> tuple[float, float]:
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if k == 0 else float(beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(1.0 - tail, k + 1, n - k))
    return low, high


def uniform(seed: int) -> Any:
    """A p-value per session, i.i.d. uniform: a hash of the only value of its trace."""

    def p(row: Any) -> float:
        text = f"{seed}:{float(row.trace[0])!r}".encode()
        return (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") + 1) / 2.0**64

    return p


class LostUpdate(Controller):
    """Deliberately broken: reserve reads the state, settle writes it back. Concurrent reservations overwrite."""

    def __init__(self, params: ControllerParams) -> None:
        super().__init__(params)
        self.at = (1, 0)
        self.read: dict[str, tuple[int, int]] = {}

    def reserve(self, *, stream: str, hypothesis: str, user: str = "", pool: object = None) -> Reservation:
        epoch, index = self.at if self.at[1] < LENGTH else (self.at[0] + 1, 0)
        self.read[hypothesis] = (epoch, index + 1)
        cost = ALPHA / LENGTH
        return Reservation(stream, hypothesis, epoch, index + 1, 1, cost, cost, 0, 0.0, 0.0, exhausted=False, new=True)

    def settle(self, *, stream: str, hypothesis: str, p: float, trigger: bool) -> Settlement:
        epoch, index = self.at = self.read[hypothesis]
        return Settlement(
            stream=stream,
            hypothesis=hypothesis,
            epoch=epoch,
            index=index,
            seq=1,
            alpha=ALPHA / LENGTH,
            p=p,
            trigger=trigger,
            first=trigger,
            credited=False,
            e_value=e_value(p),
            closed=False,
            reason="",
            folded=(),
            alarm=False,
        )

    def find(self, *, stream: str, hypothesis: str) -> None:
        return None


async def run_epochs(client: Any, *, epochs: int, concurrency: int, retries: float = 0.1) -> tuple[int, int]:
    """Sessions of one step each, `concurrency` at once, some of them sent twice; epochs that triggered, of how many."""
    triggered: dict[int, bool] = defaultdict(bool)
    numbers = iter(range(epochs * LENGTH))
    rng = np.random.default_rng(epochs + concurrency)

    async def worker() -> None:
        for number in numbers:
            members = {
                "trace_vector": [-float(number)],
                "session": f"s{number}",
                "step_id": 0,
                "request_id": f"r{number}",
            }
            answer = await client.step(**members)
            triggered[answer["epoch"]] |= answer["trigger"]
            if rng.random() < retries:
                again = await client.step(**members)
                assert again == answer

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    whole = [epoch for epoch in triggered if epoch <= epochs]
    return sum(triggered[epoch] for epoch in whole), len(whole)


@pytest.mark.parametrize("concurrency", [1, 4, 16, 64])
async def test_experiment_1(make_client: Any, kit: Any, concurrency: int, capsys: pytest.CaptureFixture[str]) -> None:
    scorer = kit.ScriptedScorer(uniform(concurrency), hops=4)
    client = make_client(scorer, **QUIET, sessions_max=100_000)
    k, n = await run_epochs(client, epochs=EPOCHS, concurrency=concurrency)
    low, high = clopper_pearson(k, n)
    with capsys.disabled():
        pass
    assert n == EPOCHS
    assert low <= EXPECTED <= high
    assert len(scorer.rows) == EPOCHS * LENGTH


@pytest.mark.parametrize("concurrency", [8, 16])
async def test_experiment_1_catches_a_lost_update(
    make_client: Any, kit: Any, concurrency: int, capsys: pytest.CaptureFixture[str]
) -> None:
    controller = LostUpdate(ControllerParams(alpha=ALPHA, schedule=("uniform", LENGTH)))
    client = make_client(
        kit.ScriptedScorer(uniform(concurrency), hops=4),
        **QUIET,
        sessions_max=100_000,
        edges=Edges(controller=controller),
    )
    k, n = await run_epochs(client, epochs=EPOCHS, concurrency=concurrency, retries=0.0)
    low, _high = clopper_pearson(k, n)
    with capsys.disabled():
        pass
    assert low > EXPECTED


async def test_no_lost_update_and_no_cross_talk(make_client: Any, kit: Any) -> None:
    """64 clients, 8 tenants, several steps per session: the state is the fold of the log, and every cost is there."""
    ledger = MemoryLedger()
    scorer = kit.ScriptedScorer(uniform(5), hops=3)
    client = make_client(scorer, **QUIET, edges=Edges(ledger=ledger))
    tenants, clients, sessions, length = 8, 64, 12, 4
    answers: dict[str, list[Any]] = defaultdict(list)

    async def one(number: int) -> None:
        tenant = f"t{number % tenants}"
        for k in range(sessions):
            value = float(number * sessions + k)
            seen = [
                await client.step(tenant=tenant, session=f"{number}-{k}", trace_vector=[-value], step_id=i)
                for i in range(length)
            ]
            assert (
                len({(a["epoch"], a["components"]["av"]["index"], a["alpha_alloc"], a["p_value"]) for a in seen}) == 1
            )
            answers[tenant].append(seen[0])

    await asyncio.gather(*(one(number) for number in range(clients)))
    assert sum(len(a) for a in answers.values()) == clients * sessions
    for seen in answers.values():
        places = sorted((a["epoch"], a["components"]["av"]["index"]) for a in seen)
        assert places == [(1 + i // LENGTH, 1 + i % LENGTH) for i in range(len(seen))]
        for a in seen:
            known = a["alpha_alloc"] / (ALPHA / LENGTH) - 1
            assert known == pytest.approx(round(known), abs=1e-9)
            assert a["alpha_spent"] <= ALPHA
    await client.app.runtime.service.judge.flush()
    controller = client.app.runtime.service.budget.controller
    events = (await ledger.events(limit=10**6)).events
    assert Controller.replay(events, controller.params).digest() == controller.digest()
    spent = sum(controller.state(s).reserved_total for s in controller.streams)
    assert spent == clients * sessions


async def test_levels_do_not_depend_on_the_interleaving_of_others(make_client: Any, kit: Any) -> None:
    """A tenant's levels are the same alone and beside busy neighbours."""

    async def run(neighbours: int) -> list[tuple[int, int, float]]:
        client = make_client(kit.ScriptedScorer(uniform(9), hops=3), receipts_enable=False)

        async def mine() -> list[tuple[int, int, float]]:
            out = []
            for k in range(40):
                a = await client.step(tenant="mine", session=str(k), trace_vector=[-float(k)])
                out.append((a["epoch"], a["components"]["av"]["index"], a["alpha_alloc"]))
            return out

        async def noise(number: int) -> None:
            for k in range(40):
                await client.step(tenant=f"n{number}", session=str(k), trace_vector=[-float(1000 * number + k)])

        busy = asyncio.gather(*(noise(i) for i in range(1, neighbours + 1)))
        levels = await mine()
        await busy
        return levels

    assert await run(0) == await run(8)


async def test_credits_are_capped_per_user(make_client: Any, kit: Any) -> None:
    client = make_client(kit.ScriptedScorer(1e-6), credit_cap=2, receipts_enable=False)
    alone = [(await client.step(session=str(i)))["alpha_alloc"] for i in range(6)]
    base = ALPHA / LENGTH
    assert alone == pytest.approx([base, 2 * base, 3 * base, 3 * base, 3 * base, 3 * base])


@pytest.mark.parametrize(("k", "n"), [(20, 400), (1, 50), (400, 1000)])
def test_the_interval_is_clopper_pearsons(k: int, n: int) -> None:
    low, high = clopper_pearson(k, n)
    assert float(binom.sf(k - 1, n, low)) == pytest.approx(0.0005, rel=1e-6)
    assert float(binom.cdf(k, n, high)) == pytest.approx(0.0005, rel=1e-6)
