"""`tcd proxy` as people start it: a process of its own before a scripted model."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx2
import openai
import pytest

from tcd.demo.openai_api import Api
from tests.integration.proxy.kit import WAIT, ScriptedEngine, serving

MESSAGES = cast(
    "Any", [{"role": "tool", "tool_call_id": "c", "content": "a b"}, {"role": "user", "content": "say: w1"}]
)
BUNDLE = '[[policy]]\nname = "all"\nversion = {version}\n[policy.rewrite]\nshadow = {shadow}\n'


class Running:
    """The command, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def wait_for(self, pattern: str) -> str:
        until = time.monotonic() + WAIT
        while (found := re.search(pattern, self.log.read_text())) is None:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)
        return found[1] if found.groups() else found[0]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tcd.cli.main", "proxy", *arguments]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TCD_")}


@contextlib.contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Running]:
    log = folder / "proxy.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command("--port", "0", *arguments), stdout=out, stderr=subprocess.STDOUT, env=environment()
        )
    try:
        yield Running(process, log)
    finally:
        process.kill()
        process.wait()


def headers(url: str) -> Any:
    with openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=WAIT) as api:
        return api.chat.completions.with_raw_response.create(model="m", messages=MESSAGES).headers


def test_it_serves_reloads_its_policies_and_stops(tmp_path: Path) -> None:
    bundle = tmp_path / "p.toml"
    bundle.write_text(BUNDLE.format(version=1, shadow="true"))
    with (
        serving(Api(ScriptedEngine()).app()) as upstream,
        started(tmp_path, "--upstream", upstream, "--policies", str(bundle), "--metrics-port", "0") as running,
    ):
        url = running.wait_for(r"proxy +(http://127\.0\.0\.1:\d+)")
        assert "x-tcd-spotlight" not in headers(url)

        bundle.write_text(BUNDLE.format(version=2, shadow="false"))
        running.process.send_signal(signal.SIGHUP)
        running.wait_for("policies reloaded")
        assert 'policy="all@2#' in headers(url)["x-tcd-spotlight"]

        bundle.write_text("[[policy]]\nname = 7\n")
        running.process.send_signal(signal.SIGHUP)
        assert "p.toml:2" in running.wait_for(r"(policies not reloaded: .*)")
        assert 'policy="all@2#' in headers(url)["x-tcd-spotlight"]

        metrics = running.wait_for(r"metrics +(http://\S+)")
        assert "tcd_proxy_requests_total{" in httpx2.get(metrics, timeout=WAIT).text
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(WAIT) == 0
        text = running.log.read_text()
    assert text.endswith("stopped\n")
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--upstream", "http://127.0.0.1:9", "--enforce"], "--enforce needs a --shim"),
        (["--upstream", "ftp://x"], "the upstream is an URL"),
        (["--upstream", "http://user:pw@x"], "without query and credentials"),
        (["--upstream", "http://127.0.0.1:9", "--policies", "missing.toml"], "missing.toml:1: No such file"),
        (["--upstream", "http://127.0.0.1:9", "--on-shim-failure", "shut"], "open or closed"),
        (["--upstream", "https://127.0.0.1:9", "--ca-file", "missing.pem"], "no certificates"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(arguments: list[str], reason: str) -> None:
    done = subprocess.run(
        command("--port", "0", *arguments), capture_output=True, text=True, env=environment(), timeout=WAIT, check=False
    )
    assert done.returncode == 1
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_taken_port_is_said_with_the_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            command("--upstream", "http://127.0.0.1:9", "--port", str(taken.getsockname()[1])),
            capture_output=True,
            text=True,
            env=environment(),
            timeout=WAIT,
            check=False,
        )
    assert done.returncode == 1
    assert "remedy" in done.stderr
