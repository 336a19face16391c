"""docs/admin.md as it stands, with `tcd serve`, two operators and the offline audit of what they did."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e import shell
from tests.e2e.stack import serving

pytestmark = pytest.mark.triton

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str) -> list[str]:
    """The scripts of a page."""
    return [
        re.sub(r"(?m)^\$ ", "", block)
        for block in re.findall(r"(?ms)^```console-admin\n(.*?)^```", (DOCS / page).read_text())
    ]


def run(script: str, place: Path, *, bootstrap: str, url: str) -> str:
    """What a script prints; `tcd` is this environment's, the admin plane the one at `url`."""
    script = re.sub(r"tcd admin (enrol|call|approve|refuse|login)", rf"tcd admin \1 --url {url}", script)
    done = shell.run(script, place, timeout=300, env={"BOOTSTRAP": bootstrap})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answers_in(printed: str) -> list[dict[str, Any]]:
    return [json.loads(text) for text in re.findall(r"(?ms)^\{\n.*?^\}$", printed)]


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
        answers = answers_in(run("\n".join(blocks("admin.md")), tmp_path, bootstrap=secret[1], url=url[1]))
        assert [a.get("action") for a in answers] == [
            "principals.enrol", None, None, "policy.put", "policy.put", None, "policy.put", "policy.put.refused", None
        ]  # fmt: skip
        assert answers[4]["actors"] == ["alice", "bob"]
        assert answers[5]["policies"][0]["ref"].startswith("base@2#")
        assert answers[7]["actors"] == ["alice", "bob"]
        assert answers[7]["result"] == {"proposal": answers[6]["id"], "reason": "version 2 is in force"}
        assert answers[8]["receipts"] == []
        assert answers[8]["indexed"] >= 4
        assert place.read_text() == POLICY.replace("1", "2")
        # a request without a signature changes nothing
        assert secret[1] not in (tmp_path / "data" / "admin" / "principals.json").read_text()
    text = stack.log.read_text()
    assert text.count(secret[1]) == 1
    assert "alice.key" not in text


def test_the_pages_that_go_on_from_there(tmp_path: Path) -> None:
    """An audit, an erasure that two people want, a way into the dashboard: as their pages have them."""
    with serving(tmp_path, env={"TCD_ADMIN_ENABLE": "true", "TCD_ADMIN_PORT": "0"}) as stack:
        log = stack.log.read_text()
        secret = re.search(r"(?m)^bootstrap (tcd-bootstrap-\w+)", log)
        url = re.search(r"(?m)^admin +(http://[^/]+)/admin/v1$", log)
        assert secret is not None
        assert url is not None
        at = {"bootstrap": secret[1], "url": url[1]}
        run(blocks("admin.md")[0], tmp_path, **at)
        who = {"tenant": "acme", "user": "u1", "session": "s1"}
        httpx2.post(f"{stack.shim}/diagnose", json={**who, "trace_vector": [-0.5]}, timeout=60).raise_for_status()
        (audits,) = blocks("audits.md")
        started = answers_in(run(audits, tmp_path, **at))
        assert started[0]["action"] == "audit.start"
        assert started[1]["jobs"][0]["kind"] == "audit"
        (erasure,) = blocks("admin-operate.md")
        answers = answers_in(run(erasure, tmp_path, **at))
        assert answers[-1]["action"] == "receipts.erase"
        assert answers[-1]["actors"] == ["alice", "bob"]
        (login,) = blocks("dashboard.md")
        printed = run(login, tmp_path, **at)
        assert re.match(rf"{re.escape(url[1])}/ui/login\?code=\w+$", printed.strip())
