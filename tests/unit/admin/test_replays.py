"""Replays as jobs of the admin plane: one candidate beside what is in force; what cannot be is refused at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar_api.admin.replays import TRAFFIC, plain
from sidecar_api.traffic import Line, items_of
from tcd.config import Settings
from tests.conftest import ROOT
from tests.unit.admin.kit import Admin

BLOCKS = '[[policy]]\nname = "strict"\nversion = 1\n[[policy.decision]]\nname = "sure"\nwhen = {score = 0.99}\n'
BLOCKS += 'action = "block"\n'


@pytest.fixture
def admin(tmp_path: Path) -> Admin:
    return Admin(tmp_path)


def recorded() -> str:
    """A generation that loops."""
    found = [i for i in items_of(ROOT / "tests" / "data" / "traces_small") if isinstance(i, Line)]
    name = next(line.request.session for line in found if line.request.session.startswith("loop"))
    return "".join(msgspec.json.encode(x.request).decode() + "\n" for x in found if x.request.session == name)


async def finished(admin: Admin, identifier: str) -> Any:
    for _ in range(4800):
        job = (await admin.get(f"/jobs/{identifier}", admin.alice)).json()
        if job["state"] != "running":
            return job
        await asyncio.sleep(0.05)
    pytest.fail("it did not end within four minutes")


async def test_a_candidate_policy_is_replayed_against_what_is_in_force(admin: Admin) -> None:
    text = recorded()
    body = {"lines": text + "nonsense\n", "policies": {"a.toml": BLOCKS}}
    started = await admin.call("POST", "/replays", admin.alice, body)
    assert started.status_code == 200, started.text
    act = started.json()
    assert act["action"] == "replay.start"
    assert admin.acts.made == [("replay.start", "alice", act["object"])]
    assert "nonsense" not in started.text
    job = await finished(admin, act["result"]["id"])
    assert job["state"] == "done", job
    result = job["result"]
    assert result["status"] == "error"
    assert (result["requests"], result["bad_lines"]) == (text.count("\n"), 1)
    assert result["bad"][0]["line"] == text.count("\n") + 1
    assert {b for a, b, _ in result["actions"] if a != b} == {"block"}
    assert result["changed"] > 0
    whole = await admin.get(f"/jobs/{job['id']}/files/replay.json", admin.alice)
    assert whole.json()["diff"]["first_differing"][0]["session"].startswith("tenant0/user0/loop")
    await admin.plane.jobs.close()


async def test_a_file_is_replayed_by_its_name_and_no_other_is(admin: Admin, tmp_path: Path) -> None:
    (tmp_path / TRAFFIC).mkdir()
    (tmp_path / TRAFFIC / "day.jsonl").write_text('{"trace_vector": [-1.0]}\n')
    (tmp_path / TRAFFIC / "link.jsonl").symlink_to(tmp_path / "principals.json")
    found = (await admin.get("/replays/sources", admin.alice)).json()
    assert found == {"sources": [{"name": "day.jsonl", "bytes": 25}]}
    for name in ("link.jsonl", "other.jsonl"):
        assert (await admin.call("POST", "/replays", admin.alice, {"source": name})).status_code == 404
    assert (await admin.call("POST", "/replays", admin.alice, {"source": "../principals.json"})).status_code == 422
    started = await admin.call("POST", "/replays", admin.alice, {"source": "day.jsonl"})
    job = await finished(admin, started.json()["result"]["id"])
    assert job["result"] == {"status": "ok", "requests": 1, "bad_lines": 0, "bad": []}
    await admin.plane.jobs.close()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"lines": "x", "source": "a.jsonl"},
        {"lines": ""},
        {"synthetic": {"count": 0}},
        {"synthetic": {"count": 10}, "calibration": "abc"},
        {"synthetic": {"count": 10}, "policies": {}},
        {"synthetic": {"count": 10}, "policies": {"../x": ""}},
        {"synthetic": {"count": 10}, "more": 1},
    ],
)
async def test_what_is_no_replay_is_refused(admin: Admin, body: dict[str, Any]) -> None:
    assert (await admin.call("POST", "/replays", admin.alice, body)).status_code == 422
    assert not admin.acts.made


async def test_a_candidate_that_is_not_there_is_refused(admin: Admin) -> None:
    body = {"synthetic": {"count": 10}, "calibration": "sha256:" + "0" * 64}
    assert (await admin.call("POST", "/replays", admin.alice, body)).status_code == 404


def test_a_job_gets_no_secret() -> None:
    values: dict[str, Any] = {"attest_sk_hex": "ab" * 32, "subject_key_hex": "cd" * 32}
    secrets = {**values, "api_tokens": [{"token": "long-enough-token", "scopes": ["state:read"]}]}
    given = plain(Settings(**{**secrets, "ledger": "postgresql://u:hunter2@h/d", "alpha": 0.01}))
    text = json.dumps(given)
    assert Settings(**given).alpha == 0.01
    assert not [word for word in ("abab", "cdcd", "long-enough", "hunter2") if word in text]
