"""Images of this checkout, built once a run; `make containers` brings the tools."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import ROOT
from tests.containers.engine import PLACE, Engine, missing


@dataclass(frozen=True)
class Images:
    """Names of what was built."""

    engine: Engine
    shim: str
    triton: str


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if missing():
        pytest.skip(f"container: `make containers` installs {', '.join(missing())}")
    made = Engine()
    made.store.mkdir(parents=True, exist_ok=True)
    yield made
    made.podman("rm", "-f", "-a", check=False)
    (PLACE / "times.txt").write_text(
        "".join(
            f"{name}\t{seconds:.0f} s\t{made.size(name) / 1e6:.0f} MB\n" for name, seconds in sorted(made.times.items())
        )
    )
    sys.stdout.write(f"\n{(PLACE / 'times.txt').read_text()}")


@pytest.fixture(scope="session")
def images(engine: Engine) -> Images:
    base = engine.base()
    # a clean context: what git knows, nothing that was built beside it
    names = {}
    for part, args in (
        ("shim", {}),
        ("triton", {"EXTRAS": "fast server", "WITHOUT": "--without torch"}),
    ):
        names[part] = f"localhost/tcd-test/{part}:latest"
        if os.environ.get("TCD_CONTAINERS_KEEP") and engine.has(names[part]):
            continue
        engine.build(names[part], ROOT / "docker" / f"Dockerfile.{part}", ROOT, BASE=base, **args)
    return Images(engine, names["shim"], names["triton"])


@pytest.fixture
def tmp_volume(engine: Engine) -> Iterator[str]:
    name = "tcd-test-volume"
    engine.podman("volume", "rm", "-f", name, check=False)
    engine.podman("volume", "create", name)
    yield name
    engine.podman("volume", "rm", "-f", name, check=False)


def pytest_configure(config: pytest.Config) -> None:
    del config
    shutil.rmtree(PLACE / "work", ignore_errors=True)
