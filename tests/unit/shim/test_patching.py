"""Patches in a running shim: two principals, a time, a canary, a roll-back by itself, leaves, a restart."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sidecar_api.app import Edges
from sidecar_api.patching import FILE, PATCHABLE
from sidecar_api.reload import Reloader
from sidecar_api.schemas import DiagnoseRequest
from tcd.cli.patch import app as patch_app
from tcd.errors import Conflict, Forbidden, Unavailable, ValidationFailed
from tcd.journal import read

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class Clock:
    seconds: float = 1e9

    def now_us(self) -> int:
        return int(self.seconds * 1e6)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shim(make_client: Any, clock: Clock, folder: Path, **changes: Any) -> Any:
    edges = Edges(folder=folder, now_us=clock.now_us)
    # no answer of a loaded machine is late, unless a test says so
    return make_client(**{"edges": edges, "entropy_floor": 0.1, "slo_ms": 1e9, **changes})


def put_in_force(patches: Any, **terms: Any) -> None:
    given = {"setting": "entropy_floor", "value": 2.0, "ttl": 60.0, "share": 1.0, **terms}
    patches.register("p", actor="ann", **given)
    patches.approve("p", actor="bob")
    patches.apply("p", actor="ann")


async def floored(client: Any, session: str, **members: Any) -> Any:
    return await client.step(session=session, entropy=1.0, **members)


async def test_a_patch_acts_while_it_is_in_force_and_says_so(make_client: Any, clock: Clock, tmp_path: Path) -> None:
    client = shim(make_client, clock, tmp_path)
    patches = client.app.runtime.service.patches
    patches.register("p", setting="entropy_floor", value=2.0, actor="ann", ttl=60.0)
    with pytest.raises(Forbidden, match="another person"):
        patches.approve("p", actor="ann")
    with pytest.raises(Conflict):
        patches.apply("p", actor="ann")
    assert (await floored(client, "before"))["action"] == "allow"
    patches.approve("p", actor="bob")
    assert (await floored(client, "approved"))["action"] == "allow"
    patches.apply("p", actor="ann")
    answer = await floored(client, "during")
    assert (answer["action"], answer["cause"]) == ("degrade", "policy")
    assert answer["route"]["tags"][-1] == "patch:p"
    assert json.loads(answer["receipt_body"])["decision"]["tags"][-1] == "patch:p"
    clock.seconds += 60.0
    assert (await floored(client, "after"))["action"] == "allow"
    patches.tick()
    await client.app.runtime.service.judge.flush()
    kinds = [event["kind"] for event in read(tmp_path / FILE)[0]]
    assert kinds == ["register", "approve", "apply", "expire"]
    acts = []
    for head in await client.app.runtime.ledger.heads():
        stored = await client.app.runtime.ledger.get(head.hex())
        assert stored is not None
        assert stored.receipt is not None
        acts.append(json.loads(stored.receipt.body).get("admin"))
    found = [(act["action"], act["actor"]) for act in acts if act]
    assert found == [
        ("patch.register", "ann"),
        ("patch.approve", "bob"),
        ("patch.apply", "ann"),
        ("patch.expire", "clock"),
    ]


async def test_the_canary_is_its_share_of_subjects(make_client: Any, clock: Clock, tmp_path: Path) -> None:
    client = shim(make_client, clock, tmp_path)
    put_in_force(client.app.runtime.service.patches, share=0.3)
    hit = [(await floored(client, f"s{i}"))["action"] == "degrade" for i in range(200)]
    assert 30 <= sum(hit) <= 90
    again = [(await floored(client, f"s{i}"))["action"] == "degrade" for i in range(200)]
    assert again == hit


async def test_a_missed_objective_rolls_it_back(make_client: Any, clock: Clock, tmp_path: Path) -> None:
    # every answer is late under this objective
    client = shim(make_client, clock, tmp_path, slo_ms=0.0001)
    patches = client.app.runtime.service.patches
    put_in_force(patches)
    for i in range(50):
        assert (await floored(client, f"s{i}"))["action"] == "degrade", i
    assert (await floored(client, "last"))["action"] == "allow"
    [patch] = list(patches)
    assert patch.state == "rolled_back"
    event = read(tmp_path / FILE)[0][-1]
    assert (event["kind"], event["actor"]) == ("roll_back", "slo")
    assert "50 of 50 answers missed" in event["reason"]


async def test_a_patch_only_tightens_and_only_what_is_listed(make_client: Any, clock: Clock, tmp_path: Path) -> None:
    patches = shim(make_client, clock, tmp_path).app.runtime.service.patches
    for setting, value in (("mode", "monitor"), ("entropy_floor", 0.05), ("on_failure", "open")):
        with pytest.raises(Forbidden, match="only tightens"):
            patches.register("p", setting=setting, value=value, actor="ann", ttl=1.0)
    wrong: list[tuple[str, Any]] = [
        ("alpha", 0.01),
        ("attest_sk_hex", "00"),
        ("entropy_floor", -1.0),
        ("cooldown_steps", "x"),
    ]
    for setting, value in (*wrong, ("entropy_floor", float("inf")), ("entropy_floor", float("nan"))):
        with pytest.raises(ValidationFailed):
            patches.register("p", setting=setting, value=value, actor="ann", ttl=1.0)
    assert list(patches) == []
    assert "alpha" not in PATCHABLE


@pytest.mark.parametrize(
    ("setting", "value", "kept"),
    [("deadline_ms", "500", 500.0), ("deadline_ms", 500, 500.0), ("cooldown_steps", "900", 900)],
)
async def test_a_value_has_the_type_of_its_setting(
    make_client: Any, clock: Clock, tmp_path: Path, setting: str, value: Any, kept: Any
) -> None:
    client = shim(make_client, clock, tmp_path, deadline_ms=1000.0)
    put_in_force(client.app.runtime.service.patches, setting=setting, value=value)
    assert (await client.step(session="s"))["route"]["tags"][-1] == "patch:p"
    client.app.runtime.service.patches.stop()
    again = shim(make_client, clock, tmp_path, deadline_ms=1000.0)
    assert (await again.step(session="s"))["route"]["tags"][-1] == "patch:p"
    (found,) = again.app.runtime.service.patches
    assert (found.value, type(found.value)) == (kept, type(kept))


async def test_it_goes_on_after_a_restart(make_client: Any, clock: Clock, tmp_path: Path) -> None:
    client = shim(make_client, clock, tmp_path)
    put_in_force(client.app.runtime.service.patches)
    client.app.runtime.service.patches.stop()
    again = shim(make_client, clock, tmp_path)
    assert (await floored(again, "s"))["action"] == "degrade"
    clock.seconds += 60.0
    assert (await floored(again, "s"))["action"] == "allow"
    listed = CliRunner().invoke(patch_app, ["list", "--data-dir", str(tmp_path)]).output
    assert listed == "p: entropy_floor = 2.0 for 100%, 60 s: active, by ann, approved by bob\n"
    logged = CliRunner().invoke(patch_app, ["log", "--data-dir", str(tmp_path)]).stdout.splitlines()
    assert [json.loads(line)["kind"] for line in logged] == ["register", "approve", "apply"]


async def test_what_is_over_is_forgotten_and_an_auditor_still_finds_what_was_in_force(
    make_client: Any, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar_api.patching.MOST_EVENTS", 40)
    monkeypatch.setattr("tcd.trust.patches.MAX_ENDED", 3)
    monkeypatch.setattr("tcd.trust.patches.MAX_UNUSED", 2)
    client = shim(make_client, clock, tmp_path)
    patches = client.app.runtime.service.patches
    put_in_force(patches)
    for number in range(30):
        clock.seconds += 1.0
        patches.register(f"n{number}", setting="mode", value="enforce", actor="ann", ttl=60.0)
        if number % 2:
            patches.withdraw(f"n{number}", actor="ann")
            continue
        patches.approve(f"n{number}", actor="bob")
        patches.apply(f"n{number}", actor="ann")
        patches.roll_back(f"n{number}", actor="ann + bob", reason="r")
    known = list(patches)
    assert [patch.id for patch in known] == ["p", "n24", "n26", "n27", "n28", "n29"]
    assert len(read(tmp_path / FILE)[0]) <= 40
    await client.app.runtime.service.judge.flush()
    bodies = [
        json.loads(stored.receipt.body)
        for stored in await client.app.runtime.ledger.records(limit=1000)
        if stored.receipt is not None
    ]
    leaves = {body["admin"]["object"] for body in bodies if body["typ"] == "admin"}
    patches.stop()
    # a restart knows the same, and the patch is in force as before
    again = shim(make_client, clock, tmp_path)
    assert list(again.app.runtime.service.patches) == known
    assert (await floored(again, "s"))["route"]["tags"][-1] == "patch:p"
    # of every patch that a receipt can name all steps are there, as the log has them
    lines = CliRunner().invoke(patch_app, ["log", "--data-dir", str(tmp_path)]).stdout.splitlines()
    steps = [json.loads(line) for line in lines]
    applied = [step["patch"] for step in steps if step["kind"] == "apply"]
    assert sorted(applied) == sorted(["p", *(f"n{number}" for number in range(0, 30, 2))])
    assert all("sha256:" + hashlib.sha256(line.encode()).hexdigest() in leaves for line in lines)
    listed = CliRunner().invoke(patch_app, ["list", "--data-dir", str(tmp_path)]).stdout.splitlines()
    assert len(listed) == len(known)


async def test_a_disk_that_cannot_put_steps_aside_loses_none(
    make_client: Any, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar_api.patching.MOST_EVENTS", 4)
    monkeypatch.setattr("tcd.trust.patches.MAX_ENDED", 1)
    patches = shim(make_client, clock, tmp_path).app.runtime.service.patches

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    def used(name: str) -> None:
        patches.register(name, setting="mode", value="enforce", actor="ann", ttl=60.0)
        patches.approve(name, actor="bob")
        patches.apply(name, actor="ann")
        patches.roll_back(name, actor="ann + bob", reason="r")

    with monkeypatch.context() as context:
        context.setattr("tcd.journal.write_whole", full)
        used("a")
        used("b")
    assert len(read(tmp_path / FILE)[0]) == 8
    patches.register("c", setting="mode", value="enforce", actor="ann", ttl=60.0)
    assert [value["patch"] for value in read(tmp_path / FILE)[0]] == ["b"] * 4 + ["c"]
    lines = CliRunner().invoke(patch_app, ["log", "--data-dir", str(tmp_path)]).stdout.splitlines()
    assert [json.loads(line)["patch"] for line in lines] == ["a"] * 4 + ["b"] * 4 + ["c"]


@pytest.mark.parametrize(
    ("terms", "state"),
    [
        ({"value": 3.0, "ttl": 600.0}, "rolled_back"),
        ({"value": 2.0, "ttl": 600.0}, "rolled_back"),
        ({"value": 1.0, "ttl": 600.0}, "active"),
        ({"value": 3.0, "ttl": 600.0, "share": 0.5}, "active"),
        ({"value": 3.0, "ttl": 1.0}, "active"),
    ],
)
async def test_one_person_ends_no_patch_by_a_weaker_one(
    make_client: Any, clock: Clock, tmp_path: Path, terms: dict[str, Any], state: str
) -> None:
    patches = shim(make_client, clock, tmp_path).app.runtime.service.patches
    # it was approved before there was another one
    patches.register("q", setting="entropy_floor", actor="ann", **terms)
    patches.approve("q", actor="bob")
    put_in_force(patches)
    if state == "active":
        with pytest.raises(Conflict, match="p is in force and asks for more"):
            patches.apply("q", actor="bob")
    else:
        patches.apply("q", actor="bob")
    assert patches.get("p").state == state


async def test_a_full_disk_means_that_nothing_happened(
    make_client: Any, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches = shim(make_client, clock, tmp_path).app.runtime.service.patches
    patches.register("p", setting="entropy_floor", value=2.0, actor="ann", ttl=60.0)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr("os.write", full)
        with pytest.raises(Unavailable):
            patches.approve("p", actor="bob")
    assert next(iter(patches)).state == "registered"
    patches.approve("p", actor="bob")
    assert next(iter(patches)).state == "approved"


async def test_settings_that_are_tightened_later_stay_in_force(make_client: Any, clock: Clock, tmp_path: Path) -> None:
    client = shim(make_client, clock, tmp_path, on_failure="open")
    service = client.app.runtime.service
    put_in_force(service.patches, setting="on_failure", value="static")
    assert service.rules(DiagnoseRequest()).decision.on_failure == "static"
    Reloader(client.app.runtime).apply(client.app.runtime.settings.model_copy(update={"on_failure": "closed"}))
    assert service.rules(DiagnoseRequest()).decision.on_failure == "closed"
    Reloader(client.app.runtime).apply(client.app.runtime.settings.model_copy(update={"entropy_floor": 5.0}))
    assert service.rules(DiagnoseRequest()).entropy_floor == 5.0


BOUND = '[[policy]]\nname = "watch"\nversion = 1\nmode = "monitor"\n'


async def test_over_a_policy_a_patch_tightens_too(make_client: Any, kit: Any, clock: Clock, tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(BOUND)
    client = shim(make_client, clock, tmp_path, policies=tmp_path / "p.toml", mode="monitor", on_failure="open")
    patches = client.app.runtime.service.patches
    assert (await floored(client, "a", tenant="t"))["enforced"] == "allow"
    put_in_force(patches, setting="mode", value="enforce")
    patches.register("q", setting="hard_fail_on_floor", value=True, actor="ann", ttl=60.0)
    patches.approve("q", actor="bob")
    patches.apply("q", actor="bob")
    answer = await client.step(session="b", entropy=0.01)
    assert (answer["action"], answer["enforced"]) == ("block", "block")
    assert answer["policy_ref"].startswith("watch@1#")
    assert answer["route"]["tags"][-2:] == ["patch:p", "patch:q"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.shim.conftest import ScriptedScorer, settings_of, synthetic_assets
from sidecar_api.app import Edges, create_app
from sidecar_api.pins import FixedAssets
import asyncio
async def main():
    app = create_app(settings_of(), scorer=ScriptedScorer(), assets=FixedAssets(synthetic_assets()),
                     edges=Edges(folder=Path(sys.argv[1])))
    patches = app.runtime.service.patches
    patches.register("p", setting="entropy_floor", value=2.0, actor="ann", ttl=3600.0)
    patches.approve("p", actor="bob")
    patches.apply("p", actor="ann")
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_what_was_answered_survives_kill_9(make_client: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, check=False)
    assert done.returncode == -9
    client = make_client(edges=Edges(folder=tmp_path), slo_ms=1e9)
    [patch] = list(client.app.runtime.service.patches)
    assert (patch.state, patch.approver) == ("active", "bob")
    assert (await floored(client, "s"))["action"] == "degrade"
