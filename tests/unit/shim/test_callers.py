"""Reserve -> (the caller's own inference) -> settle: one debit, one answer per inputs, nothing taken on trust."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest

from tcd.contract import COMPONENTS, SUP_START
from tcd.receipts import KeySet, VerifyPolicy, verify_single


def outputs(p: float, alpha: float, *, sup: float = 1.0, **changes: Any) -> dict[str, Any]:
    """What an honest ensemble would answer."""
    trigger = int(p <= alpha)
    values: dict[str, Any] = {
        "SCORE": [0.0],
        "P_STEP": [1.0, 1.0],
        "SUP_OUT": [sup, sup],
        "COMPONENTS": [0.0, 1.0, 0.0] * len(COMPONENTS),
        "MV": [0.0, 0.0, 0.0, 1.0],
        "P_VALUE": [p],
        "TRIGGER": [trigger],
        "VERDICT": [trigger],
        "TIER": [2 * trigger],
        "STATUS": [0],
        "ROUTE": [1.0, 1.0, 0.0, 0.0],
        "ASSETS": [0, 0, 0],
    }
    return {**values, **changes}


def digest(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def settlement(reserved: dict[str, Any], p: float, name: str = "x", **changes: Any) -> dict[str, Any]:
    body = {
        "reservation": reserved["reservation"],
        "inputs": digest(name),
        "sup": reserved["sup"],
        "outputs": outputs(p, reserved["alpha"]),
    }
    return {**body, **changes}


async def reserve(client: Any, **members: Any) -> Any:
    reply = await client.post({"signals": ["trace"], **members}, "/v1/reserve")
    assert reply.status == 200, reply.body
    return reply.json()


async def test_reserve_and_settle_make_a_receipt_that_says_who_computed(make_client: Any) -> None:
    client = make_client()
    first = await reserve(client)
    assert first["controller"]
    assert first["flags"] == 1
    assert first["sup"] == [SUP_START, SUP_START]
    assert first["alpha"] > 0
    assert first["cost"] == first["alpha"]
    again = await reserve(client)
    assert again["reservation"] == first["reservation"]
    assert (again["cost"], again["alpha"]) == (0.0, first["alpha"])
    reply = await client.post(settlement(first, 0.5), "/v1/settle")
    assert reply.status == 200, reply.body
    answer = reply.json()
    assert answer["p_value"] == 0.5
    assert answer["alpha_spent"] == first["cost"]
    assert answer["guarantee"].startswith("supfdr<=0.05|")
    assert "|evidence=caller" in answer["guarantee"]
    body = json.loads(answer["receipt_body"])
    assert body["evidence"] == "caller"
    assert body["req"] == digest("x")
    judge = client.app.runtime.service.judge
    policy = VerifyPolicy(KeySet([judge.receipts.issuer.pinned()]))
    report = verify_single(answer["receipt_body"], head=answer["receipt"], sig=answer["receipt_sig"], policy=policy)
    assert report.ok, report.checks
    following = await reserve(client)
    assert following["sup"] == [1.0, 1.0]


async def test_the_same_settlement_twice_is_one_and_another_one_is_a_conflict(make_client: Any) -> None:
    client = make_client()
    first = await reserve(client)
    one = await client.post(settlement(first, 0.5), "/v1/settle")
    two = await client.post(settlement(first, 0.5), "/v1/settle")
    assert one.body == two.body
    other = await client.post(settlement(first, 0.4), "/v1/settle")
    assert other.status == 409
    more = await client.post(settlement(first, 0.4, "y"), "/v1/settle")
    assert more.json()["p_value"] == 0.4
    assert more.json()["alpha_spent"] == first["cost"]


async def test_a_trigger_counts_once(make_client: Any) -> None:
    client = make_client()
    first = await reserve(client)
    answers = [(await client.post(settlement(first, 0.0, str(i)), "/v1/settle")).json() for i in range(3)]
    assert all(a["trigger"] and a["action"] == "block" for a in answers)
    view = client.app.runtime.service.budget.view(client.app.runtime.service.subjects.tenant("tenant0"))
    assert view.rejections == 1


async def test_concurrent_calls_share_the_reservation_and_fold_by_maximum(make_client: Any) -> None:
    client = make_client()
    given = await asyncio.gather(*(reserve(client) for _ in range(8)))
    assert len({g["reservation"] for g in given}) == 1
    assert sum(g["cost"] for g in given) == given[0]["alpha"]
    bodies = [
        settlement(given[0], 0.9 - i / 10, str(i), outputs=outputs(0.9 - i / 10, given[0]["alpha"], sup=float(i)))
        for i in range(8)
    ]
    replies = await asyncio.gather(*(client.post(body, "/v1/settle") for body in reversed(bodies)))
    assert {r.status for r in replies} == {200}
    assert (await reserve(client))["sup"] == [7.0, 7.0]


async def test_the_end_closes_the_hypothesis_and_its_reservation(make_client: Any) -> None:
    client = make_client()
    first = await reserve(client)
    reply = await client.post(settlement(first, 0.5, end=True), "/v1/settle")
    assert reply.status == 200
    assert (await client.post(settlement(first, 0.3, "z"), "/v1/settle")).status == 404
    service = client.app.runtime.service
    assert service.budget.view(service.subjects.tenant("tenant0")).folded == 1
    other = await reserve(client)
    assert other["reservation"] != first["reservation"]
    assert other["cost"] > 0


async def test_another_mask_ends_the_hypothesis_and_the_old_reservation_conflicts(make_client: Any) -> None:
    client = make_client()
    first = await reserve(client)
    second = await reserve(client, signals=["trace", "entropy"])
    assert second["reservation"] != first["reservation"]
    assert second["cost"] > 0
    assert (await client.post(settlement(first, 0.5), "/v1/settle")).status == 409


async def test_an_idempotency_key_belongs_to_one_request(make_client: Any) -> None:
    client = make_client()
    one = await client.post({"signals": ["trace"]}, "/v1/reserve", idempotency_key="k")
    two = await client.post({"signals": ["trace"]}, "/v1/reserve", idempotency_key="k")
    assert one.body == two.body
    other = await client.post({"signals": ["trace"], "session": "t"}, "/v1/reserve", idempotency_key="k")
    assert other.status == 409


async def test_without_a_calibration_there_is_no_hypothesis(make_client: Any) -> None:
    client = make_client()
    first = await reserve(client, signals=["entropy"])
    assert not first["controller"]
    assert (first["alpha"], first["flags"], first["cost"]) == (0.0, 0, 0.0)
    assert first["guarantee"].startswith("none (")
    body = settlement(first, 0.5, outputs=outputs(0.5, -1.0))
    answer = (await client.post(body, "/v1/settle")).json()
    assert answer["guarantee"].startswith("none (")


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"reservation": "00"}, 404, None),
        ({"inputs": "sha256:0"}, 422, "/inputs"),
        ({"sup": [1.0, 1.0]}, 422, "/sup"),
        ({"more": 1}, 422, "/more"),
        ({"outputs": {"TRIGGER": [1], "VERDICT": [1]}}, 422, "/outputs"),
        ({"outputs": {"P_VALUE": [1.5]}}, 422, "/outputs"),
        ({"outputs": {"SUP_OUT": [-1.8e300, 1.0]}}, 422, "/outputs"),
        ({"outputs": {"SCORE": []}}, 422, "/outputs/SCORE"),
        ({"outputs": {"P_VALUE": [True]}}, 422, "/outputs/P_VALUE/0"),
        ({"outputs": {"ASSETS": [7, 0, 0]}}, 409, None),
        ({"outputs": {"TIER": [9]}}, 422, "/outputs"),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    make_client: Any, change: dict[str, Any], status: int, pointer: str | None
) -> None:
    client = make_client()
    first = await reserve(client)
    body = settlement(first, 0.5)
    if "outputs" in change:
        change = {"outputs": {**body["outputs"], **change["outputs"]}}
    before = client.app.runtime.service.budget.controller.digest()
    reply = await client.post({**body, **change}, "/v1/settle")
    assert reply.status == status, reply.body
    assert reply.json().get("pointer") == pointer
    assert client.app.runtime.service.budget.controller.digest() == before
    assert (await client.post(body, "/v1/settle")).status == 200


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ({"signals": []}, "/signals"),
        ({"signals": ["noise"]}, "/signals/0"),
        ({"signals": ["features"]}, "/feature_cols"),
        ({"signals": ["trace"], "feature_cols": 2}, "/feature_cols"),
        ({"signals": ["trace"], "alpha": 1.0}, "/alpha"),
        ({"signals": ["trace"], "tenant": "a\u0001"}, "/tenant"),
        ({"signals": ["trace"], "step_id": -1}, "/step_id"),
    ],
)
async def test_reserve_is_strict(make_client: Any, body: dict[str, Any], pointer: str) -> None:
    client = make_client()
    reply = await client.post(body, "/v1/reserve")
    assert reply.status == 422, reply.body
    assert reply.json().get("pointer", "") == pointer
    assert len(client.app.runtime.service.budget) == 0


async def test_steps_of_one_session_go_up(make_client: Any) -> None:
    client = make_client()
    first = await reserve(client, step_id=0)
    assert (await client.post(settlement(first, 0.5, step_id=3), "/v1/settle")).status == 200
    assert (await client.post(settlement(first, 0.4, "y", step_id=3), "/v1/settle")).status == 409
    assert (await client.post({"signals": ["trace"], "step_id": 2}, "/v1/reserve")).status == 409
    fresh = await reserve(client, step_id=0)
    assert fresh["reservation"] != first["reservation"]


async def test_a_reservation_is_durable_before_it_is_answered_or_it_is_refused(make_client: Any) -> None:
    client = make_client()
    ledger = client.app.runtime.service.judge._committer._ledger
    await ledger.close()
    reply = await client.post({"signals": ["trace"]}, "/v1/reserve")
    assert reply.status == 503
    assert reply.json()["code"] == "unavailable"


async def test_the_rate_limit_comes_before_the_reservation(make_client: Any) -> None:
    client = make_client(http_rate_cap=1.0, http_rate_refill=0.001)
    await reserve(client)
    reply = await client.post({"signals": ["trace"]}, "/v1/reserve")
    assert reply.status == 429
    service = client.app.runtime.service
    assert service.budget.view(service.subjects.tenant("tenant0")).reservations == 1
