"""The how-to pages, command by command: what they print is what the pages say that they print."""

from __future__ import annotations

import json
import lzma
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.conftest import ROOT
from tests.e2e import shell
from tests.e2e.stack import serving
from tests.upgrade.make import STORES
from tests.upgrade.old import FOREVER, SEED

pytestmark = pytest.mark.triton
HOWTO = ROOT / "docs" / "howto"
_BLOCKS = re.compile(r"(?ms)^```(console|console-node|output)\n(.*?)^```$")
_MARK = "@@ block"


def commands(page: str) -> list[tuple[str, str]]:
    """Each block of commands and the output that the page shows below it; empty where it shows none."""
    blocks: list[tuple[str, str]] = []
    for kind, text in _BLOCKS.findall((HOWTO / page).read_text()):
        if kind == "output":
            blocks[-1] = (blocks[-1][0], text)
        else:
            blocks.append((re.sub(r"(?m)^\$ ", "", text), ""))
    return blocks


def check(shown: str, printed: str) -> None:
    """Every line that is shown was printed, in this order; `…` stands for anything, alone for any number of lines."""
    parts = [re.escape(line).replace("…", ".*") for line in shown.splitlines()]
    pattern = r"\n".join("(?:.*\n)*?.*" if part == ".*" else part for part in parts)
    assert re.search(rf"(?m)^{pattern}$", printed), f"shown:\n{shown}\nprinted:\n{printed}"


def run(page: str, place: Path, *, shim: str = "", triton: str = "", part: slice = slice(None), **env: str) -> None:
    """All commands of a page, or a part of its blocks, in one shell and directory."""
    blocks = commands(page)[part]
    assert blocks
    script = f"\necho '{_MARK}'\n".join(text for text, _ in blocks)
    script = script.replace("http://127.0.0.1:8080", shim).replace("http://127.0.0.1:8000", triton)
    done = shell.run(script, place, timeout=300, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    for (_, shown), printed in zip(blocks, done.stdout.split(f"{_MARK}\n"), strict=True):
        if shown:
            check(shown, printed)


def test_each_page_is_tested_here() -> None:
    source = Path(__file__).read_text()
    # other-servers.md is one of test_python_examples
    named = {page.name for page in HOWTO.glob("*.md")} - {"other-servers.md"}
    assert not [name for name in named if f'"{name}"' not in source]


@pytest.mark.parametrize("page", ["alpha.md", "rotate-keys.md"])
def test_without_a_server(page: str, tmp_path: Path) -> None:
    run(page, tmp_path)


def test_verify(tmp_path: Path) -> None:
    work, log = tmp_path / "work", tmp_path / "log"
    work.mkdir()
    shutil.copy(ROOT / "docs" / "verifier" / "verify.mjs", work)
    with serving(tmp_path, env={"TCD_LOG_DIR": str(log), "TCD_LOG_INTERVAL_S": "0.2"}) as stack:
        run("verify.md", work, shim=stack.shim, LOG_DIR=str(log))


def test_upgrade(tmp_path: Path) -> None:
    """Of the oldest store that is kept, which its server left when it was killed."""
    kept, data, work = STORES / "sqlite-1", tmp_path / "data", tmp_path / "work"
    data.mkdir()
    work.mkdir()
    (data / "ledger.sqlite").write_bytes(lzma.decompress((kept / "store.sqlite.xz").read_bytes()))
    answered = json.loads(lzma.decompress((kept / "answers.json.xz").read_bytes()))["answered"][0]
    (work / "request.json").write_text(json.dumps(answered["request"]))
    (work / "answer.json").write_text(answered["answer"])
    settings = {"TCD_ATTEST_SK_HEX": SEED, "TCD_IDEMPOTENCY_TTL_S": FOREVER, "TCD_ALPHA": "0.9"}
    at = {"DATA_DIR": str(data)}
    run("upgrade.md", work, part=slice(2), **at, **settings)
    assert (tmp_path / "data.before" / "ledger.sqlite").is_file()
    with serving(tmp_path, "--data-dir", str(data), env=settings) as stack:
        run("upgrade.md", work, part=slice(2, None), shim=stack.shim, **at)


def test_a_calibrated_server_makes_the_claim(tmp_path: Path) -> None:
    """What calibrate.md ends with."""
    run("calibrate.md", tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 0
    with serving(tmp_path, "--assets", str(tmp_path / "live")) as stack:
        window = {"window": "full", "trace_vector": [-0.5] * 32, "entropy_window": [1.0] * 32}
        full = {"spectrum": [8.0 - 0.2 * i for i in range(32)], "feature_window": [[0.1 * i] * 16 for i in range(32)]}
        body = {"session": "s", "model_id": "my-model", "tokens_delta": 32, **window, **full}
        answer = httpx2.post(f"{stack.shim}/diagnose", json=body, timeout=60).json()
    assert answer["guarantee"].startswith("supfdr<=0.05"), answer["guarantee"]


def test_triton_llm(tmp_path: Path) -> None:
    page = (HOWTO / "triton-llm.md").read_text()
    model = tmp_path / "models" / "guarded"
    (model / "1").mkdir(parents=True)
    for kind, place in (("python-model", model / "1" / "model.py"), ("config.pbtxt", model / "config.pbtxt")):
        (text,) = re.findall(rf"(?ms)^```{re.escape(kind)}\n(.*?)^```$", page)
        place.write_text(text)
    command = [sys.executable, "-m", "tcd.cli.main", "triton", "--http-port", "0", "--grpc-port", "0"]
    command += ["--metrics-port", "0", "--repository", str(tmp_path / "models")]
    command += ["--model", "tcd_diagnose", "--model", "guarded"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            said = {line.split()[0]: line.split()[1] for line in (server.stdout.readline() for _ in range(4)) if line}
            run("triton-llm.md", tmp_path, triton=said["http"])
        finally:
            server.send_signal(signal.SIGINT)
