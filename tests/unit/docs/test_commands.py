"""What the documentation names is there: commands with their options, make's verbs, settings, files of the repository.

The blocks that are marked as consoles are run elsewhere (`tests/e2e`); this holds for all that is written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tcd.cli.main import app
from tcd.config import Settings
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "reference" not in page.parts and "reports" not in page.parts]
COMMAND: Any = typer.main.get_command(app)
#: Of other programs and of the tests.
FOREIGN = {"TCD_TEST_SKIPS", "TCD_NATIVE", "TCD_CONFIG_PATH", "TCD_SOAK_MINUTES"}


def code(page: Path) -> Iterator[str]:
    """Lines of code blocks, continued ones joined, and what stands between backticks."""
    text = page.read_text()
    for block in re.findall(r"(?ms)^```[^\n]*\n(.*?)^```", text):
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()
    prose = re.sub(r"(?ms)^```.*?^```", "", text)
    yield from re.findall(r"(?m)^    (tcd .*)$", prose)
    yield from (" ".join(inline.split()) for inline in re.findall(r"`([^`]+)`", prose))


def commands(page: Path) -> Iterator[str]:
    for line in code(page):
        found = re.match(r"(?:\$ )?(?:export )?(?:[A-Z_]+=\S+ )*(?:\w+=\$\()?(tcd [a-z].*)", line)
        if found:
            yield re.split(r"\s+#|\||>|&&|;|\)$|\u2026", found[1])[0].strip()


def problem(line: str) -> str:
    """Why a command could not be one; empty when all of its words are known."""
    try:
        words = shlex.split(line)[1:]
    except ValueError:
        words = line.split()[1:]
    node = COMMAND
    while words and hasattr(node, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        # `a|b`, `rotate\|retire`: several at once, told by the first
        known = node.commands.get(name.split("|")[0].rstrip("\\,."))
        if known is None:
            return f"no command {name}"
        node = known
    options = {option for p in node.params for option in (*p.opts, *p.secondary_opts)} | {"--help"}
    unknown = [w for w in words if w.startswith("--") and w.partition("=")[0].rstrip(",.") not in options]
    return f"no option {unknown[0]}" if unknown else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    assert [(line, why) for line in commands(page) if (why := problem(line))] == []


def test_wrong_commands_are_seen() -> None:
    assert problem("tcd serve --no-such-thing") == "no option --no-such-thing"
    assert problem("tcd keys rotat --dir keys") == "no command rotat"
    assert problem("tcd verify receipt answer.json --keyset keyset.json --json") == ""


def test_verbs_of_make_exist() -> None:
    verbs = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    named = {verb for page in PAGES for line in code(page) for verb in re.findall(r"^make ([a-z-]+)", line)}
    assert {"serve", "test", "containers"} <= named <= verbs


def test_settings_exist() -> None:
    known = {f"TCD_{name.upper()}" for name in Settings.model_fields} | FOREIGN
    named = {name for page in PAGES for line in code(page) for name in re.findall(r"\bTCD_[A-Z0-9_]+\b", line)}
    assert {"TCD_ALPHA", "TCD_LEDGER"} <= named
    assert {name for name in named - known if not name.endswith("_")} == set()


def test_files_exist() -> None:
    places = r"(?:tests|tcd|sidecar_api|docker|docs|model_repository)/[\w./-]*\w"
    named = {name for page in PAGES for line in code(page) for name in re.findall(rf"^({places})$", line)}
    assert named
    # `tcd/receipt/v2` and the like separate domains of signatures
    assert {name for name in named if not (ROOT / name).exists() and not re.search(r"/v\d$", name)} == set()
