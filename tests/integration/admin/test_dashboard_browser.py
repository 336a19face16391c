"""The dashboard in a real Chromium, with JavaScript switched off: five clicks at most to the answer and its proof."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Page, browsing, chromium
from tests.integration.admin.axe import AXE, violations
from tests.integration.admin.stage import BLOCKED, HOSTILE, Threaded


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    if chromium() is None:
        pytest.skip("browser: there is no chromium (apt-get install chromium)")
    with browsing(tmp_path / "browser", script=False) as made:
        yield made


def sign_in(stage: Threaded, page: Page, key: Path | None = None) -> None:
    """As people do: `tcd admin login` prints an address, the browser opens it, a click sends the form."""
    if key is None:
        address = stage.do(stage.stage.login())
    else:
        command = [sys.executable, "-m", "tcd.cli.main", "admin", "login", "--key", str(key), "--url", stage.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        address = done.stdout.strip()
    page.open(address)
    page.link("Sign in")
    assert page.run("location.pathname") == "/ui/"


def test_why_was_a_session_blocked_in_five_clicks_with_a_bundle_that_verifies_offline(
    stage: Threaded, page: Page, tmp_path: Path
) -> None:
    key = tmp_path / "alice.key"
    stage.stage.alice.save(key)
    sign_in(stage, page, key)
    page.link("Why was")
    said = page.text
    assert "Why was this session blocked?" in said
    assert "the anytime-valid test rejected the hypothesis" in said
    assert stage.stage.blocked["policy_ref"] in said
    assert "rejected at step" in str(page.run("document.querySelector('svg').textContent"))
    page.link("Download the bundle", loads=False)
    page.link("the keys of this log", loads=False)
    clicks = page.clicks
    assert clicks <= 5, clicks
    head = stage.stage.blocked["receipt"]
    bundle, keys = page.downloaded(f"bundle-{head[:16]}.json"), page.downloaded("keyset.json")
    command = [sys.executable, "-m", "tcd.cli.main", "verify", "bundle", str(bundle), "--keyset", str(keys), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    bad = tmp_path / "bad.json"
    bad.write_bytes(bundle.read_bytes().replace(b"block", b"allow", 1))
    command[5] = str(bad)
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode == 1
    # nothing was asked of anybody else, and the browser had nothing to complain of
    assert [url for url in page.requests if not url.startswith((stage.url, "data:"))] == []
    assert page.errors == []


def test_by_keys_alone(stage: Threaded, page: Page) -> None:
    sign_in(stage, page)
    page.open(f"{stage.url}/ui/")
    page.key("Tab", 9)
    assert page.run("document.activeElement.textContent") == "Skip to the content"
    box = page.run("document.activeElement.getBoundingClientRect().top")
    assert box >= 0, "the skip link does not show"
    outline = page.run(
        "getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth"
    )
    assert outline == "solid3px"
    page.key("Enter", 13)
    assert page.run("document.activeElement.id") == "main"
    for _ in range(30):
        page.key("Tab", 9)
        if page.run("document.activeElement.matches('a[href*=sessions]')"):
            break
    page.key("Enter", 13, loads=True)
    assert "/ui/sessions/" in page.run("location.pathname")
    # by its names, typed
    page.open(f"{stage.url}/ui/")
    for name, text in BLOCKED.items():
        page.run(f"document.getElementById('{name}').focus()")
        page.type(text)
    page.key("Enter", 13, loads=True)
    assert "Why was this session blocked?" in page.text


def test_a_narrow_window_scrolls_tables_and_not_the_page(stage: Threaded, page: Page) -> None:
    sign_in(stage, page)
    page.look(width=320, height=640)
    for path in ("", "receipts", "triggers", "scores", "budgets", "health"):
        page.open(f"{stage.url}/ui/{path}")
        assert page.run("document.documentElement.scrollWidth") <= 320, path


def test_hostile_names_run_nothing_where_scripts_may_run(stage: Threaded, tmp_path: Path) -> None:
    if chromium() is None:
        pytest.skip("browser: there is no chromium (apt-get install chromium)")
    with browsing(tmp_path / "browser") as page:
        sign_in(stage, page)
        page.open(f"{stage.url}/ui/budgets")
        assert HOSTILE[:100] in page.text
        page.link("<script>")
        assert HOSTILE[:100] in page.text
        # no image, no script, no dialog: a dialog would have stopped the page
        assert page.run("document.images.length + document.scripts.length") == 0
        # the policy of the page stops what a hole would let in
        ran = page.run(
            "(() => { const s = document.createElement('script'); s.textContent = 'window.hole = 1';"
            "document.body.append(s); return window.hole || 0 })()"
        )
        assert ran == 0
        assert any("Content Security Policy" in error for error in page.errors)


@pytest.mark.long
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(stage: Threaded, tmp_path: Path, *, dark: bool) -> None:
    """axe-core with WCAG 2.2 A and AA and its best practices on every page, contrast included."""
    if chromium() is None:
        pytest.skip("browser: there is no chromium (apt-get install chromium)")
    source = AXE.fetch(tmp_path)
    head, subject = stage.stage.blocked["receipt"], stage.stage.app.runtime.service.subjects.subject(*BLOCKED.values())
    paths = ["", "receipts", f"receipts/{head}", f"sessions/{subject}", "triggers", "scores", "budgets"]
    paths += ["budgets?tenant=acme", "jobs", "approvals", "health", "login", "nothing"]
    with browsing(tmp_path / "browser") as page:
        sign_in(stage, page)
        found = {}
        for width in (1280, 360):
            page.look(width=width, dark=dark)
            for path in paths:
                page.open(f"{stage.url}/ui/{path}")
                if wrong := violations(page, source):
                    found[path, width] = wrong
    assert found == {}
