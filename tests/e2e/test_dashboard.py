"""The dashboard of `tcd serve` with a real Triton and a SQLite ledger, walked through in a real Chromium."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.browser import browsing, chromium
from tests.e2e.stack import Stack, serving

pytestmark = [pytest.mark.triton, pytest.mark.long]

POLICY = """
[[policy]]
name = "flat"
version = 7
[policy.match]
tenant = "acme"
[policy.detector]
entropy_floor = 0.05
[[policy.decision]]
name = "no-entropy"
when = { floor = true }
action = "block"
cause = "policy"
"""
NAMES = {"tenant": "acme", "user": "u", "session": "s"}


class Tcd:
    """The command, in a folder with the operators' keys."""

    def __init__(self, folder: Path, stack: Stack) -> None:
        self.folder = folder
        log = stack.log.read_text()
        self.url = _found(r"(?m)^admin +(http://[^/]+)/admin/v1$", log)
        self.secret = _found(r"(?m)^bootstrap (tcd-bootstrap-\w+)", log)

    def __call__(self, *arguments: str, url: bool = True, **options: Any) -> str:
        given = [*arguments, *(("--url", self.url) if url else ())]
        done = subprocess.run(
            [sys.executable, "-m", "tcd.cli.main", *given],
            capture_output=True, text=True, timeout=300, check=False, cwd=self.folder, **options,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout).strip()


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, text
    return found[1]


def _decide(stack: Stack) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    with httpx2.Client(base_url=stack.shim, timeout=60.0) as client:
        for step, entropy in enumerate((2.0, 1.5, 0.9, 0.01)):
            body = {"trace_vector": [-1.0] * 16, "entropy": entropy, "step_id": step, **NAMES}
            reply = client.post("/diagnose", json=body)
            assert reply.status_code == 200, reply.text
            answer = reply.json()
    return answer


def test_from_serve_to_a_bundle_that_verifies(tmp_path: Path) -> None:
    if chromium() is None:
        pytest.skip("browser: there is no chromium (apt-get install chromium)")
    (tmp_path / "p.toml").write_text(POLICY)
    env = {"TCD_ADMIN_ENABLE": "true", "TCD_ADMIN_PORT": "0", "TCD_POLICIES": str(tmp_path / "p.toml")}
    with serving(tmp_path, env=env) as stack:
        tcd = Tcd(tmp_path, stack)
        for name in ("alice", "bob"):
            tcd("admin", "keygen", name, "--out", f"{name}.key", url=False)
        tcd("admin", "enrol", "alice.key", "bob.key", "--bootstrap", tcd.secret)
        blocked = _decide(stack)
        assert (blocked["enforced"], blocked["cause"]) == ("block", "policy")
        job = json.loads(tcd("admin", "call", "POST", "/audits", "--key", "alice.key", "--body", "-", input="{}"))
        with browsing(tmp_path / "browser", script=False) as page:
            page.open(tcd("admin", "login", "--key", "alice.key"))
            page.link("Sign in")
            page.link("Why was")
            said = page.text
            assert "a rule of the policy holds (no-entropy" in said, said
            assert blocked["policy_ref"] in said
            assert "entropy floor\tyes\tunder it" in said
            page.link("Download the bundle", loads=False)
            page.link("the keys of this log", loads=False)
            assert page.clicks <= 5
            bundle = page.downloaded(f"bundle-{blocked['receipt'][:16]}.json")
            report = tcd(
                "verify", "bundle", str(bundle), "--keyset", str(page.downloaded("keyset.json")), "--json", url=False
            )
            assert json.loads(report)["ok"] is True
            page.link("Receipt of this step")
            assert "verified" in page.text
            assert "failed" not in page.text
            page.open(f"{tcd.url}/ui/jobs/{job['result']['id']}")
            until = time.monotonic() + 120
            while "running" in page.run("document.querySelector('h2 .chip').textContent"):
                assert time.monotonic() < until
                page.link("Look again")
            assert page.run("document.querySelector('h2 .chip').textContent") == "done"
            page.link(".html")
            assert "verif" in page.text.lower()
            assert page.run("document.scripts.length") == 0
            assert page.errors == []
            page.open(f"{tcd.url}/ui/health")
            assert "Durable." in page.text
