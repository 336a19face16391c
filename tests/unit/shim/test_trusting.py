"""Trust in the dataplane: evidence of settled decisions, durable through kill -9, only tightening, explained."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sidecar_api.app import Edges
from sidecar_api.stores import own_directory
from sidecar_api.trusting import FILE, TrustFeed, connected
from tcd.cli.trust import app as trust_app
from tcd.journal import Journal, read
from tcd.trust import Node

ROOT = Path(__file__).resolve().parents[3]
MODEL, TOOL = Node("model", "model0"), Node("tool", "search")
POLICY = """
[[policy]]
name = "p"
version = 1
[[policy.decision]]
name = "distrusted"
when = { distrust = 0.02 }
action = "ask_for_review"
cause = "trust"
"""


async def test_rejected_sessions_lower_trust_and_the_policy_acts_on_it(
    make_client: Any, kit: Any, tmp_path: Path
) -> None:
    (tmp_path / "p.toml").write_text(POLICY)
    scorer = kit.ScriptedScorer(p=1e-9)
    client = make_client(
        scorer,
        policies=tmp_path / "p.toml",
        trust_enable=True,
        trust_depends=({"node": "model:other", "on": "tool:search", "weight": 0.9},),
        edges=Edges(folder=tmp_path),
        data_dir=tmp_path,
    )
    app = client.app
    async with app.router.lifespan_context(app):
        feed = app.runtime.service.judge.trust
        for i in range(3):
            answer = await client.step(session=f"bad{i}", user=f"u{i}", context={"tool": "search"})
            assert answer["trigger"]
        await asyncio.to_thread(until, lambda: len(read(tmp_path / FILE)[0]) == 12)
        await asyncio.to_thread(until, lambda: feed.distrust([TOOL]) > 0)
        assert feed.distrust([MODEL]) == pytest.approx(1 - 20 / 23, abs=1e-3)
        # one bad hypothesis counts once, however many steps follow it
        await client.step(session="bad0", user="u0", context={"tool": "search"})
        scorer.p = 0.9
        answer = await client.step(session="fine", user="nobody", tenant="t9", model_id="other")
        assert (answer["action"], answer["cause"]) == ("ask_for_review", "trust")
        assert "rule:distrusted" in answer["route"]["tags"]
        assert json.loads(answer["receipt_body"])["risk"]["distrust"] != "0" * 16
        app.runtime.service.lifecycle.end(next(iter(app.runtime.service.sessions)), "end")
    assert len(read(tmp_path / FILE)[0]) == 12
    done = CliRunner().invoke(trust_app, ["explain", "model:other", "--data-dir", str(tmp_path)])
    told = json.loads(done.stdout)
    # the command line knows the settings of its environment: no dependency there
    assert (told["trust"], told["paths"]) == (1.0, [])
    (tmp_path / "c.toml").write_text('[[trust_depends]]\nnode = "model:other"\non = "tool:search"\nweight = 0.9\n')
    given = ["--data-dir", str(tmp_path), "--config", str(tmp_path / "c.toml")]
    told = json.loads(CliRunner().invoke(trust_app, ["explain", "model:other", *given]).stdout)
    assert told["paths"][0]["path"] == ["model:other", "tool:search"]
    assert told["own"] == 1.0
    shown = CliRunner().invoke(trust_app, ["show", *given]).stdout
    assert "tool:search" in shown.splitlines()[0] or "model:model0" in shown.splitlines()[0]
    assert CliRunner().invoke(trust_app, ["explain", "thing:x", *given]).exit_code == 2


async def test_a_session_that_ends_well_is_good_evidence(make_client: Any, tmp_path: Path) -> None:
    client = make_client(trust_enable=True, edges=Edges(folder=tmp_path))
    app = client.app
    async with app.router.lifespan_context(app):
        for step in range(3):
            await client.step(session="s", step_id=step)
        await client.step(session="s", step_id=0)
    found = read(tmp_path / FILE)[0]
    assert [(kind, good) for kind, _, good, _, _ in found] == [("model", True), ("tenant", True), ("user", True)]
    assert all("user0" not in str(line) for line in found), "users are known by their keyed digest"


async def test_a_session_whose_blocks_are_rejected_at_its_end_is_bad_evidence(make_client: Any, tmp_path: Path) -> None:
    client = make_client(trust_enable=True, unit="block", rule="e_lond", edges=Edges(folder=tmp_path))
    app = client.app
    judge = app.runtime.service.judge

    def rejected(session: Any) -> None:
        session.triggered = True

    async with app.router.lifespan_context(app):
        await client.step(session="s", step_id=0)
        judge.judge_blocks = rejected
        app.runtime.service.lifecycle.end(next(iter(app.runtime.service.sessions)), "end")
    assert [good for _, _, good, _, _ in read(tmp_path / FILE)[0]] == [False] * 3


def test_each_shim_has_a_directory_of_its_own(kit: Any, tmp_path: Path) -> None:
    def where(**changes: Any) -> Path | None:
        return own_directory(kit.settings_of(data_dir=tmp_path, **changes), {})

    assert where(ledger="sqlite") == tmp_path
    assert where(ledger="memory") is None
    shared = {"ledger": "postgresql://u@h/d"}
    assert where(**shared) is None
    assert where(replica="eu-1", **shared) == tmp_path / "replicas" / "eu-1"
    for name in ("../x", "a/b", ".."):
        made = where(replica=name, **shared)
        assert made is not None
        assert made.parent == tmp_path / "replicas"
        assert len(made.name) == 64


def until(condition: Any) -> None:
    """Poll; generous, for loaded machines."""
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError


WRITER = """
import sys
from pathlib import Path
from sidecar_api.trusting import TrustFeed
from tcd.config import Settings
from tcd.journal import Journal
feed = TrustFeed(Settings(), journal=Journal(Path(sys.argv[1])), compact=40)
i = 0
while True:
    at = feed._clock()
    feed.take([("model", f"m{i % 7}", False, str(i), at)])
    print(i, flush=True)
    i += 1
"""


@pytest.mark.parametrize("after", [3, 60, 150])
def test_evidence_that_was_taken_survives_kill_9(kit: Any, tmp_path: Path, after: int) -> None:
    path = tmp_path / FILE
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        last = -1
        for line in process.stdout:
            last = int(line)
            if last >= after:
                break
        process.send_signal(signal.SIGKILL)
        said = process.stdout.read().split()
        last = int(said[-1]) if said else last
    graph = connected(kit.settings_of(), read(path)[0])
    # each id is known, so that a replay of it does not count
    assert {str(i) for i in range(last + 1)} <= graph._seen.keys()
    bad = sum(graph.explain(Node("model", f"m{i}"), time.time()).bad for i in range(7))
    assert bad == pytest.approx(len(graph._seen), rel=1e-2)


def test_many_threads_give_evidence_while_others_read(kit: Any) -> None:
    feed = TrustFeed(kit.settings_of())
    feed.start()

    def give(number: int) -> None:
        for i in range(200):
            feed.seen([MODEL, TOOL], good=False, evidence=f"{number}-{i}")
            feed.distrust([MODEL, TOOL])
            feed.graph.explain(MODEL, 0.0)
            feed.graph.depend(MODEL, Node("tool", f"t{number}-{i % 5}"))

    threads = [threading.Thread(target=give, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    feed.stop(timeout=60)
    told = feed.graph.explain(TOOL, feed._clock())
    assert told.bad == pytest.approx(1600, rel=1e-2)
    assert feed.dropped == 0


def test_a_full_disk_does_not_raise_trust(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / FILE)
    feed = TrustFeed(kit.settings_of(), journal=journal)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    feed.take([("tool", "search", False, "1", feed._clock())])
    feed.refresh()
    assert feed.distrust([TOOL]) > 0
