"""Steps, sessions, idempotency, limits and failures through the real shim."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from sidecar_api.app import Edges
from tcd.calibration import default_asset_dir, load_assets
from tcd.errors import ConfigError, ScoringError, Unavailable
from tcd.ledger import MemoryLedger
from tcd.risk_av import Controller
from tcd.scoring import LibraryScorer
from tests.unit.shim.conftest import held, soon

NAMES = {
    *("verdict", "score", "threshold", "budget_remaining", "alpha_alloc", "alpha_spent", "alpha_wealth", "e_value"),
    *("e_value_log10", "e_process", "alarm", "alarm_threshold", "trigger", "p_value", "p_floor", "components", "step"),
    *("cause", "action", "enforced", "route", "guarantee", "unit", "epoch", "checks", "request_id", "policy_ref"),
    *("calibration", "receipt", "receipt_body", "receipt_sig", "verify_key", "receipt_proof", "config_hash"),
}


async def test_every_member_of_the_contract_is_there(make_client: Any) -> None:
    answer = await make_client().step(entropy=1.0)
    assert set(answer) == NAMES
    for name in ("invertibility", "entropy_drop", "sigma_cut", "recurrence", "multivariate", "av", "input"):
        assert {"triggered", "severity", "p_value", "details"} <= set(answer["components"][name])
    parts = answer["components"]
    assert "trace_z_low" in parts["invertibility"]["details"]
    assert "entropy_z_low" in parts["entropy_drop"]["details"]
    assert "spread_z" in parts["sigma_cut"]["details"]
    assert {"distance", "threshold", "trigger"} <= set(parts["multivariate"])
    assert {"e_process", "alarm", "alarm_threshold"} <= set(parts["av"])
    assert set(answer["route"]) == {"temperature", "top_p", "decoder", "max_tokens", "tags", "tier", "route_id"}


async def test_a_far_vector_names_the_features_it_is_far_in(make_client: Any) -> None:
    demo = load_assets(default_asset_dir())
    client = make_client(LibraryScorer(demo), assets=demo)
    near = next(iter(demo.multivariates.values())).mean
    far = near.copy()
    far[7] += 80.0
    subject = {"model_id": "smollm2-135m", "entropy": 1.0, "trace_vector": [-1.0]}
    for _ in range(20):
        answer = await client.step(**subject, features=near.tolist())
        assert set(answer["components"]["multivariate"]["details"]) == {"distance", "threshold"}
    found = (await client.step(**subject, features=far.tolist()))["components"]["multivariate"]
    assert found["trigger"]
    named = [name for name in found["details"] if name.startswith("feature_")]
    assert named[0] == "feature_7"
    assert len(named) == 3
    assert 0.5 < found["details"]["feature_7"] < 2.0


async def test_headers_of_the_contract(make_client: Any) -> None:
    parent = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    client = make_client(http_rate_cap=60, http_rate_refill=30)
    reply = await client.post({"session": "s \u00fc%"}, x_request_id="me", traceparent=parent)
    assert reply.headers["x-request-id"] == reply.json()["request_id"] == "me"
    assert reply.headers["x-session-id"] == "s%20%C3%BC%25"
    assert reply.headers["x-tcd-config-hash"] == reply.json()["config_hash"]
    version, trace, span, flags = reply.headers["traceparent"].split("-")
    assert (version, trace, flags) == ("00", "ab" * 16, "01")
    assert span != "cd" * 8
    assert reply.headers["ratelimit"] == '"subject";r=59;t=1'
    assert reply.headers["ratelimit-policy"] == '"subject";q=60;w=2'
    stages = {part.split(";")[0] for part in reply.headers["server-timing"].split(", ")}
    assert stages == {"decode", "queue", "score", "settle", "commit", "total"}
    for bad in ("00-" + "0" * 32 + "-" + "cd" * 8 + "-01", "ff" + parent[2:], "zz", parent + "-x"):
        again = await client.post({}, traceparent=bad)
        assert again.headers["traceparent"].split("-")[1] not in {"ab" * 16, "0" * 32}


async def test_windows_grow_by_steps_and_base_is_the_context(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer()
    client = make_client(scorer)
    context = {"temperature": 0.5, "top_p": 0.25, "max_tokens": 7, "decoder": "greedy"}
    for i in range(3):
        await client.step(
            trace_vector=[float(-i)], entropy=i + 0.5, features=[i, i], step_id=i, context=context, drift_score=0.25
        )
    row = scorer.rows[-1]
    assert row.trace.tolist() == [0.0, -1.0, -2.0]
    assert row.entropy.tolist() == [0.5, 1.5, 2.5]
    assert row.features.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert row.base == (0.5, 0.25, 7.0, 0.25)
    await client.step(step_id=0)
    assert scorer.rows[-1].trace.tolist() == [-1.0]


async def test_step_ids(make_client: Any) -> None:
    client = make_client()
    await client.step(step_id=0)
    await client.step(step_id=5)
    for old in (5, 4, 1):
        reply = await client.post({"trace_vector": [-1.0], "step_id": old})
        assert (reply.status, reply.json()["code"]) == (409, "conflict")
    assert (await client.step())["step"] == 2
    assert (await client.step(step_id=6))["step"] == 6


async def test_one_reservation_per_session_and_a_new_one_per_generation(make_client: Any) -> None:
    client = make_client()
    seen = [await client.step(step_id=i) for i in (0, 1, 2, 0, 1)]
    assert [(a["epoch"], a["components"]["av"]["index"]) for a in seen] == [(1, 1)] * 3 + [(1, 2)] * 2
    assert seen[-1]["alpha_spent"] == pytest.approx(2 * 0.05 / 10, rel=0, abs=0)


async def test_levels_rise_with_rejections_and_the_trigger_is_latched(make_client: Any, kit: Any) -> None:
    p = {"a": 1e-4, "b": 1.0}
    client = make_client(kit.ScriptedScorer(lambda row: p["a"] if row.trace[0] == -9.0 else p["b"]))
    first = await client.step(session="a", trace_vector=[-9.0])
    assert (first["trigger"], first["action"], first["cause"], first["verdict"]) == (True, "block", "av", True)
    assert first["components"]["av"]["rejections"] == 1
    assert first["alpha_wealth"] == 2 * first["budget_remaining"]
    second = await client.step(session="b")
    assert second["alpha_alloc"] == 2 * first["alpha_alloc"]
    p["a"] = 1.0
    again = await client.step(session="a", trace_vector=[-9.0])
    assert (again["trigger"], again["action"], again["p_value"]) == (True, "block", 1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"demo": True}, "demo calibration"),
        ({"sessions": 100}, "calibration too small"),
        ({"masks": (2,)}, "unknown mask"),
        ({"names": ("other", "g", "t", "l")}, "no calibration"),
    ],
)
async def test_no_guarantee_without_a_calibration_that_carries_it(
    make_client: Any, kit: Any, change: Any, reason: str
) -> None:
    answer = await make_client(assets=kit.synthetic_assets(**change)).step(step_id=0)
    assert answer["guarantee"].startswith("none (")
    assert reason in answer["guarantee"]


async def test_the_guarantee_names_the_claim_in_force(make_client: Any) -> None:
    answer = await make_client().step(step_id=0)
    digest = answer["calibration"]["detector"]
    expected = f"supfdr<=0.05|unit=session|epoch=1|calibration={digest}|prds|marginal|ledger=memory"
    assert answer["guarantee"] == expected
    assert answer["p_floor"] == 1 / 1112 / 0.9


@pytest.mark.parametrize(
    ("members", "status", "reason"),
    [
        ({"trace_vector": []}, 0, "no signals"),
        ({}, 1, "warm-up"),
        ({}, 4, "fallback"),
        ({}, 32, "unknown mask"),
        ({"step_id": 3}, 0, "session joined in the middle"),
        ({"entropy": 1.0, "features": [1.0, 2.0, 3.0]}, 0, "fallback"),
    ],
)
async def test_no_guarantee_for_this_step(make_client: Any, kit: Any, members: Any, status: int, reason: str) -> None:
    answer = await make_client(kit.ScriptedScorer(changes={"status": status})).step(**{"step_id": 0, **members})
    assert reason in answer["guarantee"]
    assert answer["guarantee"].startswith("none (")


async def test_no_signal_costs_nothing(make_client: Any) -> None:
    answer = await make_client().step(trace_vector=[])
    assert (answer["alpha_spent"], answer["alpha_alloc"]) == (0.0, 0.0)
    assert {"name": "controller", "status": "skipped", "reason": "no hypothesis"} in answer["checks"]


async def test_a_pin_change_closes_the_hypothesis_and_opens_another(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer(lambda row: 0.25 if row.entropy.size == 0 else 0.75, changes={"sup": (3.0, 2.0)})
    ledger = MemoryLedger()
    client = make_client(scorer, edges=Edges(ledger=ledger))
    await client.step(step_id=0)
    await client.step(step_id=1)
    assert scorer.rows[-1].sup == (3.0, 2.0)
    other = await client.step(step_id=2, entropy=1.0)
    assert scorer.rows[-1].sup == (-1e300, -1e300)
    assert (other["p_value"], other["components"]["av"]["index"]) == (0.75, 2)
    hotter = await client.step(step_id=3, entropy=1.0, context={"temperature": 2.0})
    assert hotter["components"]["av"]["index"] == 3
    reasons = [e.reason for e in (await ledger.events()).events if hasattr(e, "reason")]
    assert reasons == ["pin_changed", "pin_changed"]


async def test_past_the_horizon_p_freezes_and_the_claim_ends(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer(lambda row: 0.5 if row.trace.size <= 3 else 1e-9)
    client = make_client(scorer, assets=kit.synthetic_assets(horizon=3))
    for i in range(3):
        inside = await client.step(step_id=i)
    assert inside["guarantee"].startswith("supfdr")
    beyond = await client.step(step_id=3)
    assert (beyond["p_value"], beyond["trigger"], scorer.rows[-1].controller) == (0.5, False, False)
    assert "horizon" in beyond["guarantee"]


async def test_request_unit_gives_each_user_a_stream(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer()
    client = make_client(scorer, unit="request")
    one = await client.step(user="a", session="1")
    two = await client.step(user="b", session="2")
    assert one["components"]["av"]["index"] == two["components"]["av"]["index"] == 1
    assert "unit=request" in two["guarantee"] or "unit" in two
    assert int(scorer.rows[0].unit) == 2


async def test_an_exhausted_budget_is_never_a_silent_allow(make_client: Any) -> None:
    client = make_client(epoch_roll="manual")
    answers = [await client.step(session=str(i)) for i in range(11)]
    assert [a["action"] for a in answers] == ["allow"] * 10 + ["degrade"]
    assert (answers[-1]["cause"], answers[-1]["alpha_alloc"], answers[-1]["budget_remaining"]) == ("budget", 0.0, 0.0)


async def test_an_epoch_that_the_calibration_does_not_carry_is_refused(make_client: Any) -> None:
    assert (await make_client(epoch_length=10).step())["alpha_alloc"] == 0.005
    with pytest.raises(ConfigError, match=r"epoch length 11: .* carries 10 .* calibration sessions"):
        make_client(epoch_length=11)


async def test_epochs_roll_and_spent_starts_anew(make_client: Any) -> None:
    client = make_client()
    answers = [await client.step(session=str(i)) for i in range(12)]
    assert [a["epoch"] for a in answers] == [1] * 10 + [2] * 2
    assert [a["components"]["av"]["index"] for a in answers] == [*range(1, 11), 1, 2]
    for a in answers:
        assert a["alpha_spent"] == pytest.approx(a["components"]["av"]["index"] * 0.005)
        assert a["budget_remaining"] == 0.05 - a["alpha_spent"] or a["budget_remaining"] == 0.0


async def test_the_entropy_floor(make_client: Any) -> None:
    soft = await make_client(entropy_floor=0.1).step(entropy=0.05)
    assert (soft["action"], soft["cause"], soft["verdict"]) == ("degrade", "policy", True)
    hard = await make_client(entropy_floor=0.1, hard_fail_on_floor=True).step(entropy=0.05)
    assert hard["action"] == "block"
    fine = await make_client(entropy_floor=0.1).step(entropy=0.5)
    assert fine["action"] == "allow"


async def test_a_held_alarm_keeps_its_route(make_client: Any, kit: Any) -> None:
    route = (0.7, 0.9, 5.0, 3.0)
    loud = {"verdict": True, "p_step": (0.0001, 1.0), "score": 0.999, "tier": 1, "route": route}
    scorer = kit.ScriptedScorer(changes=loud)
    client = make_client(scorer, cooldown_steps=2, hysteresis_off=0.5)
    assert (await client.step(step_id=0))["action"] == "degrade"
    scorer.changes = {}
    held = await client.step(step_id=1)
    assert (held["action"], held["verdict"], held["route"]["max_tokens"]) == ("degrade", True, 5)
    calm = await client.step(step_id=2)
    assert (calm["action"], calm["verdict"]) == ("allow", False)


# -- idempotency -----------------------------------------------------------------------------------------------


async def test_the_same_key_and_payload_give_the_same_answer(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer()
    client = make_client(scorer)
    one = await client.post({"trace_vector": [-1.0], "session": "a"}, idempotency_key="k")
    two = await client.raw(b'{ "session":"a" , "trace_vector":[-1] , "deadline_ms": 900}', idempotency_key="k")
    assert one.body == two.body
    assert len(scorer.rows) == 1
    other = await client.post({"trace_vector": [-2.0], "session": "a"}, idempotency_key="k")
    assert (other.status, other.json()["code"]) == (409, "conflict")
    tenant = await client.post({"trace_vector": [-2.0], "session": "a", "tenant": "x"}, idempotency_key="k")
    assert tenant.status == 200


async def test_a_given_request_id_is_a_key_too(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer()
    client = make_client(scorer)
    one = await client.step(request_id="r")
    assert (await client.post({"trace_vector": [-1.0]}, x_request_id="r")).json() == one
    assert one["request_id"] == "r"
    await client.step()
    await client.step()
    assert len(scorer.rows) == 3


async def test_concurrent_duplicates_wait_for_the_first(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer(hops=20)
    client = make_client(scorer)
    members = {"trace_vector": [-1.0], "idempotency_key": "k", "step_id": 0}
    replies = await asyncio.gather(*(client.post(members) for _ in range(32)))
    assert {r.status for r in replies} == {200}
    assert len({r.body for r in replies}) == 1
    assert len(scorer.rows) == 1


async def test_a_duplicate_takes_over_from_a_first_that_failed_before_deciding(make_client: Any, kit: Any) -> None:
    calls = 0

    async def before(row: Any) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        if calls == 1:
            msg = "full"
            raise Unavailable(msg, retry_after=0.2)

    client = make_client(kit.ScriptedScorer(before=before))
    members = {"trace_vector": [-1.0], "idempotency_key": "k"}
    one, two = await asyncio.gather(client.post(members), client.post(members))
    assert (one.status, two.status) == (503, 200)
    assert one.headers["retry-after"] == "1"


async def test_a_conflict_is_seen_while_the_first_is_in_flight(make_client: Any, kit: Any) -> None:
    scorer, going = held(kit)
    client = make_client(scorer)
    one = asyncio.ensure_future(client.post({"trace_vector": [-1.0], "idempotency_key": "k"}))
    await soon(lambda: bool(scorer.rows))
    assert (await client.post({"trace_vector": [-2.0], "idempotency_key": "k"})).status == 409
    assert not one.done()
    going.set()
    assert (await one).status == 200


# -- limits ----------------------------------------------------------------------------------------------------


async def test_rate_limit(make_client: Any) -> None:
    # slow enough that a busy machine refills nothing meanwhile
    client = make_client(http_rate_cap=3, http_rate_refill=0.005)
    replies = [await client.post({"tokens_delta": 50}) for _ in range(4)]
    assert [r.status for r in replies] == [200, 200, 200, 429]
    last = replies[-1]
    assert last.json()["code"] == "quota-exceeded"
    assert last.json()["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert last.json()["violated-policies"] == ["subject"]
    assert 100 < int(last.headers["retry-after"]) <= 200
    assert last.headers["ratelimit"].startswith('"subject";r=0;t=')
    assert (await client.post({"session": "other"})).status == 200
    assert (await client.post({"session": "third", "tokens_delta": 10**7})).status == 200
    assert (await client.post({"session": "third", "tokens_delta": -5})).status == 429


async def test_rate_overrides(make_client: Any) -> None:
    override = [{"tenant": "vip", "capacity": 2, "refill": 0.001}, {"model_id": "big", "capacity": 1, "refill": 0.001}]
    client = make_client(rate_overrides=override)
    assert [(await client.post({"tenant": "vip"})).status for _ in range(3)] == [200, 200, 429]
    assert [(await client.post({"model_id": "big"})).status for _ in range(2)] == [200, 429]
    assert (await client.post({})).status == 200


async def test_edge_bucket(make_client: Any) -> None:
    client = make_client(edge_rate_cap=2, edge_rate_refill=0.001)
    assert [(await client.get("/livez")).status for _ in range(3)] == [200, 200, 429]
    reply = await client.post({})
    assert (reply.status, reply.json()["violated-policies"]) == (429, ["edge"])
    client.peer = ("10.0.0.9", 1)
    assert (await client.post({})).status == 200


async def test_one_step_in_flight_per_session(make_client: Any, kit: Any) -> None:
    running = most = 0

    async def before(row: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    scorer = kit.ScriptedScorer(before=before)
    client = make_client(scorer, session_waiters=3)
    replies = await asyncio.gather(*(client.post({"trace_vector": [-float(i)]}) for i in range(6)))
    assert sorted(r.status for r in replies) == [200] * 4 + [409] * 2
    assert most == 1
    assert scorer.rows[-1].trace.tolist() == [0.0, -1.0, -2.0, -3.0]
    refusing = make_client(kit.ScriptedScorer(before=before), session_busy="refuse")
    replies = await asyncio.gather(*(refusing.post({"trace_vector": [-1.0]}) for _ in range(3)))
    assert sorted(r.status for r in replies) == [200, 409, 409]


async def test_waiting_for_a_session_is_bounded(make_client: Any, kit: Any) -> None:
    scorer, going = held(kit)
    client = make_client(scorer, session_wait_ms=20)
    first = asyncio.ensure_future(client.post({"trace_vector": [-1.0]}))
    await soon(lambda: bool(scorer.rows))
    second = await asyncio.wait_for(client.post({"trace_vector": [-1.0]}), 30)
    assert (second.status, first.done()) == (409, False)
    going.set()
    assert (await first).status == 200


async def test_sessions_and_streams_are_bounded(make_client: Any) -> None:
    client = make_client(sessions_max=3, session_min_idle_s=100.0, max_streams=2)
    assert [(await client.post({"session": str(i)})).status for i in range(4)] == [200, 200, 200, 503]
    client = make_client(sessions_max=3, session_min_idle_s=1e-9)
    assert {(await client.post({"session": str(i)})).status for i in range(9)} == {200}
    assert len(client.app.runtime.service.sessions) == 3
    client = make_client(max_streams=2)
    assert [(await client.post({"tenant": str(i)})).status for i in range(3)] == [200, 200, 503]


async def test_requests_in_work_are_bounded(make_client: Any) -> None:
    client = make_client(max_inflight=1, body_timeout_s=60.0)
    slow = asyncio.ensure_future(client.raw([]))
    await soon(lambda: client.app.runtime.in_flight == 1)
    refused = await client.post({})
    assert (refused.status, refused.json()["code"], refused.headers["retry-after"]) == (503, "unavailable", "1")
    slow.cancel()
    await asyncio.wait([slow])
    assert (await client.post({})).status == 200
    client = make_client(max_inflight=1, body_timeout_s=0.05)
    assert (await client.raw([])).status == 400
    assert (await client.post({})).status == 200


async def test_a_queue_is_bounded_by_the_time_that_it_takes(make_client: Any, kit: Any) -> None:
    """40 requests in work are fine where 1,000 are decided in a second, and too many where 40 are."""
    client = make_client(kit.ScriptedScorer(0.9), deadline_ms=1000.0)
    runtime = client.app.runtime
    runtime.in_flight = 40
    assert (await client.post({})).status == 200, "no pace is known yet"
    runtime.service.pace.rate = 1000.0
    assert (await client.post({})).status == 200
    runtime.service.pace.rate = 40.0
    refused = await client.post({})
    assert (refused.status, refused.json()["code"], refused.headers["retry-after"]) == (503, "unavailable", "1")
    assert refused.headers["ratelimit-policy"] == '"inflight";q=40;qu="concurrent-requests"'
    page = runtime.exporter.expose("", sessions=0, dropped=0)[0].decode()
    assert 'tcd_throttle_total{zone="wait"} 1.0' in page
    runtime.reading = 30
    assert (await client.post({})).status == 200, "whose body is not here yet, waits for nothing"
    runtime.reading, runtime.in_flight = 0, 31
    assert (await client.post({})).status == 200, "a few are always let in"
    runtime.in_flight = 0


async def test_idle_sessions_are_closed(make_client: Any, kit: Any) -> None:
    ledger = MemoryLedger()
    client = make_client(edges=Edges(ledger=ledger), session_idle_s=0.05)
    service = client.app.runtime.service
    service.start()
    await client.step()
    await soon(lambda: len(service.sessions) == 0)
    await service.stop(timeout=1.0)
    kinds = [type(e).__name__ for e in (await ledger.events()).events]
    assert kinds[-1] == "Closed"


# -- failures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "action"), [("closed", "block"), ("open", "allow"), ("static", "degrade")])
@pytest.mark.parametrize("failure", ["hang", "error"])
async def test_failure_policies_are_honoured_by_the_deadline(
    make_client: Any, kit: Any, policy: str, action: str, failure: str
) -> None:
    async def before(row: Any) -> None:
        if failure == "hang":
            await asyncio.Event().wait()
        msg = "gone"
        raise ScoringError(msg)

    client = make_client(
        kit.ScriptedScorer(before=before), on_failure=policy, deadline_ms=100 if failure == "hang" else 60_000
    )
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await client.step(step_id=0)
    assert loop.time() - began < 30.0
    assert (answer["action"], answer["cause"]) == (action, "degraded")
    reason = "timeout" if failure == "hang" else "scoring"
    assert answer["guarantee"] == f"none (degraded: {reason})"
    assert {"name": "detector", "status": "failed", "reason": reason} in answer["checks"]
    assert answer["receipt"] is not None
    page = (await client.get("/metrics")).body.decode()
    assert f'tcd_degraded_decisions_total{{reason="{reason}"}} 1.0' in page


async def test_a_request_may_ask_for_a_shorter_deadline(make_client: Any, kit: Any) -> None:
    async def before(row: Any) -> None:
        await asyncio.Event().wait()

    client = make_client(kit.ScriptedScorer(before=before))
    loop = asyncio.get_running_loop()
    for headers, members in (({}, {"deadline_ms": 50}), ({"x_deadline_ms": "50"}, {})):
        began = loop.time()
        assert (await client.post({"trace_vector": [-1.0], **members}, **headers)).json()["cause"] == "degraded"
        assert loop.time() - began < 30.0


async def test_a_failed_step_keeps_its_cost_and_appends_nothing(make_client: Any, kit: Any) -> None:
    fail = True

    async def before(row: Any) -> None:
        if fail:
            msg = "gone"
            raise ScoringError(msg)

    scorer = kit.ScriptedScorer(0.5, before=before)
    client = make_client(scorer)
    bad = await client.step(step_id=0)
    assert bad["alpha_spent"] == 0.005
    fail = False
    good = await client.step(step_id=0)
    assert (good["alpha_spent"], good["p_value"], scorer.rows[-1].trace.tolist()) == (0.005, 0.5, [-1.0])


async def test_a_full_queue_is_a_503_with_retry_after(make_client: Any, kit: Any) -> None:
    async def before(row: Any) -> None:
        msg = "full"
        raise Unavailable(msg, retry_after=2.5)

    reply = await make_client(kit.ScriptedScorer(before=before)).post({"trace_vector": [-1.0]})
    assert (reply.status, reply.headers["retry-after"]) == (503, "3")


async def test_a_cancelled_client_leaves_nothing_locked_and_the_cost_kept(make_client: Any, kit: Any) -> None:
    ledger = MemoryLedger()
    hang = True

    async def before(row: Any) -> None:
        if hang:
            await asyncio.Event().wait()

    scorer = kit.ScriptedScorer(before=before)
    client = make_client(scorer, edges=Edges(ledger=ledger))
    task = asyncio.ensure_future(client.post({"trace_vector": [-1.0], "step_id": 0, "idempotency_key": "k"}))
    waiting = asyncio.ensure_future(client.post({"trace_vector": [-1.0], "step_id": 1}))
    await soon(lambda: bool(scorer.rows))
    waiting.cancel()
    task.cancel()
    await asyncio.gather(task, waiting, return_exceptions=True)
    assert client.app.runtime.service.in_flight == 0
    hang = False
    answer = await client.step(step_id=0, idempotency_key="k")
    assert (answer["alpha_spent"], answer["cause"]) == (0.005, "")
    kinds = [type(e).__name__ for e in (await ledger.events()).events]
    assert kinds == ["Configured", "EpochOpened", "Reserved", "Failed", "Settled"]


class BrokenLedger(MemoryLedger):
    """Loses the appends that it is told to lose."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.hang = asyncio.Event()
        self.hang.set()

    async def append(self, batch: Any, *, now_us: int, expected_size: int | None = None) -> Any:
        await self.hang.wait()
        if self.broken:
            raise OSError(28, "No space left on device")
        return await super().append(batch, now_us=now_us, expected_size=expected_size)


@pytest.mark.parametrize(("policy", "action"), [("closed", "block"), ("open", "allow"), ("static", "degrade")])
async def test_nothing_that_is_not_durable_is_answered_as_if_it_were(
    make_client: Any, policy: str, action: str
) -> None:
    ledger = BrokenLedger()
    client = make_client(edges=Edges(ledger=ledger), on_failure=policy)
    await client.step(step_id=0)
    ledger.broken = True
    lost = await client.step(step_id=1, idempotency_key="k")
    assert (lost["action"], lost["cause"], lost["receipt"]) == (action, "degraded", None)
    assert lost["guarantee"] == "none (degraded: ledger)"
    assert [c["status"] for c in lost["checks"] if c["name"] == "receipt"] == ["failed"]
    ledger.broken = False
    back = await client.step(step_id=2)
    assert (back["cause"], back["receipt"] is not None) == ("", True)
    controller = client.app.runtime.service.budget.controller
    await client.app.runtime.service.judge.flush()
    events = (await ledger.events()).events
    assert Controller.replay(events, controller.params).digest() == controller.digest()


async def test_a_slow_ledger_does_not_break_the_deadline(make_client: Any) -> None:
    ledger = BrokenLedger()
    ledger.hang.clear()
    client = make_client(edges=Edges(ledger=ledger), deadline_ms=60)
    # the ledger never comes back: that there is an answer is the deadline's doing
    answer = await asyncio.wait_for(client.step(), 60)
    assert answer["cause"] == "degraded"
    ledger.hang.set()


async def test_draining_refuses_new_steps_and_finishes_old_ones(make_client: Any, kit: Any) -> None:
    scorer, going = held(kit)
    client = make_client(scorer)
    service = client.app.runtime.service
    old = asyncio.ensure_future(client.post({"trace_vector": [-1.0]}))
    await soon(lambda: bool(scorer.rows))
    stopping = asyncio.ensure_future(service.stop(timeout=60.0))
    await asyncio.sleep(0)
    new = await client.post({"session": "new"})
    assert (new.status, new.headers["retry-after"]) == (503, "1")
    ready = await client.get("/readyz", query="verbose")
    assert (ready.status, ready.json()["checks"]["service"]) == (503, "stopping")
    assert not old.done()
    going.set()
    assert (await old).status == 200
    await stopping


async def test_drift_only_reaches_the_row(make_client: Any, kit: Any) -> None:
    scorer = kit.ScriptedScorer()
    await make_client(scorer).step(drift_score=0.75)
    assert scorer.rows[0].base[3] == 0.75
    assert np.float32(scorer.rows[0].alpha) > 0
