"""The site of the documentation: every page is in it; `make docs` builds it strictly in CI."""

from __future__ import annotations

from typing import Any

from tcd.config import TOML
from tests.conftest import ROOT


def pages(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]


def test_every_page_is_in_the_site_once() -> None:
    nav = TOML.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    docs = ROOT / "docs"
    there = [path.relative_to(docs) for path in docs.rglob("*.md")]
    # reports are linked where their figures are used, the vectors are for programs
    there = [path for path in there if path.parts[0] not in {"reports", "verifier"}]
    assert sorted(pages(nav)) == sorted(map(str, there))
