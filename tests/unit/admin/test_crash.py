"""An admin plane that dies within an act: what the log says, what a retry gets, and that nothing is done twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sidecar_api.admin.store import sqlite_store
from tests.conftest import ROOT
from tests.unit.admin.crash_child import KEY, POINTS, FileActs
from tests.unit.admin.kit import Admin

BUNDLE = {"files": {"a.toml": "x"}}
#: What the log has at each point after the next start, and whether the retry is told that the end is not known.
LOG = {
    "begun": ([], False),
    "described": (["policy.put.interrupted alice + bob"], True),
    "recorded": (["policy.put alice + bob", "policy.put.interrupted alice + bob"], True),
    "done": (["policy.put alice + bob", "policy.put.interrupted alice + bob"], True),
}


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each point, of a process that died there."""
    import asyncio  # noqa: PLC0415

    place = tmp_path_factory.mktemp("dead")

    async def prepare(folder: Path) -> None:
        store = sqlite_store(folder)
        admin = Admin(folder, store=store)
        admin.save_keys()
        proposed = await admin.call("PUT", "/policies", admin.alice, BUNDLE)
        (folder / "proposal").write_text(proposed.json()["id"])
        await store.close()

    for point in POINTS:
        (place / point).mkdir()
        asyncio.run(prepare(place / point))
    child = [sys.executable, "-m", "tests.unit.admin.crash_child", str(place)]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.mark.parametrize("point", POINTS)
async def test_what_was_begun_is_recorded_as_interrupted_and_not_done_again(dead: Path, point: str) -> None:
    folder = dead / point
    lines, unknown = LOG[point]
    store = sqlite_store(folder)
    admin = Admin.at(folder, store=store, acts=FileActs(folder))
    assert await admin.plane.doing.recover(starting=True) == int(unknown)
    made = (folder / "acts").read_text().splitlines() if (folder / "acts").exists() else []
    assert made == lines
    # a second start has nothing left to say
    assert await admin.plane.doing.recover(starting=True) == 0

    proposal = (folder / "proposal").read_text()
    retry = await admin.call("POST", f"/approvals/{proposal}", admin.bob, key=KEY)
    if unknown:
        assert (retry.status_code, retry.json()["code"]) == (409, "interrupted")
        fresh = await admin.call("POST", f"/approvals/{proposal}", admin.bob)
        assert fresh.status_code == 404
        assert admin.shim.files == {}
        assert (folder / "acts").read_text().splitlines() == lines
    else:
        assert retry.status_code == 200
        assert admin.shim.files == BUNDLE["files"]
    await store.close()


async def test_a_kept_proposal_is_approved_after_a_restart(tmp_path: Path) -> None:
    first = Admin(tmp_path, store=sqlite_store(tmp_path))
    first.save_keys()
    proposed = (await first.call("PUT", "/policies", first.alice, BUNDLE)).json()
    await first.plane.store.close()
    again = Admin.at(tmp_path, store=sqlite_store(tmp_path))
    assert (await again.call("POST", f"/approvals/{proposed['id']}", again.bob)).status_code == 200
    assert again.shim.files == BUNDLE["files"]
    await again.plane.store.close()


async def test_an_answer_that_cannot_be_kept_is_given_and_a_retry_hears_so(tmp_path: Path) -> None:
    store = sqlite_store(tmp_path)
    admin = Admin(tmp_path, store=store)
    proposed = (await admin.call("PUT", "/policies", admin.alice, BUNDLE)).json()

    async def away(*_: object, **__: object) -> None:
        from tcd.errors import Unavailable  # noqa: PLC0415

        msg = "away"
        raise Unavailable(msg)

    store.finish = away  # type: ignore[method-assign]
    done = await admin.call("POST", f"/approvals/{proposed['id']}", admin.bob, key="k")
    assert done.status_code == 200
    admin.skew = 200.0
    assert await admin.plane.doing.recover() == 1
    assert [action for action, _, _ in admin.acts.made] == ["policy.put", "policy.put.interrupted"]
    await store.close()
