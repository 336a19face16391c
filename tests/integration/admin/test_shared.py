"""Two served planes whose settings name one PostgreSQL: one plane, over HTTP, each with its own folder and address."""

from __future__ import annotations

from pathlib import Path

from sidecar_api.admin.principals import SCOPES
from tests.integration.admin.kit import running
from tests.postgres import PASSWORD, PostgresServer


async def test_replicas_on_one_database(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.place()
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    async with running(folders[0], ledger=url) as here, running(folders[1], ledger=url) as there:
        assert here.server.plane.store.shared
        there.alice, there.bob = here.alice, here.bob
        # both have printed a credential; the first one that is used is the last one
        assert all(any(line.startswith("bootstrap ") for line in one.said) for one in (here, there))
        assert (await here.enrol()).status_code == 200
        assert (await there.enrol()).status_code == 401
        assert (await there.call(there.alice, "GET", "/whoami")).json()["principal"] == "alice"

        keys = {"keys": [key.public(SCOPES) for key in (here.alice, here.bob)]}
        proposed = await here.call(here.alice, "PUT", "/principals", keys, key="k")
        assert proposed.status_code == 202, proposed.text
        again = await there.call(there.alice, "PUT", "/principals", keys, key="k")
        # what is signed differs (another address), what is asked does not
        assert again.json() == proposed.json()
        done = await there.call(there.bob, "POST", f"/approvals/{proposed.json()['id']}")
        assert done.status_code == 200
        # it is in the log of the replica that did it
        assert ("principals.put", "alice + bob") in await there.acts()
        assert ("principals.put", "alice + bob") not in await here.acts()
        # no file of a replica decides who gets in, and none has the database's password
        for folder in folders:
            assert not (folder / "admin" / "principals.json").exists()
            files = [path.read_bytes() for path in (folder / "admin").rglob("*") if path.is_file()]
            assert not [data for data in files if PASSWORD.encode() in data]

    # the one that starts again asks nobody to enrol
    async with running(folders[1], ledger=url) as later:
        assert not any(line.startswith("bootstrap ") for line in later.said)
        assert (await later.call(here.bob, "GET", "/whoami")).json()["principal"] == "bob"
