"""Jobs: in a process of their own, one of a kind, bounded, bound to a tenant, and there again after a restart."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar_api.admin.jobs import KEPT, RUNNING, Job, Jobs, Kind
from sidecar_api.admin.principals import AdminScope, Principal
from sidecar_api.admin.tokens import Caller
from tcd.client.admin import OperatorKey
from tcd.errors import Conflict, NotFound, QuotaExceeded
from tests.conftest import ROOT
from tests.unit.admin.kit import Admin

HERE = "tests.unit.admin.job_kinds"


def kind(function: str, name: str = "audit", **limits: Any) -> Kind:
    return Kind(name, f"{HERE}:{function}", "receipts:audit", **limits)


def caller(tenant: str = "*", *scopes: AdminScope) -> Caller:
    public = OperatorKey.generate("x").private.public_key()
    granted = frozenset(scopes or ("receipts:audit",))
    return Caller(Principal("kid", "x", granted, tenant, public), granted, "jti")


ANYBODY = caller()


def jobs_in(folder: Path, **options: Any) -> Jobs:
    return Jobs(folder / "jobs", random=lambda n: uuid.uuid4().bytes[:n], **options)


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Jobs]:
    made = jobs_in(tmp_path)
    yield made
    await made.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about within a minute")


async def ended(job: Job) -> Job:
    await until(lambda: job.state != "running")
    return job


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def over(pid: int) -> bool:
    """Gone, or dead and not yet waited for by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_job_has_a_process_progress_files_and_a_result(jobs: Jobs, tmp_path: Path) -> None:
    job = await jobs.start(kind("write"), {"a": 1}, tenant="*", by="alice", private={"url": "s3cret"})
    assert (job.state, job.kind, job.by) == ("running", "audit", "alice")
    await ended(job)
    assert (job.state, job.error) == ("done", "")
    assert job.result is not None
    assert job.result["given"] == {"a": 1, "url": "s3cret"}
    assert job.result["pid"] != os.getpid()
    assert job.result["nice"] > os.nice(0)
    assert (job.done, job.total, job.note) == (1, 2, "half")
    # only names that can be asked for are files
    assert job.files == {"out.json": 2}
    assert jobs.file(job.id, "out.json", ANYBODY).read_text() == "{}"
    folder = tmp_path / "jobs"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert b"not a message" in (folder / job.id / "process.log").read_bytes()
    for name in ("job.json", "process.log", "../x", "UPPER.json", ""):
        with pytest.raises(NotFound):
            jobs.file(job.id, name, ANYBODY)


async def test_private_arguments_are_kept_nowhere(jobs: Jobs, tmp_path: Path) -> None:
    job = await ended(await jobs.start(kind("refuse"), {}, tenant="*", by="a", private={"url": "s3cret"}))
    assert "s3cret" not in json.dumps(job.to_json())
    assert b"s3cret" not in written(tmp_path)


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("refuse", "the ledger is not there"),
        ("break_", "RuntimeError; details are in the job's process.log"),
        ("die", "its process ended with -9"),
        ("chatter", "its process ended with -9"),
        ("nothing_of_this_name", "AttributeError; details are in the job's process.log"),
    ],
)
async def test_what_fails_says_why(jobs: Jobs, function: str, error: str) -> None:
    job = await ended(await jobs.start(kind(function), {}, tenant="*", by="a"))
    assert (job.state, job.error, job.result) == ("failed", error, None)


async def test_one_of_a_kind_and_few_at_once(jobs: Jobs, tmp_path: Path) -> None:
    waiting = {"file": str(tmp_path / "go")}
    first = await jobs.start(kind("wait"), waiting, tenant="*", by="a")
    with pytest.raises(Conflict):
        await jobs.start(kind("wait"), waiting, tenant="acme", by="a")
    others = [await jobs.start(kind("wait", f"k{n}"), waiting, tenant="*", by="a") for n in range(RUNNING - 1)]
    with pytest.raises(QuotaExceeded):
        await jobs.start(kind("wait", "more"), waiting, tenant="*", by="a")
    await until(lambda: first.note == "waiting")
    assert (first.done, first.total) == (1, 3)
    (tmp_path / "go").touch()
    for job in (first, *others):
        assert (await ended(job)).state == "done"
    assert len(jobs.list(ANYBODY)) == RUNNING


async def test_cancelling_ends_the_process(jobs: Jobs, tmp_path: Path) -> None:
    job = await jobs.start(kind("wait"), {"file": str(tmp_path / "never")}, tenant="*", by="a")
    await until(lambda: job.note == "waiting")
    assert (await jobs.cancel(job.id, ANYBODY)).state == "cancelled"
    pid = int(jobs.file(job.id, "pid.json", ANYBODY).read_text())
    await until(lambda: gone(pid))
    # of one that has ended nothing changes
    assert (await jobs.cancel(job.id, ANYBODY)).state == "cancelled"


@pytest.mark.parametrize(
    ("limits", "function", "said"),
    [({"most_bytes": 4096}, "grow", "exceed"), ({"most_seconds": 0.0}, "wait", "longer than")],
)
async def test_disk_and_time_are_bounded(
    jobs: Jobs, tmp_path: Path, limits: dict[str, Any], function: str, said: str
) -> None:
    arguments = {"size": 2048, "file": str(tmp_path / "never")}
    job = await ended(await jobs.start(kind(function, **limits), arguments, tenant="*", by="a"))
    assert job.state == "failed"
    assert said in job.error


async def test_a_file_cannot_grow_past_the_limit(jobs: Jobs) -> None:
    job = await ended(await jobs.start(kind("grow", most_bytes=1000), {"size": 5000}, tenant="*", by="a"))
    assert job.state == "failed"
    assert max(job.files.values()) <= 1000


@pytest.mark.parametrize(("piece", "pieces"), [(1 << 16, 1 << 14), (1 << 30, 1)])
async def test_memory_is_bounded_and_the_job_says_so(tmp_path: Path, piece: int, pieces: int) -> None:
    jobs = jobs_in(tmp_path, memory=512 << 20)
    job = await ended(await jobs.start(kind("fill"), {"piece": piece, "pieces": pieces}, tenant="*", by="a"))
    assert (job.state, job.error) == ("failed", "it needs more than 512 MiB of memory (TCD_ADMIN_JOB_MEMORY_MIB)")
    # what fits is not refused
    job = await ended(await jobs.start(kind("fill"), {"piece": 1 << 26, "pieces": 1}, tenant="*", by="a"))
    assert (job.state, job.result) == ("done", {"kept": 1})
    await jobs.close()


async def test_the_newest_are_kept(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, kept=2)
    made = [await ended(await jobs.start(kind("write"), {"n": n}, tenant="*", by="a")) for n in range(3)]
    # the oldest goes after the newest has ended
    await jobs.close()
    assert [job.id for job in jobs.list(ANYBODY)] == [made[2].id, made[1].id]
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == sorted(job.id for job in made[1:])
    assert KEPT >= 10


async def test_a_restart_has_them_again_and_what_ran_is_interrupted(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path)
    done = await ended(await jobs.start(kind("write"), {}, tenant="acme", by="a"))
    running = await jobs.start(kind("wait"), {"file": str(tmp_path / "never")}, tenant="*", by="a")
    await until(lambda: running.note == "waiting")
    record = tmp_path / "jobs" / running.id / "job.json"
    as_after_a_kill = record.read_bytes()
    pid = int((record.parent / "pid.json").read_text())
    await jobs.close()
    assert running.state == "interrupted"
    await until(lambda: gone(pid))
    with pytest.raises(Conflict):
        await jobs.start(kind("write"), {}, tenant="*", by="a")
    # a shim that was killed did not write the end
    record.write_bytes(as_after_a_kill)
    for broken in ("0" * 32, "1" * 32):
        (tmp_path / "jobs" / broken).mkdir()
    (tmp_path / "jobs" / ("0" * 32) / "job.json").write_text('{"id": 1}')
    again = jobs_in(tmp_path)
    assert [(job.id, job.state) for job in again.list(ANYBODY)] == [(running.id, "interrupted"), (done.id, "done")]
    assert again.get(running.id, ANYBODY).files == {"pid.json": len(str(pid))}
    assert again.get(done.id, ANYBODY) == replace(done)
    assert json.loads(record.read_bytes())["state"] == "interrupted"


async def test_the_process_does_not_outlive_the_shim(tmp_path: Path) -> None:
    """Killed like a shim: its end of the pipe closes."""
    jobs = jobs_in(tmp_path)
    job = await jobs.start(kind("wait"), {"file": str(tmp_path / "never")}, tenant="*", by="a")
    await until(lambda: job.note == "waiting")
    pid = int((tmp_path / "jobs" / job.id / "pid.json").read_text())
    process = jobs._processes[job.id].process
    assert process.stdin is not None
    process.stdin.close()
    await ended(job)
    assert job.state == "failed"
    await until(lambda: gone(pid))
    await jobs.close()


SHIM = """
import asyncio, sys, uuid
from pathlib import Path
from sidecar_api.admin.jobs import Jobs, Kind

async def main():
    jobs = Jobs(Path(sys.argv[1]), random=lambda n: uuid.uuid4().bytes[:n])
    job = await jobs.start(Kind("audit", "tests.unit.admin.job_kinds:numb", "receipts:audit"), {}, tenant="*", by="a")
    print(job.id, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_not_even_a_process_that_listens_to_nothing_outlives_a_killed_shim(tmp_path: Path) -> None:
    shim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SHIM, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert shim.stdout is not None
    try:
        at = tmp_path / (await shim.stdout.readline()).decode().strip() / "pid.json"
        await until(lambda: at.is_file() and at.read_text() != "")
        pid = int(at.read_text())
        assert not over(pid)
    finally:
        shim.kill()
        await shim.wait()
    await until(lambda: over(pid))


async def test_of_another_tenant_or_without_the_scope_there_is_nothing(jobs: Jobs) -> None:
    job = await ended(await jobs.start(kind("write"), {}, tenant="acme", by="a"))
    for foreign in (caller("other"), caller("acme", "receipts:read"), caller("*", "config:read")):
        assert jobs.list(foreign) == []
        with pytest.raises(NotFound) as there:
            jobs.get(job.id, foreign)
        with pytest.raises(NotFound) as missing:
            jobs.get("f" * 32, foreign)
        assert there.value.detail == missing.value.detail
        with pytest.raises(NotFound):
            jobs.file(job.id, "out.json", foreign)
        with pytest.raises(NotFound):
            await jobs.cancel(job.id, foreign)
    assert jobs.list(caller("acme")) == [job]
    assert jobs.list(ANYBODY, kind="replay") == []


async def test_over_http(tmp_path: Path) -> None:
    admin = Admin(tmp_path)
    jobs = admin.plane.jobs
    done = await ended(await jobs.start(kind("write"), {}, tenant="*", by="alice"))
    running = await jobs.start(kind("wait"), {"file": str(tmp_path / "never")}, tenant="*", by="alice")
    listed = (await admin.get("/jobs", admin.alice)).json()["jobs"]
    assert [job["id"] for job in listed] == [running.id, done.id]
    assert (await admin.get(f"/jobs/{done.id}", admin.bob)).json() == done.to_json()
    file = await admin.get(f"/jobs/{done.id}/files/out.json", admin.alice)
    assert (file.text, file.headers["content-type"]) == ("{}", "application/json")
    assert file.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    # Carol is of one tenant and may not audit
    for path in (f"/jobs/{done.id}", f"/jobs/{done.id}/files/out.json", f"/jobs/{'0' * 32}"):
        reply = await admin.get(path, admin.carol, ["policy:read"])
        assert (reply.status_code, reply.json()["detail"]) == (404, "no such job")
    assert (await admin.get("/jobs", admin.carol, ["policy:read"])).json() == {"jobs": []}
    reply = await admin.call("POST", f"/jobs/{running.id}:cancel", admin.bob)
    assert (reply.status_code, reply.json()["result"]["state"]) == (200, "cancelled"), reply.text
    assert [act[:2] for act in admin.acts.made] == [("audit.cancel", "bob")]
