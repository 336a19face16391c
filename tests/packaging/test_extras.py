"""Each extra in an environment of its own, from the package index: what it is for can be imported and `tcd` runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tcd.config import TOML
from tests.conftest import ROOT

#: What somebody who asked for the extra will use.
USES = {
    "": "import sidecar_api.app, tcd.triton.detector",
    "admin": "import sidecar_api.admin.app",
    "bench": "import online_fdr, river, rfc8785, sklearn",
    "calibrate": "import pyarrow, tcd.calibration.heldout, tcd.calibration.logistic",
    "cel": "import cel",
    "client": "from tcd.client import Client",
    "cose": "import tcd.cose",
    "demo": "import tcd.demo.run",
    "fast": "import orjson, nacl.bindings",
    "gpu": "import pynvml",
    "otel": "import tcd.telemetry.otel, opentelemetry.sdk",
    "parquet": "import pyarrow.parquet",
    "postgres": "import tcd.ledger.postgres_connect, tcd.ledger.postgres_schema",
    "proxy": "from tcd.proxy import ProxyMiddleware",
    "server": "import pytriton",
}
#: For who works on tcd itself; `make setup` installs it.
OURS = {"dev", "fuzz"}


def test_each_extra_has_a_use() -> None:
    named = TOML.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(USES) - {""} == set(named) - OURS


#: Downloads and unpacks megabytes on a machine that may be busy: a limit for what hangs, not for what is slow.
_LIMIT = 5400.0


def run(command: list[str], place: Path) -> str:
    """What a command prints.

    Raises:
        AssertionError: it failed; has what it said.
    """
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=_LIMIT, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where wheels that several extras want are downloaded to once; `TCD_TEST_WHEELS` keeps them for the next time."""
    kept = os.environ.get("TCD_TEST_WHEELS")
    return Path(kept) if kept else tmp_path_factory.mktemp("wheels")


@pytest.mark.long
@pytest.mark.parametrize("extra", USES)
def test_extra(extra: str, wheel: Path, wheels: Path, tmp_path: Path) -> None:
    place = tmp_path / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(place)], tmp_path)
    python = str(place / "bin" / "python")
    what = f"{wheel}[{extra}]" if extra else str(wheel)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    pins = ["-q", "-c", str(ROOT / "constraints.txt"), "--find-links", str(wheels)]
    try:
        # this environment's installer, for the new one
        run([*pip, "--python", python, "download", *pins, "-d", str(wheels), what], tmp_path)
        run([*pip, "--python", python, "install", *pins, "--no-index", "--no-compile", what], tmp_path)
        run([*pip, "--python", python, "check"], tmp_path)
        run([python, "-c", USES[extra]], tmp_path)
        assert "Usage" in run([str(place / "bin/tcd"), "--help"], tmp_path)
    finally:
        shutil.rmtree(place)
