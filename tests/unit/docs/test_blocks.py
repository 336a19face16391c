"""Every block of the documentation with commands is run by a test, or is named here with the reason why it is not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.unit.docs.test_commands import PAGES

#: Kinds of blocks, and who runs each of the pages that have one.
RUN = {
    "console": ("tests/e2e/test_examples.py", "tests/e2e/test_howto.py"),
    "console-node": ("tests/e2e/test_howto.py",),
    "console-serve": ("tests/e2e/test_howto.py",),
    "console-admin": ("tests/e2e/test_admin.py",),
    "console-store": ("tests/e2e/test_pages.py",),
    "console-postgres": ("tests/e2e/test_pages.py",),
    "console-witness": ("tests/e2e/test_pages.py",),
    "console-calibration": ("tests/e2e/test_pages.py",),
    "python": ("tests/e2e/test_python_examples.py",),
}
_CLUSTER = "needs a cluster: tests/containers runs the chart's pods without one"
_DOCKER = "needs docker: make containers builds the same files with buildah and runs them as hardened"
_SERVE = "make serve is what tests/benchmarks/bench_first_minutes.py runs in a fresh clone"
#: Page and beginning of a block that no test runs as it stands, and what comes nearest.
NOT_RUN = {
    ("README.md", "make serve"): _SERVE,
    ("docs/index.md", "make serve"): _SERVE,
    ("README.md", "make demo"): "tests/e2e/test_demo.py runs tcd demo",
    ("docs/calibration.md", "tcd calibrate fit"): "docs/howto/calibrate.md runs these on a log that it makes",
    ("docs/client.md", "vllm serve"): "needs vLLM: tests/unit/client/test_vllm.py calls the processor as vLLM does",
    ("docs/containers.md", "docker build -f docker/Dockerfile.shim"): _DOCKER,
    ("docs/containers.md", "docker run --read-only"): _DOCKER,
    ("docs/containers.md", "docker build -f docker/Dockerfile.demo"): _DOCKER,
    ("docs/containers.md", "cp docker/compose.env.example"): _DOCKER,
    ("docs/containers.md", "kubectl create secret"): _CLUSTER,
    ("docs/containers.md", "helm upgrade"): _CLUSTER,
    (
        "docs/dashboard.md",
        "$ tcd verify bundle",
    ): "a file from the dashboard: tests/e2e/test_dashboard.py downloads one",
    ("docs/howto/calibrate.md", "tcd serve"): "tests/e2e/test_howto.py serves what the page made",
    ("docs/howto/triton-llm.md", "tcd triton"): "tests/e2e/test_howto.py starts it on free ports",
    (
        "docs/operations.md",
        "pip install 'tcd[postgres]'",
    ): "a database server of yours: tests/scaleout starts shims on one",
    ("docs/policies.md", "TCD_POLICIES=policies/"): "tests/e2e/test_admin.py serves with a bundle",
    ("docs/policies.md", "$ tcd policy diff"): "a decision log of yours: tests/unit/cli/test_policy.py has one",
    (
        "docs/proxy.md",
        "python -m tcd.demo.openai_api",
    ): "the demo's LLM: tests/e2e/test_proxy.py puts the proxy before one",
    ("docs/verifier/vectors/README.md", "tcd conformance"): "tests/unit/receipts holds every verifier to the vectors",
}
_COMMAND = re.compile(
    r"(?m)^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:tcd|make|curl|docker|helm|kubectl|vllm|pip|duckdb|cp|python3?) [\w./-]"
)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Kind and text of fenced and indented blocks that have commands; those of output are not."""
    text = page.read_text()
    fence = r"(?ms)^( *)```([^\n]*)\n(.*?)^ *```$"
    for indent, kind, body in re.findall(fence, text):
        # a block inside a list is not found by who runs blocks
        yield ("indented" if indent else kind), body.strip()
    for body in re.findall(r"(?m)(?:^    \S.*\n)+", re.sub(fence, "", text)):
        yield "indented", body.strip()


def unknown(page: Path, name: str) -> list[str]:
    """Blocks that nobody answers for."""
    found = []
    for kind, body in blocks(page):
        if kind in RUN or kind in {"output", "python-model"} or not _COMMAND.search(body):
            continue
        if not any(page_name == name and body.startswith(start) for page_name, start in NOT_RUN):
            found.append(body)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_of_commands_is_run_or_named(page: Path) -> None:
    assert unknown(page, str(page.relative_to(ROOT))) == []


def test_what_is_named_is_there_and_says_where() -> None:
    for (name, start), reason in NOT_RUN.items():
        assert any(body.startswith(start) for _, body in blocks(ROOT / name)), (name, start)
        for place in re.findall(r"(?:tests|docs)/[\w./]*\w", reason):
            assert (ROOT / place).exists(), place


def test_a_block_that_is_not_run_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```\n$ tcd serve --port 1\n```\n\n    curl http://127.0.0.1\n\n```console\n$ tcd doctor\n```\n")
    assert unknown(page, "page.md") == ["$ tcd serve --port 1", "curl http://127.0.0.1"]


def test_who_runs_a_kind_reads_it() -> None:
    """Pages with a kind that belongs to some pages only are named by who runs them."""
    for page in PAGES:
        for kind, _ in blocks(page):
            if kind not in RUN or kind in {"console", "python"} or page.parent.name == "howto":
                continue
            (reader,) = RUN[kind]
            assert f'"{page.name}"' in (ROOT / reader).read_text(), (page, kind)
