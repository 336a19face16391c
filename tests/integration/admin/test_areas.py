"""Keys, state, patches, trust, alarms and settings over the admin plane of a running shim."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tcd.cli.admin import app
from tcd.config import load
from tcd.keystore import KeyStore
from tcd.ledger.values import Extent
from tcd.receipts import verify_single
from tcd.reload import RELOADABLE
from tests.integration.admin.kit import Running, full_for, running
from tests.unit.shim.conftest import SEED_HEX

ORIGIN = "tcd.localhost"
MINUTE = 60_000_000


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError


def kid(answer: Any) -> str:
    found: str = json.loads(answer["receipt_body"])["kid"]
    return found


def verified(admin: Running, answer: Any) -> str:
    return verify_single(
        answer["receipt_body"], head=answer["receipt"], sig=answer["receipt_sig"], policy=admin.runtime.verifier.policy
    ).code


# -- keys ---------------------------------------------------------------------------------------------------


def store_of(folder: Path) -> KeyStore:
    store = KeyStore(folder, os.urandom, lambda: time.time_ns() // 1000)
    store.generate(purpose="receipt", origin=ORIGIN)
    store.generate(purpose="checkpoint", origin=ORIGIN)
    return store


async def test_a_key_is_rotated_by_two_and_hands_over(tmp_path: Path) -> None:
    store_of(tmp_path / "keys")
    async with running(tmp_path, keys_dir=tmp_path / "keys", attest_sk_hex=None, subject_key_hex="77" * 32) as admin:
        await admin.enrol()
        before = await admin.shim.step(session="a")
        known = await admin.get("/keys")
        (old,) = [key["kid"] for key in known["keys"] if key["purpose"] == "receipt"]
        assert (known["source"], old) == ("directory", kid(before))
        assert "seed" not in json.dumps(known["keys"])
        done = await admin.two(f"/keys/{old}:rotate", {"overlap_minutes": 5})
        new = done["result"]["keys"][1]["kid"]
        after = await admin.shim.step(session="b")
        assert (kid(after), new in done["result"]["in_use"]) == (new, True)
        assert [verified(admin, answer) for answer in (before, after)] == ["ok", "ok"]
        (handed,) = await admin.bodies("rotate")
        assert (handed["kid"], handed["rotate"]["kid"]) == (old, new)
        # nothing can sign instead of the new one
        await admin.two(f"/keys/{new}:retire", status=409)
        await admin.two(f"/keys/{old}:retire")
        assert ("keys.retire", "alice + bob") in await admin.acts()
        assert ("keys.retire.failed", "alice + bob") in await admin.acts()


async def test_a_stolen_key_in_use_gets_a_successor_and_is_distrusted_from_a_size_on(tmp_path: Path) -> None:
    store_of(tmp_path / "keys")
    async with running(tmp_path, keys_dir=tmp_path / "keys", attest_sk_hex=None, subject_key_hex="77" * 32) as admin:
        await admin.enrol()
        before = await admin.shim.step(session="a")
        done = await admin.two(f"/keys/{kid(before)}:compromise", {"size": 0})
        stolen, fresh = done["result"]["keys"]
        assert (stolen["compromised_after_size"], fresh["purpose"]) == (0, "receipt")
        after = await admin.shim.step(session="b")
        assert kid(after) == fresh["kid"]
        assert [verified(admin, answer) for answer in (before, after)] == ["key_not_valid", "ok"]
        # whoever stole it could hand over too
        assert await admin.bodies("rotate") == []
        # no key is ever trusted more again
        await admin.two(f"/keys/{kid(before)}:compromise", {"size": 5}, status=409)


async def test_a_stolen_key_is_not_trusted_for_leaves_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store_of(tmp_path / "keys")
    async with running(tmp_path, keys_dir=tmp_path / "keys", attest_sk_hex=None, subject_key_hex="77" * 32) as admin:
        await admin.enrol()
        path = f"/keys/{kid(await admin.shim.step(session='a'))}:compromise"
        size = (await admin.runtime.ledger.extent()).receipts
        refused = await admin.post(path, {"size": size + 1000}, status=422)
        assert refused["pointer"] == "/size"
        # the act looks again, whatever was proposed
        proposal = await admin.post(path, {"size": size}, status=202)

        async def fewer() -> Extent:
            return Extent(size - 1)

        with monkeypatch.context() as context:
            context.setattr(admin.runtime.ledger, "extent", fewer)
            await admin.post(f"/approvals/{proposal['id']}", by=admin.bob, status=422)
        assert all("compromised_after_size" not in key for key in (await admin.get("/keys"))["keys"])
        await admin.two(path, {"size": size})


async def test_keys_of_a_seed_are_shown_and_do_not_change(tmp_path: Path) -> None:
    async with running(tmp_path) as admin:
        await admin.enrol()
        known = await admin.get("/keys")
        assert (known["source"], known["problem"]) == ("seed", "")
        assert SEED_HEX not in json.dumps(known)
        await admin.post(f"/keys/{known['keys'][0]['kid']}:rotate", status=409)


async def test_a_key_that_is_not_there_is_404(tmp_path: Path) -> None:
    store_of(tmp_path / "keys")
    async with running(tmp_path, keys_dir=tmp_path / "keys", attest_sk_hex=None, subject_key_hex="77" * 32) as admin:
        await admin.enrol()
        for verb, body in (("rotate", {}), ("retire", {}), ("compromise", {"size": 1})):
            await admin.post(f"/keys/{'0' * 32}:{verb}", body, status=404)
        await admin.post(f"/keys/{'0' * 32}:compromise", {"size": -1}, status=422)


# -- state --------------------------------------------------------------------------------------------------


async def test_sessions_move_to_another_shim_and_what_was_altered_does_not(tmp_path: Path) -> None:
    key = "?model_id=model0&gpu_id=gpu0&task=chat&lang=en"
    async with running(tmp_path / "a") as one, running(tmp_path / "b") as two:
        await one.enrol()
        await two.enrol()
        for number in range(3):
            await one.shim.step(session=f"s{number}", trace_vector=[-1.0 - number] * 5)
        page = await one.get(f"/state{key}&limit=2")
        rest = await one.get(f"/state{key}&first=2")
        assert [len(p["detector"]["sessions"]) for p in (page, rest)] == [2, 1]
        assert (page["detector"]["more"], rest["detector"]["more"]) == (True, False)
        altered = json.loads(json.dumps(page))
        altered["detector"]["sessions"][0]["p"] = "3ff0000000000000"
        altered["detector"]["sessions"][0]["steps"] = 10**6
        await two.post("/state:load", altered, status=422)
        await two.post("/state:load", {"detector": {"v": "x"}}, status=422)
        for digest in ("sha256:\x01", "sha256:" + "z" * 64, page["detector"]["digest"].upper(), "sha256:"):
            await two.post("/state:load", {"detector": {**page["detector"], "digest": digest}}, status=422)
        assert [action for action, _ in await two.acts() if action.startswith("state")] == []
        for part in (page, rest):
            await two.post("/state:load", part)
        again = await two.get(f"/state{key}&limit=100")
        moved = {s["session"]: s["trace"] for s in again["detector"]["sessions"]}
        assert moved == {s["session"]: s["trace"] for p in (page, rest) for s in p["detector"]["sessions"]}
        assert [action for action, _ in await two.acts()].count("state.load") == 2


# -- patches ------------------------------------------------------------------------------------------------


async def test_a_patch_takes_two_people_and_is_rolled_back(tmp_path: Path) -> None:
    async with running(tmp_path, folder=tmp_path, entropy_floor=0.1, slo_ms=1e9) as admin:
        await admin.enrol()
        terms = {"id": "floor", "setting": "entropy_floor", "value": 2.0, "ttl": 600}
        await admin.post("/patches", terms)
        await admin.post("/patches", terms, status=409)
        await admin.post("/patches/floor:apply", status=409)
        await admin.post("/patches/floor:approve", status=403)
        await admin.post("/patches/floor:approve", by=admin.bob)
        assert (await admin.shim.step(session="a", entropy=1.0))["action"] == "allow"
        applied = await admin.post("/patches/floor:apply")
        assert (applied["result"]["state"], applied["result"]["approver"]) == ("active", "bob")
        assert (await admin.shim.step(session="b", entropy=1.0))["action"] == "degrade"
        # to end it loosens: nobody does that alone, and it is only ended where it is the one that was looked at
        first = await admin.post("/patches/floor:rollback", {"reason": "too strict"}, by=admin.bob, status=202)
        assert (first["shown"]["setting_without"], first["shown"]["value"]) == (0.1, 2.0)
        second = await admin.post("/patches/floor:rollback", {"reason": "too strict"}, status=202)
        await admin.post(f"/approvals/{first['id']}", by=admin.bob, status=403)
        assert (await admin.shim.step(session="c", entropy=1.0))["action"] == "degrade"
        done = await admin.post(f"/approvals/{first['id']}")
        assert (done["actors"], done["result"]["state"]) == (["bob", "alice"], "rolled_back")
        assert (await admin.shim.step(session="d", entropy=1.0))["action"] == "allow"
        await admin.post(f"/approvals/{second['id']}", by=admin.bob, status=409)
        await admin.post("/patches/floor:rollback", {"reason": "again"}, status=409)
        (shown,) = (await admin.get("/patches"))["patches"]
        assert (shown["state"], shown["author"]) == ("rolled_back", "alice")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"setting": "entropy_floor", "value": 0.01}, 403),
        ({"setting": "alpha", "value": 0.01}, 422),
        ({"value": "x"}, 422),
        ({"ttl": 0}, 422),
        ({"ttl": 1e9}, 422),
        ({"share": 1.5}, 422),
        ({"id": "../x"}, 422),
        ({"more": 1}, 422),
    ],
)
async def test_a_patch_that_loosens_or_cannot_be_is_refused(tmp_path: Path, change: Any, status: int) -> None:
    async with running(tmp_path, folder=tmp_path, entropy_floor=0.1) as admin:
        await admin.enrol()
        terms = {"id": "p", "setting": "entropy_floor", "value": 2.0, "ttl": 600, **change}
        await admin.post("/patches", terms, status=status)
        assert (await admin.get("/patches"))["patches"] == []
        for verb in ("approve", "apply", "withdraw", "rollback"):
            await admin.post(f"/patches/none:{verb}", status=404)


async def test_a_roll_back_ends_no_later_patch_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcd.trust.patches.MAX_ENDED", 1)

    async def in_force(admin: Running, name: str, setting: str, value: Any) -> None:
        await admin.post("/patches", {"id": name, "setting": setting, "value": value, "ttl": 600})
        await admin.post(f"/patches/{name}:approve", by=admin.bob)
        await admin.post(f"/patches/{name}:apply")

    async with running(tmp_path, folder=tmp_path, entropy_floor=0.1, slo_ms=1e9) as admin:
        await admin.enrol()
        await in_force(admin, "p", "entropy_floor", 2.0)
        late = await admin.post("/patches/p:rollback", {}, status=202)
        await admin.two("/patches/p:rollback", {})
        await in_force(admin, "q", "cooldown_steps", 1000)
        await admin.two("/patches/q:rollback", {})
        # the first one is forgotten, and its name is used again
        await in_force(admin, "p", "entropy_floor", 3.0)
        answer = await admin.post(f"/approvals/{late['id']}", by=admin.bob, status=409)
        assert "another step since" in answer["detail"]
        assert [patch["state"] for patch in (await admin.get("/patches"))["patches"]] == ["rolled_back", "active"]


async def test_a_patch_that_is_not_in_force_is_withdrawn(tmp_path: Path) -> None:
    async with running(tmp_path, folder=tmp_path, entropy_floor=0.1) as admin:
        await admin.enrol()
        await admin.post("/patches", {"id": "p", "setting": "entropy_floor", "value": 2.0, "ttl": 600})
        assert (await admin.post("/patches/p:withdraw"))["result"]["state"] == "withdrawn"


# -- trust --------------------------------------------------------------------------------------------------


async def test_trust_is_lowered_by_one_and_given_back_by_two(tmp_path: Path) -> None:
    async with running(tmp_path, folder=tmp_path, trust_enable=True) as admin:
        await admin.enrol()
        feed = admin.runtime.service.judge.trust
        for number in range(5):
            await admin.post("/trust:distrust", {"node": "model:bad", "evidence": f"ticket-{number}"})
        # the same evidence counts once
        await admin.post("/trust:distrust", {"node": "model:bad", "evidence": "ticket-0"})
        await until(lambda: len(feed.graph) == 1)
        told = await admin.get("/trust/node?node=model:bad")
        assert told["bad"] == pytest.approx(5, rel=1e-3)
        await admin.post("/trust/edges", {"node": "tool:search", "on": "model:bad", "weight": 0.5})
        await until(lambda: len(feed.graph.edges()) == 1)
        scores = await admin.get("/trust?below=0.99")
        assert [n["node"] for n in scores["nodes"]] == ["model:bad", "tool:search"]
        assert scores["edges"] == [{"node": "tool:search", "on": "model:bad", "weight": 0.5, "by": "operators"}]
        why = await admin.get("/trust/node?node=tool:search")
        assert why["paths"][0]["path"] == ["tool:search", "model:bad"]
        # a lighter edge would be milder
        await admin.post("/trust/edges", {"node": "tool:search", "on": "model:bad", "weight": 0.1}, status=409)
        await admin.two("/trust:vouch", {"node": "model:bad", "evidence": "review"})
        await until(lambda: feed.graph.explain(_node("model:bad"), time.time()).good > 0)
        await admin.two("/trust/edges:remove", {"node": "tool:search", "on": "model:bad"})
        await until(lambda: not feed.graph.edges())
        await admin.two("/trust/edges:remove", {"node": "tool:search", "on": "model:bad"}, status=404)


async def test_one_ticket_is_evidence_about_each_node_it_names(tmp_path: Path) -> None:
    async with running(tmp_path, folder=tmp_path, trust_enable=True) as admin:
        await admin.enrol()
        feed = admin.runtime.service.judge.trust
        for node in ("user:a", "user:b", "user:a"):
            await admin.post("/trust:distrust", {"node": node, "evidence": "ticket-1"})
        # taken in order: what came before this counts, or never will
        await admin.post("/trust:distrust", {"node": "tool:last", "evidence": "x"})
        await until(lambda: feed.graph.explain(_node("tool:last"), time.time()).bad > 0)
        for node in ("user:a", "user:b"):
            assert (await admin.get(f"/trust/node?node={node}"))["bad"] == pytest.approx(1, rel=1e-3)


async def test_evidence_of_an_operator_is_never_dropped_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, folder=tmp_path, trust_enable=True) as admin:
        await admin.enrol()

        def full(_: Any) -> None:
            raise queue.Full

        with monkeypatch.context() as context:
            context.setattr(admin.runtime.service.judge.trust._inbox, "put", full)
            await admin.post("/trust:distrust", {"node": "user:a", "evidence": "ticket-1"}, status=503)
        assert ("trust.distrust.failed", "alice") in await admin.acts()


def _node(text: str) -> Any:
    from tcd.trust import Node  # noqa: PLC0415

    return Node.parse(text)


async def test_an_operators_dependency_outlives_a_restart_and_a_compaction(tmp_path: Path) -> None:
    edge = {"node": "tool:a", "on": "model:b", "weight": 0.25}
    async with running(tmp_path, folder=tmp_path, trust_enable=True) as admin:
        await admin.enrol()
        feed = admin.runtime.service.judge.trust
        await admin.post("/trust/edges", {**edge, "node": "tool:gone"})
        await admin.post("/trust/edges", edge)
        await admin.two("/trust/edges:remove", {"node": "tool:gone", "on": "model:b"})
        await until(lambda: len(feed.graph.edges()) == 1)
        alice = admin.alice
    async with running(tmp_path, folder=tmp_path, trust_enable=True) as admin:
        admin.alice = alice
        feed = admin.runtime.service.judge.trust
        feed._compact = 0
        await admin.post("/trust:distrust", {"node": "tool:a", "evidence": "x"})
        await until(lambda: feed._lines == 2)
    async with running(tmp_path, folder=tmp_path, trust_enable=True) as admin:
        admin.alice = alice
        assert (await admin.get("/trust"))["edges"] == [{**edge, "by": "operators"}]


@pytest.mark.parametrize("node", ["model", "planet:x", ":x", "model:"])
async def test_what_is_no_node_is_refused(tmp_path: Path, node: str) -> None:
    async with running(tmp_path) as admin:
        await admin.enrol()
        await admin.get(f"/trust/node?node={node}", 422)
        await admin.post("/trust:distrust", {"node": node, "evidence": "x"}, status=422)


# -- alarms -------------------------------------------------------------------------------------------------


async def test_an_alarm_is_acknowledged_by_two_and_the_record_says_so(tmp_path: Path) -> None:
    async with running(tmp_path, alpha=0.5) as admin:
        await admin.enrol()
        assert await admin.get("/alarms") == {"alarms": []}
        await admin.post("/alarms:ack", {"tenant": "acme"}, status=404)
        await admin.shim.step(session="calm", tenant="calm")
        await admin.post("/alarms:ack", {"tenant": "calm"}, status=409)
        admin.scorer.p = 1e-9
        for number in range(12):
            await admin.shim.step(session=f"s{number}", tenant="acme", step_id=0, trace_vector=[-1.0] * 64)
            await close_sessions(admin)
        (alarm,) = (await admin.get("/alarms"))["alarms"]
        assert (alarm["tenant"], alarm["alarm"], alarm["claim"]) == ("acme", True, 0)
        done = await admin.two("/alarms:ack", {"tenant": "acme"})
        assert (done["result"]["after"]["alarm"], done["result"]["after"]["claim"]) == (False, 1)
        assert done["result"]["after"]["spent"] == done["result"]["before"]["spent"]
        (record,) = await admin.bodies("ack")
        assert (record["ack"]["actor"], record["ack"]["claim"]) == ("alice + bob", 1)
        assert record["ack"]["stream"] == alarm["stream"]
        assert (await admin.get("/alarms"))["alarms"] == []
        # the ledger's events and the controller agree
        from tcd.risk_av import Controller  # noqa: PLC0415

        controller = admin.runtime.service.judge.budget.controller
        page = await admin.runtime.ledger.events()
        assert Controller.replay(page.events, controller.params).digest() == controller.digest()


async def alarmed(admin: Running, name: str) -> None:
    """Reject until the alarm of tenant acme is on."""
    admin.scorer.p = 1e-9
    for number in range(12):
        await admin.shim.step(session=f"{name}{number}", tenant="acme", step_id=0, trace_vector=[-1.0] * 64)
        await close_sessions(admin)
    assert [alarm["tenant"] for alarm in (await admin.get("/alarms"))["alarms"]] == ["acme"]


async def test_an_alarm_stays_on_when_its_record_is_not_durable(tmp_path: Path) -> None:
    async with running(tmp_path, alpha=0.5) as admin:
        await admin.enrol()
        await alarmed(admin, "s")
        ledger, controller = admin.runtime.ledger, admin.runtime.service.judge.budget.controller
        with full_for(ledger, "ack"):
            await admin.two("/alarms:ack", {"tenant": "acme"}, status=503)
        assert ("alarm.ack.failed", "alice + bob") in await admin.acts()
        (alarm,) = (await admin.get("/alarms"))["alarms"]
        assert (alarm["alarm"], alarm["claim"]) == (True, 0)
        await admin.two("/alarms:ack", {"tenant": "acme"})
        assert [record["ack"]["claim"] for record in await admin.bodies("ack")] == [1]
        from tcd.risk_av import Controller  # noqa: PLC0415

        page = await ledger.events()
        assert Controller.replay(page.events, controller.params).digest() == controller.digest()


async def test_a_proposal_clears_no_alarm_but_the_one_it_was_made_for(tmp_path: Path) -> None:
    async with running(tmp_path, alpha=0.5) as admin:
        await admin.enrol()
        await alarmed(admin, "s")
        first = await admin.post("/alarms:ack", {"tenant": "acme"}, status=202)
        second = await admin.post("/alarms:ack", {"tenant": "acme"}, status=202)
        await admin.post(f"/approvals/{first['id']}", by=admin.bob)
        await alarmed(admin, "t")
        await admin.post(f"/approvals/{second['id']}", by=admin.bob, status=409)
        (alarm,) = (await admin.get("/alarms"))["alarms"]
        assert (alarm["alarm"], alarm["claim"]) == (True, 1)


async def close_sessions(admin: Running) -> None:
    """End what is open, so that the e-process folds it."""
    service = admin.runtime.service
    for session in list(service.sessions):
        service.lifecycle.end(session, "end")


# -- settings -----------------------------------------------------------------------------------------------


async def test_files_are_read_again_and_what_loosens_takes_two(tmp_path: Path) -> None:
    place = tmp_path / "tcd.toml"

    def write(**members: Any) -> None:
        place.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in members.items()))

    async with running(tmp_path, entropy_floor=0.5) as admin:
        await admin.enrol()
        await admin.get("/config/pending", 404)
        await admin.post("/config:reload", status=404)
        now = admin.runtime.settings

        def reread() -> Any:
            found = load({}, path=place).settings
            return type(now)(**{**{n: getattr(now, n) for n in type(now).model_fields}, **changed(found)}), None

        def changed(found: Any) -> dict[str, Any]:
            return {n: getattr(found, n) for n in RELOADABLE if n in place.read_text()}

        admin.runtime.reread = reread
        write(entropy_floor=0.75)
        pending = await admin.get("/config/pending")
        assert (pending["changes"], pending["loosens"]) == (["entropy_floor: 0.5 -> 0.75"], [])
        done = await admin.post("/config:reload")
        assert done["result"]["changes"] == ["entropy_floor: 0.5 -> 0.75"]
        assert admin.runtime.settings.entropy_floor == 0.75

        write(entropy_floor=0.25)
        pending = await admin.get("/config/pending")
        assert pending["loosens"] == ["entropy_floor"]
        await admin.post("/config:reload", status=403)
        await admin.post("/config:break-glass", {"digest": "sha256:" + "0" * 64, "reason": "x"}, status=409)
        glass = {"digest": pending["config_hash"], "reason": "incident 7"}
        proposal = await admin.post("/config:break-glass", glass, status=202)
        assert proposal["shown"]["loosens"] == ["entropy_floor"]
        # something else came in force after the first had seen it: it would loosen more than was shown
        write(entropy_floor=0.9)
        await admin.post("/config:reload")
        write(entropy_floor=0.25)
        refused = await admin.post(f"/approvals/{proposal['id']}", by=admin.bob, status=409)
        assert "what is in force" in refused["detail"]
        write(entropy_floor=0.75)
        assert (await admin.get("/config/pending"))["loosens"] == ["entropy_floor"]
        await admin.two("/config:break-glass", {**glass, "digest": (await admin.get("/config/pending"))["config_hash"]})
        write(entropy_floor=0.25)
        proposal = await admin.post("/config:break-glass", glass, status=202)
        # the file was changed after the first had seen it
        write(entropy_floor=0.1)
        await admin.post(f"/approvals/{proposal['id']}", by=admin.bob, status=409)
        assert admin.runtime.settings.entropy_floor == 0.75
        write(entropy_floor=0.25)
        await admin.two("/config:break-glass", glass)
        assert admin.runtime.settings.entropy_floor == 0.25
        acts = [action for action, _ in await admin.acts()]
        assert acts.count("config.break_glass") == 2
        assert "config.reload" in acts
        # nothing is left to do
        await admin.post("/config:break-glass", glass, status=409)


async def test_a_reload_does_what_was_recorded_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, entropy_floor=0.5) as admin:
        await admin.enrol()
        now = admin.runtime.settings

        def settings(floor: float) -> Any:
            return type(now)(**{**{n: getattr(now, n) for n in type(now).model_fields}, "entropy_floor": floor})

        admin.runtime.reread = lambda: (settings(0.75), None)
        record = admin.server.plane.acts.record

        async def slowly(action: str, actor: str, digest: str, *, reason: str = "") -> str:
            # the file is changed while the act is recorded
            admin.runtime.reread = lambda: (settings(0.9), None)
            return await record(action, actor, digest, reason=reason)

        monkeypatch.setattr(admin.server.plane.acts, "record", slowly)
        await admin.post("/config:reload", status=409)
        assert admin.runtime.settings.entropy_floor == 0.5
        await admin.post("/config:reload")
        assert admin.runtime.settings.entropy_floor == 0.9


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/ledger:repair", {"chain": "sha256:" + "0" * 64, "reason": "a\x01"}),
        ("/config:break-glass", {"digest": "0" * 64, "reason": "\x00"}),
        ("/trust:distrust", {"node": "model:\x1b[2J", "evidence": "x"}),
        ("/trust:distrust", {"node": "model:x", "evidence": "\n"}),
        ("/patches/p:rollback", {"reason": "a\nb"}),
        ("/audits", {"tenant": "a\x00"}),
    ],
)
async def test_what_no_record_can_hold_is_refused_before_it_is_proposed(tmp_path: Path, path: str, body: Any) -> None:
    async with running(tmp_path, folder=tmp_path, trust_enable=True) as admin:
        await admin.enrol()
        await admin.post(path, body, status=422)
        for identifier in ("%00", "%ED%A0%80", "A" * 32, "x" * 5000):
            await admin.post(f"/approvals/{identifier}", status=404)
            await admin.get(f"/approvals/{identifier}", 404)


async def test_which_policy_applies_to_whom(tmp_path: Path) -> None:
    place = tmp_path / "policies.toml"
    place.write_text(
        '[[policy]]\nname = "all"\nversion = 1\n[[policy]]\nname = "acme"\nversion = 3\nmode = "monitor"\n'
        'match = { tenant = "acme" }\n'
    )
    async with running(tmp_path, policies=place) as admin:
        await admin.enrol()
        for tenant, ref, mode in (("acme", "acme@3#", "monitor"), ("other", "all@1#", "enforce")):
            bound = await admin.get(f"/policies:bind?tenant={tenant}")
            answer = await admin.shim.step(session=tenant, tenant=tenant)
            assert bound["policy"].startswith(ref)
            assert (bound["policy"], bound["mode"]) == (answer["policy_ref"], mode)
    async with running(tmp_path / "none") as admin:
        await admin.enrol()
        assert (await admin.get("/policies:bind?tenant=x"))["policy"] == ""


# -- from the command line ----------------------------------------------------------------------------------


async def test_what_waits_is_shown_and_approved_from_the_command_line(tmp_path: Path) -> None:
    async with running(tmp_path, alpha=0.5) as admin:
        await admin.enrol()
        admin.scorer.p = 1e-9
        await admin.shim.step(session="s", tenant="acme")
        await close_sessions(admin)
        proposal = await admin.post("/receipts:erase", {"before_us": 2**52}, status=202)
        admin.bob.save(tmp_path / "bob.key")

        async def tcd(*arguments: str) -> Any:
            words = ["approve", *arguments, "--key", str(tmp_path / "bob.key"), "--url", admin.server.url]
            done = await asyncio.to_thread(CliRunner().invoke, app, words)
            return done.exit_code, json.loads(done.stdout)

        code, waiting = await tcd()
        assert (code, [one["id"] for one in waiting["approvals"]]) == (0, [proposal["id"]])
        code, done = await tcd(proposal["id"])
        assert (code, done["actors"], done["result"]["erased"]) == (0, ["alice", "bob"], 2)
        assert (await tcd(proposal["id"]))[0] == 1
