"""Two admin planes on one store are one: replays, approvals, retries and principals across them."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.admin.principals import SCOPES
from sidecar_api.admin.store import AdminStore, Driver
from sidecar_api.admin.store.postgres import PostgresDriver
from sidecar_api.admin.store.sqlite import SqliteDriver
from tcd.client.admin import OperatorKey, sign
from tests.unit.admin.kit import BASE, URL, Admin

BUNDLE = {"files": {"a.toml": "x"}}
Pair = tuple[Admin, Admin]


@pytest.fixture(params=["sqlite", "postgresql"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    """Two apps of the same operators and the same shim; in PostgreSQL each has a folder of its own."""
    drivers: list[Driver]
    if request.param == "sqlite":
        folders = [tmp_path, tmp_path]
        drivers = [SqliteDriver(tmp_path / "s.sqlite"), SqliteDriver(tmp_path / "s.sqlite")]
    else:
        folders = [tmp_path / "one", tmp_path / "two"]
        for folder in folders:
            folder.mkdir()
        url = request.getfixturevalue("postgres").place()
        drivers = [PostgresDriver(url), PostgresDriver(url)]
    stores = [AdminStore(driver, owner=str(at)) for at, driver in enumerate(drivers)]
    here = Admin(folders[0], store=stores[0], enrolled=request.param == "sqlite")
    there = Admin(folders[1], store=stores[1], enrolled=False, like=here)
    if request.param == "postgresql":
        secret = await here.plane.first_start()
        assert secret is not None
        body = here.keys().model_dump(mode="json")
        assert (await here.call("POST", "/enrol", here.alice, body, bearer=secret)).status_code == 200
        here.acts.made.clear()
    yield here, there
    for store in stores:
        await store.close()


def signed(by: OperatorKey, method: str, path: str, content: bytes = b"") -> dict[str, str]:
    headers = {"authorization": f"Bearer {by.token(SCOPES)}", "idempotency-key": uuid.uuid4().hex}
    return sign(by, method, URL + BASE + path, headers, content)


async def test_a_request_replayed_at_the_other_replica_is_refused(pair: Pair) -> None:
    here, there = pair
    headers = signed(here.alice, "PUT", "/policies", b'{"files": {"a.toml": "x"}}')
    content = b'{"files": {"a.toml": "x"}}'
    first = await here.send("PUT", BASE + "/policies", content=content, headers=headers)
    assert first.status_code == 202
    for replica in (there, here):
        again = await replica.send("PUT", BASE + "/policies", content=content, headers=headers)
        assert again.status_code == 401
    assert len((await there.get("/approvals", there.bob)).json()["approvals"]) == 1


async def test_what_is_proposed_at_one_is_approved_at_the_other(pair: Pair) -> None:
    here, there = pair
    proposed = (await here.call("PUT", "/policies", here.alice, BUNDLE)).json()
    assert (await there.get("/approvals", there.bob)).json()["approvals"] == [proposed]
    # nobody approves their own, wherever they go
    assert (await there.call("POST", f"/approvals/{proposed['id']}", there.alice)).status_code == 403
    done = await there.call("POST", f"/approvals/{proposed['id']}", there.bob)
    assert done.status_code == 200
    assert here.acts.made == [("policy.put", "alice + bob", proposed["object"])]
    assert here.shim.files == BUNDLE["files"]
    assert (await here.call("POST", f"/approvals/{proposed['id']}", here.bob)).status_code == 404


async def test_a_retry_at_the_other_replica_gets_the_first_answer(pair: Pair) -> None:
    here, there = pair
    first = await here.call("PUT", "/policies", here.alice, BUNDLE, key="k")
    again = await there.call("PUT", "/policies", there.alice, BUNDLE, key="k")
    assert (again.status_code, again.json()) == (202, first.json())
    done = await there.call("POST", f"/approvals/{first.json()['id']}", there.bob, key="a")
    same = await here.call("POST", f"/approvals/{first.json()['id']}", here.bob, key="a")
    assert done.status_code == 200
    assert same.json() == done.json()
    assert len(here.acts.made) == 1
    other = await there.call("PUT", "/policies", there.alice, {"files": {"b.toml": "y"}}, key="k")
    assert other.status_code == 409


async def test_who_is_removed_at_one_is_out_at_the_other(pair: Pair) -> None:
    here, there = pair
    dave = OperatorKey.generate("dave")
    body = here.keys(dave).model_dump(mode="json")
    proposed = (await here.call("PUT", "/principals", here.alice, body)).json()
    assert (await there.call("POST", f"/approvals/{proposed['id']}", there.bob)).status_code == 200
    for replica in (here, there):
        assert (await replica.get("/whoami", dave)).status_code == 200
    left = here.keys().model_dump(mode="json")
    proposed = (await there.call("PUT", "/principals", there.alice, left)).json()
    assert (await here.call("POST", f"/approvals/{proposed['id']}", here.bob)).status_code == 200
    for replica in (here, there):
        assert (await replica.get("/whoami", dave)).status_code == 401


async def test_what_is_proposed_at_one_is_refused_at_the_other(pair: Pair) -> None:
    here, there = pair
    proposed = (await here.call("PUT", "/policies", here.alice, BUNDLE)).json()
    path, why = f"/approvals/{proposed['id']}:refuse", {"reason": "no"}
    done = await there.call("POST", path, there.bob, why, key="a")
    assert done.status_code == 200, done.text
    assert (await here.call("POST", path, here.bob, why, key="a")).json() == done.json()
    assert (await here.call("POST", f"/approvals/{proposed['id']}", here.bob)).status_code == 404
    assert [made[0] for made in here.acts.made] == ["policy.put.refused"]


async def test_a_proposal_of_somebody_who_was_removed_cannot_be_approved(pair: Pair) -> None:
    here, there = pair
    dave = OperatorKey.generate("dave")

    async def people(*more: OperatorKey) -> Any:
        proposed = await here.call("PUT", "/principals", here.alice, here.keys(*more).model_dump(mode="json"))
        return await there.call("POST", f"/approvals/{proposed.json()['id']}", there.bob)

    assert (await people(dave)).status_code == 200
    proposed = (await here.call("PUT", "/policies", dave, BUNDLE)).json()
    assert (await people()).status_code == 200
    late = await there.call("POST", f"/approvals/{proposed['id']}", there.bob)
    assert late.status_code == 409
    assert here.shim.files == {}


async def test_enrolment_happens_once_among_replicas(pair: Pair) -> None:
    here, there = pair
    for replica in (here, there):
        assert await replica.plane.first_start() is None
        body = here.keys().model_dump(mode="json")
        reply = await replica.call("POST", "/enrol", here.alice, body, bearer="tcd-bootstrap-" + "0" * 64)
        assert reply.status_code == 401
