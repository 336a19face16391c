"""Calibrations in the admin plane: fitted on the signal log, evaluated on what came later, on trial, promoted, back."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.admin.calibration_jobs import _Log, _mark, _prune
from sidecar_api.admin.candidates import FIT_FILE, USED_FILE
from sidecar_api.admin.replays import CANDIDATES
from tcd.calibration import canary
from tcd.calibration.promote import promote, rollback
from tcd.calibration.store import default_asset_dir, load_assets
from tests.unit.admin.kit import Admin
from tests.unit.traffic.kit import Shim, fitted, record, shim

FIT = {"least": 10, "hold_back": 0.2}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signal log of 70 generations, and a live set fitted on others."""
    folder = tmp_path_factory.mktemp("calibrations")

    async def made() -> None:
        await record(folder / "log", default_asset_dir(), 70, seed=1, steps=20)
        await record(folder / "old", default_asset_dir(), 50, seed=2, steps=20)

    asyncio.run(made())
    fitted(folder / "old", folder / "before")
    fitted(folder / "log", folder / "other")
    return folder


@pytest.fixture
async def served(tmp_path: Path, logged: Path) -> AsyncIterator[Shim]:
    promote(logged / "before", tmp_path / "live")
    async with shim(tmp_path / "live", signal_log=logged / "log") as made:
        yield made


@pytest.fixture
async def admin(tmp_path: Path, served: Shim) -> AsyncIterator[Admin]:
    (tmp_path / "admin").mkdir()
    made = Admin(tmp_path / "admin", runtime=served.app.runtime)
    yield made
    await made.plane.jobs.close()


async def done(admin: Admin, path: str, body: Any) -> Any:
    """The result of a job."""
    started = await admin.call("POST", path, admin.alice, body)
    assert started.status_code == 200, started.text
    identifier = started.json()["result"]["id"]
    for _ in range(2400):
        job = (await admin.get(f"/jobs/{identifier}", admin.alice)).json()
        if job["state"] != "running":
            assert job["state"] == "done", job
            return job
        await asyncio.sleep(0.05)
    pytest.fail("it did not end within two minutes")


async def approved(admin: Admin, path: str, body: Any) -> Any:
    proposed = await admin.call("POST", path, admin.alice, body)
    assert proposed.status_code == 202, proposed.text
    answer = await admin.call("POST", f"/approvals/{proposed.json()['id']}", admin.bob)
    return proposed.json(), answer


async def test_from_the_log_to_what_is_served_and_back(admin: Admin, tmp_path: Path, served: Shim) -> None:
    live = tmp_path / "live"
    before = load_assets(live).manifest_digest
    job = await done(admin, "/calibrations:fit", FIT)
    found = job["result"]
    candidate = found["calibration"]
    assert (found["sessions"], found["held_out"]) == (70, 14)
    assert found["keys"][0]["sessions"] >= 10
    assert found["evaluation"]["p_at_most"]["0.1"]["n"] == 14
    assert sum(found["evaluation"]["histogram"]) == 14
    assert set(job["files"]) == {"report.html", "report.json"}
    shown = (await admin.get("/calibrations", admin.alice)).json()
    assert shown["manifest"] == before
    assert [one["calibration"] for one in shown["candidates"]] == [candidate]
    assert shown["log"]["files"] == 1

    proposal, began = await approved(admin, "/calibrations:promote", {"calibration": candidate, "share": 0.5})
    assert proposal["shown"]["instead_of"] == before
    assert proposal["shown"]["evaluation"] == found["evaluation"]
    assert began.json()["result"] == {"canary": candidate, "share": 0.5, "sessions": 200}
    assert (await admin.get("/calibrations", admin.alice)).json()["canary"]["candidate"] == candidate
    again = await admin.call("POST", "/calibrations:promote", admin.alice, {"calibration": candidate, "share": 0.1})
    assert again.status_code == 409
    for number in range(8):
        await served.generate(7, number, session=f"s{number}", steps=20)
    trial = (await admin.get("/calibrations", admin.alice)).json()["canary"]
    assert 1 <= trial["waiting"] + trial["judged"] <= 8
    # while it is on trial nothing is rolled back, and a trial ends by one person
    now = load_assets(live).manifest_digest
    back = {"instead_of": now, "to": before}
    assert (await admin.call("POST", "/calibrations:rollback", admin.bob, back)).status_code == 409
    ended = await admin.call("POST", "/calibrations:end", admin.bob, {"canary": candidate})
    assert ended.json()["result"] == {"manifest": before}
    assert (await admin.call("POST", "/calibrations:end", admin.bob, {"canary": candidate})).status_code == 409

    _, put = await approved(admin, "/calibrations:promote", {"calibration": candidate})
    assert put.json()["result"] == {"manifest": candidate}
    assert put.json()["actors"] == ["alice", "bob"]
    shown = (await admin.get("/calibrations", admin.alice)).json()
    assert (shown["manifest"], shown["before"]) == (candidate, [before])
    back = {"instead_of": candidate, "to": before}
    proposal, put = await approved(admin, "/calibrations:rollback", back)
    assert proposal["shown"] == {**back, "steps": 1}
    assert put.json()["result"] == {"manifest": before}
    assert load_assets(live).manifest_digest == before
    assert [(action, actor) for action, actor, _ in admin.acts.made] == [
        ("calibration.fit.start", "alice"),
        ("calibration.promote", "alice + bob"),
        ("calibration.end", "bob"),
        ("calibration.end", "bob"),
        ("calibration.end.failed", "bob"),
        ("calibration.promote", "alice + bob"),
        ("calibration.rollback", "alice + bob"),
    ]


async def test_what_is_in_force_is_evaluated_on_sessions_that_its_fit_has_not_used(admin: Admin) -> None:
    found = (await done(admin, "/calibrations:evaluate", {}))["result"]
    # which sessions it was fitted on is not known: it was not fitted here
    assert (found["sessions"], found["seen_by_the_fit"], found["not_answered"]) == (70, None, 0)
    entry = found["p_at_most"]["0.1"]
    assert entry["low"] <= entry["share"] <= entry["high"]
    assert sum(found["histogram"]) == 70
    assert found["drifted"] is False
    candidate = (await done(admin, "/calibrations:fit", FIT))["result"]["calibration"]
    started = await admin.call("POST", "/calibrations:evaluate", admin.alice, {"calibration": candidate})
    identifier = started.json()["result"]["id"]
    for _ in range(2400):
        job = (await admin.get(f"/jobs/{identifier}", admin.alice)).json()
        if job["state"] != "running":
            break
        await asyncio.sleep(0.05)
    # it has used all of them
    assert job["state"] == "failed"
    assert "was not used in their fit" in job["error"]


async def test_a_rollback_says_where_it_goes_and_a_second_one_goes_no_further(
    admin: Admin, tmp_path: Path, logged: Path
) -> None:
    live = tmp_path / "live"
    first = load_assets(live).manifest_digest
    second, third = (promote(place, live) for place in (default_asset_dir(), logged / "other"))
    assert (await admin.get("/calibrations", admin.alice)).json()["before"] == [second, first]
    back = {"instead_of": third, "to": second}
    twice = [(await admin.call("POST", "/calibrations:rollback", by, back)).json() for by in (admin.alice, admin.bob)]
    # nobody alone, and not one's own
    assert (await admin.call("POST", f"/approvals/{twice[0]['id']}", admin.alice)).status_code == 403
    assert load_assets(live).manifest_digest == third
    answer = await admin.call("POST", f"/approvals/{twice[0]['id']}", admin.bob)
    assert answer.json()["result"] == {"manifest": second}
    # what two wanted at once is done once: the second time it would be one more step back
    late = await admin.call("POST", f"/approvals/{twice[1]['id']}", admin.alice)
    assert late.status_code == 409
    assert "replaced meanwhile" in late.json()["detail"]
    assert load_assets(live).manifest_digest == second
    # asked for again it is refused at once, and says what is in force
    again = await admin.call("POST", "/calibrations:rollback", admin.alice, back)
    assert (again.status_code, again.json()["detail"]) == (409, f"{second} is in force")
    strange = {"instead_of": second, "to": third}
    refused = await admin.call("POST", "/calibrations:rollback", admin.alice, strange)
    assert refused.status_code == 409
    assert first in refused.json()["detail"]


async def test_a_rollback_may_go_several_steps_and_is_forgotten_where_it_went_past(
    admin: Admin, tmp_path: Path, logged: Path
) -> None:
    live = tmp_path / "live"
    first = load_assets(live).manifest_digest
    promote(default_asset_dir(), live)
    third = promote(logged / "other", live)
    proposal, answer = await approved(admin, "/calibrations:rollback", {"instead_of": third, "to": first})
    assert proposal["shown"]["steps"] == 2
    assert answer.json()["result"] == {"manifest": first}
    assert (await admin.get("/calibrations", admin.alice)).json()["before"] == []


async def test_of_two_who_end_the_same_trial_the_second_takes_back_nothing(
    admin: Admin, tmp_path: Path, logged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "live"
    promote(default_asset_dir(), live)
    promote(logged / "before", live)
    good = load_assets(live).manifest_digest
    canary_of = canary.begin(logged / "other", live, share=0.5, sessions=10)
    record_ = admin.acts.record

    async def record(action: str, actor: str, digest: str, *, reason: str = "") -> str:
        if action == "calibration.end":
            # the other operator is faster
            rollback(live)
        return await record_(action, actor, digest, reason=reason)

    monkeypatch.setattr(admin.acts, "record", record)
    answer = await admin.call("POST", "/calibrations:end", admin.alice, {"canary": canary_of})
    assert answer.status_code == 409
    assert "not on trial" in answer.json()["detail"]
    assert load_assets(live).manifest_digest == good


def test_what_is_in_force_and_on_trial_is_not_pruned(tmp_path: Path, logged: Path) -> None:
    live, folder = tmp_path / "live", tmp_path / "candidates"
    promote(logged / "before", live)
    needed = [load_assets(live).manifest_digest, canary.begin(logged / "other", live, share=0.5, sessions=10)]
    names = [digest.removeprefix("sha256:") for digest in needed] + [f"{number:064x}" for number in range(25)]
    for age, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (1000 + age, 1000 + age))
    _prune(folder, tmp_path / "nothing")
    assert len(list(folder.iterdir())) == len(names)
    _prune(folder, live)
    assert {path.name for path in folder.iterdir()} == {*names[:2], *names[-20:]}


async def test_what_the_fit_in_force_used_is_left_out_during_a_trial_too(
    admin: Admin, tmp_path: Path, logged: Path
) -> None:
    live = tmp_path / "live"
    place = tmp_path / "admin" / CANDIDATES / load_assets(live).manifest_digest.removeprefix("sha256:")
    place.mkdir(parents=True)
    seen = [_mark(one.session) for one in _Log(logged / "log", frozenset()).traces.sequences[:20]]
    (place / USED_FILE).write_text(json.dumps(seen))
    canary.begin(logged / "other", live, share=0.5, sessions=10)
    found = (await done(admin, "/calibrations:evaluate", {}))["result"]
    assert (found["sessions"], found["seen_by_the_fit"]) == (50, 20)


@pytest.mark.parametrize("share", [None, 0.5])
async def test_a_promotion_replaces_what_was_shown_to_who_approved_it(
    admin: Admin, tmp_path: Path, logged: Path, share: float | None
) -> None:
    live = tmp_path / "live"
    candidate = load_assets(logged / "other").manifest_digest
    place = tmp_path / "admin" / CANDIDATES / candidate.removeprefix("sha256:")
    shutil.copytree(logged / "other", place)
    (place / FIT_FILE).write_text("{}")
    body = {"calibration": candidate, "share": share}
    proposed = (await admin.call("POST", "/calibrations:promote", admin.alice, body)).json()
    assert proposed["shown"]["instead_of"] == load_assets(live).manifest_digest
    promote(default_asset_dir(), live)
    other = load_assets(live).manifest_digest
    answer = await admin.call("POST", f"/approvals/{proposed['id']}", admin.bob)
    assert answer.status_code == 409
    assert "replaced meanwhile" in answer.json()["detail"]
    assert load_assets(live).manifest_digest == other


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/calibrations:fit", {"level": 3}, 422),
        ("/calibrations:fit", {"more": 1}, 422),
        ("/calibrations:evaluate", {"calibration": "sha256:" + "0" * 64}, 404),
        ("/calibrations:promote", {"calibration": "sha256:" + "0" * 64}, 404),
        ("/calibrations:promote", {"calibration": "../live"}, 422),
        ("/calibrations:promote", {"calibration": "sha256:" + "0" * 64, "share": 1.0}, 422),
        ("/calibrations:rollback", None, 422),
        ("/calibrations:rollback", {"instead_of": "sha256:" + "0" * 64, "to": "sha256:" + "0" * 64}, 409),
        ("/calibrations:rollback", {"to": "sha256:" + "0" * 64}, 422),
        ("/calibrations:end", {"canary": "sha256:" + "0" * 64}, 409),
    ],
)
async def test_what_cannot_be_is_refused(admin: Admin, path: str, body: Any, status: int, tmp_path: Path) -> None:
    before = load_assets(tmp_path / "live").manifest_digest
    answer = await admin.call("POST", path, admin.alice, body)
    assert answer.status_code == status, answer.text
    assert load_assets(tmp_path / "live").manifest_digest == before


async def test_the_demonstration_is_no_place_to_promote_to(tmp_path: Path) -> None:
    async with shim(default_asset_dir()) as served:
        admin = Admin(tmp_path, runtime=served.app.runtime)
        nothing = "sha256:" + "0" * 64
        for path, body in (("rollback", {"instead_of": nothing, "to": nothing}), ("end", {"canary": nothing})):
            assert (await admin.call("POST", f"/calibrations:{path}", admin.alice, body)).status_code == 409
        refused = await admin.call("POST", "/calibrations:fit", admin.alice, {})
        assert refused.status_code == 409
        assert "TCD_SIGNAL_LOG" in refused.json()["detail"]


async def test_a_session_to_be_excluded_has_to_be_there(admin: Admin) -> None:
    started = await admin.call("POST", "/calibrations:fit", admin.alice, {**FIT, "exclude": ["nobody"]})
    identifier = started.json()["result"]["id"]
    for _ in range(2400):
        job = (await admin.get(f"/jobs/{identifier}", admin.alice)).json()
        if job["state"] != "running":
            break
        await asyncio.sleep(0.05)
    assert job["error"] == "no session 'nobody' to be excluded"


async def test_without_the_extra_a_fit_is_refused(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar_api.admin.calibrations.find_spec", lambda _: None)
    for path in ("/calibrations:fit", "/calibrations:evaluate"):
        refused = await admin.call("POST", path, admin.alice, {})
        assert refused.status_code == 409
        assert "tcd[calibrate]" in refused.text


def test_the_plane_is_there_without_the_extra() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(('scipy', 'sklearn', 'pyarrow', 'torch')))"
    subprocess.run([sys.executable, "-c", f"{blocked}; import sidecar_api.admin.app"], check=True, timeout=300)
