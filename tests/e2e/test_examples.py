"""Every console example of the README and the documentation runs as it stands, against a real stack."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import shell
from tests.e2e.stack import Stack

pytestmark = pytest.mark.triton

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, block in enumerate(re.findall(r"(?ms)^```console\n(.*?)^```", page.read_text())):
            script = re.sub(r"(?m)^\$ ", "", block)
            yield f"{page.name}-{number}", script


EXAMPLES = dict(examples())


def test_there_are_examples() -> None:
    assert {"README.md", "tensors.md", "http.md"} <= {name.rpartition("-")[0] for name in EXAMPLES}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, stack: Stack, tmp_path: Path) -> None:
    script = EXAMPLES[name].replace("http://127.0.0.1:8080", stack.shim)
    script = script.replace("http://127.0.0.1:8000", stack.triton).replace(
        "http://127.0.0.1:8002/metrics", stack.triton_metrics
    )
    done = shell.run(script, tmp_path, timeout=300)
    if "tcd doctor" in script:
        # the demonstration calibration is a warning, a port that is in use here may be a failure
        assert done.returncode in {0, 1, 2}
        assert "guarantee" in done.stdout
        return
    assert done.returncode == 0, done.stderr
    if "tcd config" in script:
        assert "alpha = 0.01  # env TCD_ALPHA" in done.stdout
        assert 'mode = "monitor"  # file tcd.toml' in done.stdout
        return
    if "/metrics" in script:
        assert re.search(r"(?m)^(tcd|nv)_\w+", done.stdout), done.stdout
        return
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    expected = {
        "/v1/settle": "verdict",
        "/v1/log/proof": "ok",
        "/v1/rewrite": "body_rewritten",
        "/verify": "ok",
        "/v2/models": "outputs",
        "tcd replay": "first_differing",
        "/diagnose": "verdict",
        "/version": "version",
    }
    member = next(member for path, member in expected.items() if path in script)
    assert member in answer, answer
    if member == "body_rewritten":
        assert answer["body_rewritten"] is True, answer
        assert answer["zones_marked"] == 1, answer
    if member == "ok":
        assert answer["ok"] is True, answer
