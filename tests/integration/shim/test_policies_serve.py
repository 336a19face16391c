"""`tcd serve` with a bundle, trust and a decision log: SIGHUP, a bad bundle, kill -9 and a start from what is kept.

No Triton is needed: its absence is a risk like another, and the policy's failure rules decide.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from typer.testing import CliRunner

from tcd.cli.policy import app as policy_app
from tcd.journal import read
from tests.e2e.stack import PATIENT

BUNDLE = """
[[policy]]
name = "p"
version = {version}
[policy.failure]
on_failure = "{on_failure}"
static_action = "degrade"
[policy.rewrite]
shadow = false
"""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A shim whose Triton is nowhere, and its URL."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TCD_")}
    env |= {
        "TCD_POLICIES": str(folder / "p.toml"),
        "TCD_TRUST_ENABLE": "true",
        "TCD_DECISION_LOG": str(folder / "decisions.jsonl"),
        "TCD_CONFIG_WATCH": "false",
        **PATIENT,
    }
    command = ["serve", "--port", "0", "--triton-url", "http://127.0.0.1:9", "--data-dir", str(folder / "data")]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tcd.cli.main", *command], stdout=subprocess.PIPE, stderr=log, text=True, env=env
        )
    timer = threading.Timer(300, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        base = next(line.split()[1] for line in process.stdout if line.startswith("shim"))
        timer.cancel()
        yield process, base
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
        process.communicate()


def post(base: str, path: str, value: Any) -> Any:
    reply = httpx2.post(base + path, json=value, timeout=60.0)
    assert reply.status_code == 200, reply.text
    return reply.json()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError


def write(folder: Path, version: int, on_failure: str) -> None:
    (folder / "p.toml").write_text(BUNDLE.format(version=version, on_failure=on_failure))


def test_reload_and_restart(tmp_path: Path) -> None:
    taken = 0

    def step(base: str, session: str) -> tuple[str, str]:
        nonlocal taken
        taken += 1
        answer = post(base, "/diagnose", {"session": session, "trace_vector": [-1.0], "deadline_ms": 60_000})
        return answer["policy_ref"].partition("#")[0], answer["action"]

    write(tmp_path, 1, "static")
    with serving(tmp_path) as (process, base):
        assert step(base, "a") == ("p@1", "degrade")
        tool = {"messages": [{"role": "tool", "content": "a b"}]}
        assert post(base, "/v1/rewrite", {"body": tool})["body_rewritten"]
        write(tmp_path, 2, "closed")
        process.send_signal(signal.SIGHUP)
        until(lambda: step(base, "b") == ("p@2", "block"))
        (tmp_path / "p.toml").write_text("[[policy]]\nname = 1\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: "p.toml:2: name: " in (tmp_path / "log").read_text())
        write(tmp_path, 3, "open")
        process.send_signal(signal.SIGHUP)
        until(lambda: "needs a break-glass grant for sha256:" in (tmp_path / "log").read_text())
        assert step(base, "c") == ("p@2", "block")
        until(lambda: (tmp_path / "decisions.jsonl").read_text().count("\n") == taken)
        process.kill()
        process.wait(60)
    lines = [json.loads(line) for line in (tmp_path / "decisions.jsonl").read_text().splitlines()]
    assert {line["policy_ref"].partition("#")[0] for line in lines} == {"p@1", "p@2"}
    # a restart is under what the file says, the journals of the killed shim are there
    for name in ("trust", "patches"):
        assert read(tmp_path / "data" / f"{name}.journal")[1] >= 0
        assert (tmp_path / "data" / f"{name}.journal").exists()
    with serving(tmp_path) as (_, base):
        assert step(base, "d") == ("p@3", "allow")
    log = str(tmp_path / "decisions.jsonl")
    found = CliRunner().invoke(policy_app, ["diff", str(tmp_path / "p.toml"), "--log", log, "--json"])
    changed = json.loads(found.stdout)["changed"]
    assert {(c["before"], c["after"]) for c in changed} == {("degrade", "allow"), ("block", "allow")}
    assert all(c["milder"] for c in changed)
