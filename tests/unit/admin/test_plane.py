"""The plane as a whole: deny by default, scopes, two people, tenants, limits, the log, the first start."""

from __future__ import annotations

import asyncio
import io
import json
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from sidecar_api.admin.app import MOST, create_admin, requirements
from sidecar_api.admin.openapi import KEPT, document, text
from sidecar_api.admin.plane import Limits, Plane, Requires
from sidecar_api.admin.principals import SCOPES, Principals
from sidecar_api.admin.routes import Enrolment
from sidecar_api.admin.store import memory_store
from sidecar_api.admin.store.store import LEASE
from tcd.client.admin import OperatorKey
from tcd.errors import ConfigError, Unavailable
from tcd.ledger.shared import InDoubt
from tcd.rate_limit import Limit
from tcd.telemetry import LogWriter
from tests.unit.admin.kit import BASE, HOST, ROUTES, WIDE, Admin

BUNDLE = {"files": {"a.toml": "x"}}


@pytest.fixture
def admin(tmp_path: Path) -> Admin:
    return Admin(tmp_path)


def path_of(path: str) -> str:
    return BASE + re.sub(r"\{\w+\}", "0" * 64, path)


#: What changes nothing though it is no GET, and so is not signed.
UNSIGNED = {("POST", "/policies:validate")}


def test_every_route_declares_what_it_requires(admin: Admin) -> None:
    declared = requirements(admin.app)
    assert len(declared) == sum(len(r.methods or ()) for r in admin.app.routes if isinstance(r, APIRoute))
    # those that the document is made from are those that are served
    assert {
        (m, p.removeprefix(BASE)): r if isinstance(r, Requires) else None for (m, p), r in declared.items()
    } == ROUTES
    assert [key for key, r in declared.items() if isinstance(r, Enrolment)] == [("POST", f"{BASE}/enrol")]
    unsigned = {(m, p) for (m, p), r in ROUTES.items() if m != "GET" and r is not None and not r.mutates}
    assert unsigned == UNSIGNED


def test_the_kept_document_is_the_routes() -> None:
    assert KEPT.read_text() == text(), "run python -m sidecar_api.admin.openapi, or make proto"
    said = {
        (method.upper(), path.removeprefix(BASE)): operation
        for path, item in document()["paths"].items()
        for method, operation in item.items()
    }
    assert said.keys() == ROUTES.keys()
    for key, requires in ROUTES.items():
        operation = said[key]
        signed = requires is None or requires.mutates
        assert operation["security"] == [{"token": [], "signature": []} if signed else {"token": []}]
        assert operation["x-tcd-scope"] == ("bootstrap" if requires is None else requires.scope)
        assert operation["x-tcd-people"] == (2 if requires is not None and requires.pair else 1)
        assert {"401", "429", "503"} <= operation["responses"].keys()


def test_an_app_with_an_open_route_is_not_made(admin: Admin) -> None:
    open_ = APIRouter()

    @open_.get("/open")
    async def route() -> dict[str, str]:
        return {}

    admin.app.router.routes.extend(open_.routes)
    with pytest.raises(ConfigError, match="/open does not say"):
        requirements(admin.app)
    admin.app.router.routes.pop()
    admin.app.include_router(open_)
    with pytest.raises(ConfigError, match="no route of the admin plane"):
        requirements(admin.app)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_without_a_credential_every_route_says_401(admin: Admin, method: str, path: str) -> None:
    for content in (b"", b"{}", b"not json"):
        reply = await admin.send(method, path_of(path), content=content)
        assert reply.status_code == 401
        assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("method", "path"), [key for key, r in ROUTES.items() if r is not None and r.scope is not None]
)
async def test_each_route_needs_its_own_scope(admin: Admin, method: str, path: str) -> None:
    requires = ROUTES[method, path]
    assert requires is not None
    path = path_of(path).removeprefix(BASE)
    others = [scope for scope in SCOPES if scope != requires.scope]
    body = None if method == "GET" else BUNDLE
    if method == "GET":
        reply = await admin.get(path, admin.alice, others)
    else:
        reply = await admin.call(method, path, admin.alice, body, scopes=others)
    assert reply.status_code == 403
    assert admin.acts.made == []


async def test_what_is_not_there_is_404_and_a_wrong_method_405(admin: Admin) -> None:
    for path in (
        "/",
        "/admin",
        "/docs",
        "/openapi.json",
        "/redoc",
        "/metrics",
        "/admin/v1/nothing",
        "/admin/v1/whoami/",
    ):
        reply = await admin.send("GET", path)
        assert reply.status_code == 404, path
        assert reply.json()["detail"] == "no such path"
    wrong = await admin.send("DELETE", BASE + "/whoami")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


async def test_every_answer_forbids_caching_and_framing(admin: Admin) -> None:
    for reply in (await admin.get("/whoami", admin.alice), await admin.send("GET", "/nothing")):
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["x-request-id"]


@pytest.mark.parametrize("host", ["evil.example:8081", "admin.test", "admin.test:80", ""])
async def test_another_hosts_name_is_refused(admin: Admin, host: str) -> None:
    token = admin.alice.token(SCOPES)
    reply = await admin.send("GET", BASE + "/whoami", headers={"host": host, "authorization": f"Bearer {token}"})
    assert reply.status_code == 400


async def test_a_long_body_is_413_before_anything_else(admin: Admin) -> None:
    assert (await admin.send("PUT", BASE + "/policies", content=b"x" * (MOST + 1))).status_code == 413


async def test_what_a_body_has_wrong_is_named_and_not_repeated(admin: Admin) -> None:
    reply = await admin.call("PUT", "/policies", admin.alice, {"files": {"a.toml": 7}, "secret-looking": "s3cr3t"})
    assert reply.status_code == 422
    assert reply.json()["pointer"].startswith("/")
    assert "s3cr3t" not in reply.text
    bodies: list[Any] = [{}, {"files": {}}, {"files": {"../etc/x": "a"}}, {"files": {"a": "b"}, "more": 1}]
    for body in bodies:
        assert (await admin.call("PUT", "/policies", admin.alice, body)).status_code == 422


# ---------------------------------------------------------------- two people


async def test_a_change_of_policies_takes_two_people(admin: Admin) -> None:
    proposed = await admin.call("PUT", "/policies", admin.alice, BUNDLE)
    assert proposed.status_code == 202
    assert admin.shim.files == {}
    assert admin.acts.made == []
    waiting = (await admin.get("/approvals", admin.bob)).json()["approvals"]
    assert [p["proposed_by"] for p in waiting] == ["alice"]
    assert waiting[0]["shown"]["refs"] == ["a.toml"]
    identifier = proposed.json()["id"]

    own = await admin.call("POST", f"/approvals/{identifier}", admin.alice)
    assert own.status_code == 403
    weak = await admin.call("POST", f"/approvals/{identifier}", admin.bob, scopes=["policy:read"])
    assert weak.status_code == 404
    assert admin.shim.files == {}

    done = await admin.call("POST", f"/approvals/{identifier}", admin.bob)
    assert done.status_code == 200
    assert admin.shim.files == BUNDLE["files"]
    digest = admin.shim.check(BUNDLE["files"])["digest"]
    assert admin.acts.made == [("policy.put", "alice + bob", digest)]
    assert done.json()["receipt"] == f"{1:064x}"
    assert done.json()["actors"] == ["alice", "bob"]

    again = await admin.call("POST", f"/approvals/{identifier}", admin.bob)
    assert again.status_code == 404
    assert len(admin.acts.made) == 1


async def test_a_proposal_expires(admin: Admin) -> None:
    identifier = (await admin.call("PUT", "/policies", admin.alice, BUNDLE)).json()["id"]
    admin.plane.approvals._now = lambda: time.time() + 901
    assert (await admin.call("POST", f"/approvals/{identifier}", admin.bob)).status_code == 404
    assert admin.shim.files == {}


async def test_no_more_proposals_wait_than_people_can_read(admin: Admin) -> None:
    for _ in range(10):
        assert (await admin.call("PUT", "/policies", admin.alice, BUNDLE)).status_code == 202
    full = await admin.call("PUT", "/policies", admin.alice, BUNDLE)
    assert (full.status_code, full.headers["retry-after"]) == (429, "60")
    # nobody else is kept from proposing
    assert (await admin.call("PUT", "/policies", admin.bob, BUNDLE)).status_code == 202


async def test_what_cannot_be_recorded_does_not_happen(admin: Admin) -> None:
    identifier = (await admin.call("PUT", "/policies", admin.alice, BUNDLE)).json()["id"]
    admin.acts.broken = True
    assert (await admin.call("POST", f"/approvals/{identifier}", admin.bob)).status_code == 503
    assert admin.shim.files == {}


async def test_what_fails_is_recorded_as_failed(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    dave = OperatorKey.generate("dave")
    first = await admin.call("PUT", "/principals", admin.alice, admin.keys(dave).model_dump(mode="json"))
    second = await admin.call("PUT", "/principals", admin.alice, admin.keys(dave).model_dump(mode="json"))
    assert (await admin.call("POST", f"/approvals/{first.json()['id']}", admin.bob)).status_code == 200
    # the set is no longer the one that the second proposal was made for
    late = await admin.call("POST", f"/approvals/{second.json()['id']}", admin.bob)
    assert late.status_code == 409
    assert [action for action, _, _ in admin.acts.made] == ["principals.put", "principals.put", "principals.put.failed"]


@pytest.mark.parametrize("end", ["cancelled", "unexpected"])
async def test_an_act_whose_end_is_not_known_is_interrupted_and_not_done_again(admin: Admin, end: str) -> None:
    identifier = (await admin.call("PUT", "/policies", admin.alice, BUNDLE)).json()["id"]
    begun, done = asyncio.Event(), []

    async def perform(*_: Any) -> Any:
        done.append(1)
        begun.set()
        if end == "unexpected":
            raise OSError
        await asyncio.Event().wait()

    admin.plane.perform("policy.put", perform)
    path = f"/approvals/{identifier}"
    running = asyncio.ensure_future(admin.call("POST", path, admin.bob, key="k"))
    await begun.wait()
    running.cancel()
    await asyncio.wait([running])
    admin.skew += LEASE + 1
    assert await admin.plane.doing.recover() == 1
    assert [action for action, _, _ in admin.acts.made] == ["policy.put", "policy.put.interrupted"]
    retry = await admin.call("POST", path, admin.bob, key="k")
    assert (retry.status_code, retry.json()["code"], done) == (409, "interrupted", [1])


# ---------------------------------------------------------------- refused, withdrawn


WHY = {"reason": "the wrong file"}


async def waits(admin: Admin) -> str:
    """A proposal of Alice's."""
    return str((await admin.call("PUT", "/policies", admin.alice, BUNDLE)).json()["id"])


@pytest.mark.parametrize(("who", "end", "actors"), [("bob", "refused", "alice + bob"), ("alice", "withdrawn", "alice")])
async def test_what_waits_can_be_ended_by_either_and_is_gone_for_both(
    admin: Admin, who: str, end: str, actors: str
) -> None:
    identifier = await waits(admin)
    by = getattr(admin, who)
    done = await admin.call("POST", f"/approvals/{identifier}:refuse", by, WHY, key="k")
    assert done.status_code == 200, done.text
    digest = admin.shim.check(BUNDLE["files"])["digest"]
    assert admin.acts.made == [(f"policy.put.{end}", actors, digest)]
    assert admin.acts.reasons == [WHY["reason"]]
    assert done.json()["result"] == {"proposal": identifier, **WHY}
    assert done.json()["actors"] == actors.split(" + ")
    # once: a retry hears the same, anything else that there is nothing
    assert (await admin.call("POST", f"/approvals/{identifier}:refuse", by, WHY, key="k")).json() == done.json()
    for again in (admin.alice, admin.bob):
        assert (await admin.get("/approvals", again)).json() == {"approvals": []}
        assert (await admin.call("POST", f"/approvals/{identifier}:refuse", again, WHY)).status_code == 404
        assert (await admin.call("POST", f"/approvals/{identifier}", again)).status_code == 404
    other = await admin.call("POST", f"/approvals/{identifier}:refuse", by, {"reason": "x"}, key="k")
    assert other.status_code == 409
    assert len(admin.acts.made) == 1
    assert admin.shim.files == {}
    # its room is free again
    assert (await admin.call("PUT", "/policies", admin.alice, BUNDLE)).status_code == 202


async def test_who_may_not_see_a_proposal_cannot_end_it_nor_learn_that_it_is_there(admin: Admin) -> None:
    identifier = await waits(admin)
    for by, scopes in ((admin.carol, SCOPES), (admin.bob, ["policy:read"]), (admin.alice, ["policy:read"])):
        for body in (WHY, {}, None, {"reason": "x" * 1000}):
            replies = [
                await admin.call("POST", f"/approvals/{name}:refuse", by, body, scopes=scopes)
                for name in (identifier, "f" * 32, "no-id")
            ]
            said = [{k: v for k, v in reply.json().items() if k != "request_id"} for reply in replies]
            assert [reply.status_code for reply in replies] == [404] * 3
            assert said[0] == said[1] == said[2]
    assert admin.acts.made == []
    assert (await admin.call("POST", f"/approvals/{identifier}", admin.bob)).status_code == 200


async def test_what_is_over_cannot_be_refused(admin: Admin) -> None:
    approved, late = await waits(admin), await waits(admin)
    assert (await admin.call("POST", f"/approvals/{approved}", admin.bob)).status_code == 200
    admin.plane.approvals._now = lambda: time.time() + 901
    for identifier in (approved, late):
        for by in (admin.alice, admin.bob):
            assert (await admin.call("POST", f"/approvals/{identifier}:refuse", by, WHY)).status_code == 404
    assert [action for action, _, _ in admin.acts.made] == ["policy.put"]


@pytest.mark.parametrize("body", [None, {}, {"reason": ""}, {"reason": "x" * 129}, {"reason": "a\nb"}, {"reason": 7}])
async def test_a_refusal_says_why(admin: Admin, body: Any) -> None:
    identifier = await waits(admin)
    reply = await admin.call("POST", f"/approvals/{identifier}:refuse", admin.bob, body, key="k")
    assert reply.status_code == 422, reply.text
    # refused is not begun: the same key is good for the request as it should be
    assert (await admin.call("POST", f"/approvals/{identifier}:refuse", admin.bob, WHY, key="k")).status_code == 200


async def test_a_refusal_that_cannot_be_recorded_does_not_happen(admin: Admin) -> None:
    identifier = await waits(admin)
    before = (await admin.get(f"/approvals/{identifier}", admin.bob)).json()
    admin.acts.broken = True
    assert (await admin.call("POST", f"/approvals/{identifier}:refuse", admin.bob, WHY, key="k")).status_code == 503
    admin.acts.broken = False
    assert (await admin.get(f"/approvals/{identifier}", admin.bob)).json() == before
    assert (await admin.call("POST", f"/approvals/{identifier}:refuse", admin.bob, WHY, key="k")).status_code == 200


async def test_a_refusal_while_the_store_is_away_leaves_the_proposal(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = await waits(admin)

    async def away(*_: Any, **__: Any) -> bool:
        msg = "the store is away"
        raise Unavailable(msg)

    with monkeypatch.context() as patch:
        patch.setattr(admin.plane.store, "describe", away)
        reply = await admin.call("POST", f"/approvals/{identifier}:refuse", admin.bob, WHY)
    assert (reply.status_code, admin.acts.made) == (503, [])
    assert (await admin.call("POST", f"/approvals/{identifier}:refuse", admin.bob, WHY)).status_code == 200


async def test_a_refusal_that_did_not_take_a_proposal_does_not_bring_it_back(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what somebody else approved meanwhile could be approved, and done, a second time."""
    identifier = await waits(admin)
    describe = admin.plane.store.describe

    async def away(*given: Any, action: str, **said: Any) -> bool:
        if not action.endswith(".refused"):
            return await describe(*given, action=action, **said)
        assert (await admin.call("POST", f"/approvals/{identifier}", admin.bob)).status_code == 200
        msg = "the store is away"
        raise Unavailable(msg)

    monkeypatch.setattr(admin.plane.store, "describe", away)
    assert (await admin.call("POST", f"/approvals/{identifier}:refuse", admin.bob, WHY)).status_code == 503
    assert (await admin.get("/approvals", admin.bob)).json() == {"approvals": []}
    assert (await admin.call("POST", f"/approvals/{identifier}", admin.bob)).status_code == 404
    assert [action for action, _, _ in admin.acts.made] == ["policy.put"]


async def test_a_refusal_that_may_be_in_the_log_ends_the_proposal(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = await waits(admin)

    async def doubtful(*_: Any, **__: Any) -> str:
        msg = "the connection was lost while it was committed"
        raise InDoubt(msg)

    with monkeypatch.context() as patch:
        patch.setattr(admin.acts, "record", doubtful)
        reply = await admin.call("POST", f"/approvals/{identifier}:refuse", admin.bob, WHY)
    assert (reply.status_code, reply.json()["code"]) == (503, "in_doubt")
    assert (await admin.call("POST", f"/approvals/{identifier}", admin.bob)).status_code == 404
    assert admin.acts.made == []


async def test_of_a_refusal_and_an_approval_at_once_one_counts(admin: Admin) -> None:
    for _ in range(4):
        admin.acts.made.clear()
        identifier = await waits(admin)
        replies = await asyncio.gather(
            admin.call("POST", f"/approvals/{identifier}", admin.bob),
            admin.call("POST", f"/approvals/{identifier}:refuse", admin.alice, WHY),
            admin.call("POST", f"/approvals/{identifier}:refuse", admin.bob, WHY),
        )
        assert sorted(reply.status_code for reply in replies) == [200, 404, 404]
        assert len(admin.acts.made) == 1


# ---------------------------------------------------------------- principals and tenants


async def test_principals_are_replaced_by_two_people_and_kept(admin: Admin, tmp_path: Path) -> None:
    dave = OperatorKey.generate("dave")
    body = admin.keys(dave).model_dump(mode="json")
    assert (await admin.get("/whoami", dave)).status_code == 401
    proposed = (await admin.call("PUT", "/principals", admin.alice, body)).json()
    assert proposed["shown"]["changes"] == ["dave"]
    assert (await admin.call("POST", f"/approvals/{proposed['id']}", admin.bob)).status_code == 200
    assert (await admin.get("/whoami", dave)).status_code == 200
    again = await Plane(tmp_path, acts=admin.acts, store=memory_store(), random=lambda n: b"x" * n).people.current()
    assert again is not None
    assert [p.name for p in again] == ["alice", "bob", "dave", "carol"]
    assert stat.S_IMODE((tmp_path / "principals.json").stat().st_mode) == 0o600


def test_a_set_that_nobody_could_change_is_refused(admin: Admin) -> None:
    lone = [admin.alice.public(SCOPES), admin.bob.public(["policy:read"])]
    bound = [admin.alice.public(SCOPES), admin.bob.public(SCOPES, tenant="acme")]
    twice = [admin.alice.public(SCOPES), {**admin.alice.public(SCOPES), "kid": "another-id"}]
    for keys in (lone, bound, twice, [admin.alice.public(SCOPES)], []):
        (admin.folder / "bad.json").write_text(json.dumps({"keys": keys}))
        with pytest.raises(ConfigError):
            Principals.load(admin.folder / "bad.json")


async def test_a_principal_of_one_tenant_gets_nothing_that_is_everybodys(admin: Admin) -> None:
    assert (await admin.get("/whoami", admin.carol)).json()["tenant"] == "acme"
    for path in ("/policies", "/config", "/principals"):
        assert (await admin.get(path, admin.carol)).status_code == 403
    assert (await admin.call("PUT", "/policies", admin.carol, BUNDLE)).status_code == 403


async def test_anothers_proposal_is_as_if_it_were_not_there(admin: Admin) -> None:
    identifier = (await admin.call("PUT", "/policies", admin.alice, BUNDLE)).json()["id"]
    assert (await admin.get("/approvals", admin.carol)).json() == {"approvals": []}

    async def said(path: str) -> tuple[int, Any]:
        reply = await admin.call("POST", path, admin.carol)
        members = reply.json()
        members.pop("request_id")
        return reply.status_code, members

    assert await said(f"/approvals/{identifier}") == await said(f"/approvals/{'f' * 32}")
    assert (await said(f"/approvals/{identifier}"))[0] == 404


# ---------------------------------------------------------------- once, limits


async def test_a_retry_gets_the_first_answer(admin: Admin) -> None:
    first = await admin.call("PUT", "/policies", admin.alice, BUNDLE, key="k")
    second = await admin.call("PUT", "/policies", admin.alice, BUNDLE, key="k")
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    other = await admin.call("PUT", "/policies", admin.alice, {"files": {"b.toml": "y"}}, key="k")
    assert other.status_code == 409
    # keys are each principal's own
    assert (await admin.call("PUT", "/policies", admin.bob, BUNDLE, key="k")).json()["proposed_by"] == "bob"
    done = await admin.call("POST", f"/approvals/{first.json()['id']}", admin.bob, key="a")
    again = await admin.call("POST", f"/approvals/{first.json()['id']}", admin.bob, key="a")
    assert done.json() == again.json()
    assert len(admin.acts.made) == 1


@pytest.mark.parametrize("bucket", ["address", "principal", "signed"])
async def test_rates_are_limited(tmp_path: Path, bucket: str) -> None:
    limits = Limits(WIDE, WIDE, WIDE)
    setattr(limits, bucket, Limit(2.0, 0.001))
    admin = Admin(tmp_path, limits=limits)
    replies = [await admin.call("PUT", "/policies", admin.alice, BUNDLE) for _ in range(3)]
    assert [r.status_code for r in replies] == [202, 202, 429]
    assert int(replies[-1].headers["retry-after"]) >= 1
    # reading goes on when only signed requests are too many
    assert (await admin.get("/whoami", admin.alice)).status_code == (200 if bucket == "signed" else 429)


async def test_no_credential_is_in_a_log_line_or_an_answer(tmp_path: Path) -> None:
    admin, log = Admin(tmp_path), io.StringIO()
    admin.plane.logs = LogWriter(level="debug", stream=log)
    admin.plane.logs.start()
    token = admin.alice.token(SCOPES)
    replies = [
        await admin.get("/whoami", admin.alice),
        await admin.call("PUT", "/policies", admin.alice, BUNDLE),
        await admin.call("PUT", "/policies", admin.alice, BUNDLE, scopes=["policy:read"]),
        await admin.send("GET", BASE + "/config", headers={"authorization": f"Bearer {token}"}),
        await admin.send("GET", BASE + "/config", headers={"authorization": f"Bearer {token}x"}),
        await admin.send("PUT", BASE + "/policies", headers={"authorization": f"Bearer {token}"}),
    ]
    admin.plane.logs.stop()
    written = log.getvalue()
    assert '"event": "admin refused"' in written
    assert '"event": "admin act"' in written
    for shown in (written, *(reply.text + str(reply.headers) for reply in replies)):
        assert token not in shown
        assert token.rpartition(".")[2] not in shown
        assert "Bearer ey" not in shown
        assert admin.alice.private.private_bytes_raw().hex() not in shown


# ---------------------------------------------------------------- the first start


async def test_nothing_is_open_before_somebody_is_enrolled(tmp_path: Path) -> None:
    admin = Admin(tmp_path, enrolled=False)
    for method, path in ROUTES:
        reply = await admin.call(method, path_of(path).removeprefix(BASE), admin.alice, {})
        assert reply.status_code == 401, path


async def test_the_first_start_prints_one_credential_that_enrols_once(tmp_path: Path) -> None:
    admin = Admin(tmp_path, enrolled=False)
    secret = await admin.plane.first_start()
    assert secret is not None
    # once: a second start while it is good prints nothing
    assert await admin.plane.first_start() is None
    kept = (tmp_path / "bootstrap.json").read_text()
    assert secret not in kept
    assert stat.S_IMODE((tmp_path / "bootstrap.json").stat().st_mode) == 0o600
    body = admin.keys().model_dump(mode="json")

    wrong = await admin.call("POST", "/enrol", admin.alice, body, bearer=secret[:-1] + "x")
    assert wrong.status_code == 401
    stranger = await admin.call("POST", "/enrol", OperatorKey.generate("eve"), body, bearer=secret)
    assert stranger.status_code == 401
    lone = {"keys": [admin.alice.public(SCOPES)]}
    assert (await admin.call("POST", "/enrol", admin.alice, lone, bearer=secret)).status_code == 422
    assert admin.acts.made == []

    done = await admin.call("POST", "/enrol", admin.alice, body, bearer=secret)
    assert done.status_code == 200
    assert admin.acts.made[0][:2] == ("principals.enrol", "bootstrap")
    assert (await admin.get("/whoami", admin.bob)).status_code == 200
    assert not (tmp_path / "bootstrap.json").exists()
    again = await admin.call("POST", "/enrol", admin.alice, body, bearer=secret)
    assert again.status_code == 401
    assert await Plane(tmp_path, acts=admin.acts, store=memory_store(), random=lambda n: b"x" * n).first_start() is None


async def test_the_credential_expires(tmp_path: Path) -> None:
    admin = Admin(tmp_path, enrolled=False)
    secret = await admin.plane.first_start()
    admin.skew = 3601
    reply = await admin.call("POST", "/enrol", admin.alice, admin.keys().model_dump(mode="json"), bearer=secret)
    assert reply.status_code == 401
    # and a new one is made at the next start
    assert await admin.plane.first_start() not in {None, secret}


def test_an_app_is_made_for_named_hosts(admin: Admin) -> None:
    made = create_admin(admin.plane, admin.shim.outside(), hosts=[HOST.upper()])
    assert made.hosts == {HOST}
