"""Images of this checkout, built once a run and reported; `make containers` brings the tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.containers.engine import PLACE, Engine, missing
from tests.containers.report import complete, figures, page, write

CONSTRAINTS = ROOT / "constraints.txt"


@dataclass(frozen=True)
class Images:
    """Names of what was built, and the commit it says it is."""

    engine: Engine
    shim: str
    triton: str
    demo: str
    revision: str


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if missing():
        pytest.skip(f"container: `make containers` installs {', '.join(missing())}")
    made = Engine()
    made.store.mkdir(parents=True, exist_ok=True)
    yield made
    made.podman("rm", "-f", "-a", check=False)
    report = figures(made, tests=request.session.testscollected, failed=request.session.testsfailed)
    places = [PLACE / "report"]
    if os.environ.get("TCD_CONTAINERS_REPORT") and complete(report):
        places.append(Path(os.environ["TCD_CONTAINERS_REPORT"]))
    for place in places:
        write(report, place)
    sys.stdout.write(f"\n{page(report)}")


@pytest.fixture(scope="session")
def images(engine: Engine) -> Images:
    base = engine.base()
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    names = {part: f"localhost/tcd-test/{part}:latest" for part in ("shim", "triton", "demo")}
    args = {
        "shim": {},
        "triton": {"EXTRAS": "fast server", "WITHOUT": "--without torch"},
        # what the constraints pin; the weights come from the registry
        "demo": {"TRITON": names["triton"], "PIP_EXTRA_INDEX_URL": ""},
    }
    said = {"BASE": base, "REVISION": revision.decode().strip()}
    for part, name in names.items():
        if os.environ.get("TCD_CONTAINERS_KEEP") and engine.has(name):
            continue
        if part == "demo":
            engine.wheel(next(line for line in CONSTRAINTS.read_text().split() if line.startswith("torch==")))
        engine.build(name, ROOT / "docker" / f"Dockerfile.{part}", ROOT, **said, **args[part])
    return Images(engine, **names, revision=said["REVISION"])


def pytest_configure(config: pytest.Config) -> None:
    del config
    shutil.rmtree(PLACE / "work", ignore_errors=True)
