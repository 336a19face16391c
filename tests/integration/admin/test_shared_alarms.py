"""One alarm, two replicas of a shim on one PostgreSQL: it is cleared once, and only the one that was looked at."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from sidecar_api.admin.alarms import AlarmArea
from tcd.errors import Conflict
from tcd.receipts import Receipt
from tcd.risk_av import Acknowledged
from tests.faults.shims import Shim, all_events, check_log, shims
from tests.postgres import PostgresServer
from tests.unit.shim.conftest import ScriptedScorer

ACTORS = "alice + bob"


async def alarmed(made: list[Shim], scorer: ScriptedScorer, name: str) -> dict[str, Any]:
    """Reject at the first replica until the alarm of acme is on, and seen by all; what a proposal keeps of it."""
    scorer.p = 1e-9
    first = made[0].service
    for number in range(12):
        answer = await made[0].client.post(
            {"trace_vector": [-1.0] * 64, "tenant": "acme", "session": f"{name}{number}", "step_id": 0}
        )
        assert answer.status == 200, answer.body
        for session in list(first.sessions):
            first.lifecycle.end(session, "end")
    await first.judge.flush()
    for shim in made:
        await shim.replica.follower.catch_up()
    views = [AlarmArea(shim.client.app.runtime).look({"tenant": "acme", "user": None}, "*")[1] for shim in made]
    assert views[0].claim == views[1].claim
    return {"tenant": "acme", "user": None, "claim": views[0].claim}


async def records(shim: Shim) -> list[dict[str, Any]]:
    """The `ack` records of the log."""
    found = [await shim.ledger.get(head.hex()) for head in await shim.ledger.heads()]
    bodies = [json.loads(one.receipt.body) for one in found if one is not None and one.receipt is not None]
    return [body["ack"] for body in bodies if body["typ"] == "ack"]


async def test_of_two_replicas_that_clear_one_alarm_at_once_one_does(postgres: PostgresServer) -> None:
    scorer = ScriptedScorer()
    async with shims(postgres.place(), 2, scorer) as made:
        args = await alarmed(made, scorer, "s")
        areas = [AlarmArea(shim.client.app.runtime) for shim in made]
        ends = await asyncio.gather(*[area.acknowledge(args, ACTORS) for area in areas], return_exceptions=True)
        assert sum(isinstance(end, dict) for end in ends) == 1
        assert sum(isinstance(end, Conflict) for end in ends) == 1
        assert [record["claim"] for record in await records(made[0])] == [1]
        # both know, and the log follows from itself
        for shim in made:
            await shim.replica.follower.catch_up()
            assert AlarmArea(shim.client.app.runtime).list("*") == []
        events = await all_events(made[0].ledger)
        check_log(events)
        assert [event.claim for event in events if isinstance(event, Acknowledged)] == [1]


async def test_a_replica_clears_no_later_alarm_than_the_one_that_was_proposed(postgres: PostgresServer) -> None:
    scorer = ScriptedScorer()
    async with shims(postgres.place(), 2, scorer) as made:
        first = await alarmed(made, scorer, "s")
        areas = [AlarmArea(shim.client.app.runtime) for shim in made]
        assert (await areas[0].acknowledge(first, ACTORS))["after"]["claim"] == 1
        later = await alarmed(made, scorer, "t")
        assert later["claim"] == 1
        stream = areas[1].look(later, "*")[0]
        asked = []

        def make(claim: int) -> tuple[Receipt, ...]:
            asked.append(claim)
            return ()

        # the alarm is on, so that only its claim says that it is another one: compared under the lock of the log
        with pytest.raises(Conflict, match="no alarm of this claim"):
            await made[1].replica.acknowledge(stream, first["claim"], make)
        with pytest.raises(Conflict, match="newer one"):
            await areas[1].acknowledge(first, ACTORS)
        assert asked == []
        assert [record["claim"] for record in await records(made[1])] == [1]
        for area in areas:
            (alarm,) = area.list("*")
            assert (alarm["alarm"], alarm["claim"]) == (True, 1)
        # the one that is meant goes
        assert (await areas[1].acknowledge(later, ACTORS))["after"]["claim"] == 2
        assert [record["claim"] for record in await records(made[0])] == [1, 2]
