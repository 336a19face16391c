"""axe-core, the rules that assistive technology needs (MPL-2.0), fetched by npm for the long tests and pinned."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.browser import Page


@dataclass(frozen=True)
class Package:
    """A package of npm and the digest of its file."""

    name: str
    file: str
    sha256: str

    def fetch(self, folder: Path) -> str:
        """The script."""
        if shutil.which("npm") is None:
            pytest.skip("browser: there is no npm to fetch axe-core with")
        subprocess.run(["npm", "pack", "--silent", self.name], cwd=folder, check=True, timeout=300, capture_output=True)
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as opened:
            member = opened.extractfile(self.file)
            assert member is not None
            content = member.read()
        assert hashlib.sha256(content).hexdigest() == self.sha256
        return content.decode()


AXE = Package(
    "axe-core@4.14.1", "package/axe.min.js", "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
)


def violations(page: Page, source: str) -> list[str]:
    """What axe finds on a page: rule and element."""
    # the protocol evaluates beside the page's own policy
    page.run(source + "; 0")
    said = page.run(
        "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
        ".then(r => JSON.stringify([r.violations, r.passes.length]))"
    )
    found, passed = json.loads(str(said))
    assert passed > 5, "axe looked at nothing"
    return [f"{rule['id']}: {node['target']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]
