"""docs/admin.md as it stands, with `tcd serve`, two operators and the offline audit of what they did."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import serving

pytestmark = pytest.mark.triton

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "admin.md").read_text()
SCRIPT = "\n".join(re.findall(r"(?ms)^```console-admin\n(.*?)^```", PAGE))
POLICY = '[[policy]]\nname = "base"\nversion = 1\n'


def test_the_page(tmp_path: Path) -> None:
    place = tmp_path / "policies.toml"
    place.write_text(POLICY)
    env = {"TCD_ADMIN_ENABLE": "true", "TCD_ADMIN_PORT": "0", "TCD_POLICIES": str(place)}
    with serving(tmp_path, env=env) as stack:
        log = stack.log.read_text()
        secret = re.search(r"(?m)^bootstrap (tcd-bootstrap-\w+)", log)
        url = re.search(r"(?m)^admin +(http://[^/]+)/admin/v1$", log)
        assert secret is not None
        assert url is not None
        tcd = f'tcd() {{ "{sys.executable}" -m tcd.cli.main "$@"; }}\n'
        script = re.sub(r"(?m)^\$ ", "", SCRIPT)
        script = re.sub(r"tcd admin (enrol|call)", rf"tcd admin \1 --url {url[1]}", script)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", tcd + script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "BOOTSTRAP": secret[1]},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answers = [json.loads(text) for text in re.findall(r"(?ms)^\{\n.*?^\}$", done.stdout)]
        assert [a.get("action") for a in answers] == [
            "principals.enrol", None, None, "policy.put", "policy.put", None, None
        ]  # fmt: skip
        assert answers[4]["actors"] == ["alice", "bob"]
        assert answers[5]["policies"][0]["ref"].startswith("base@2#")
        assert answers[6]["receipts"] == []
        assert answers[6]["indexed"] >= 3
        assert place.read_text() == POLICY.replace("1", "2")
        # a request without a signature changes nothing
        assert secret[1] not in (tmp_path / "data" / "admin" / "principals.json").read_text()
    text = stack.log.read_text()
    assert text.count(secret[1]) == 1
    assert "alice.key" not in text
