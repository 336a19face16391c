"""Each extra in an environment of its own, from the package index: what it is for can be imported and `tcd` runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tcd.config import _TOML
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
    "demo": "import tcd.demo.run, tcd.demo.llm",
    "fast": "import orjson, nacl.bindings",
    "gpu": "import pynvml, tcd.detector.device, cuda.bindings.runtime",
    "otel": "import tcd.telemetry.otel, opentelemetry.sdk",
    "parquet": "import pyarrow.parquet",
    "postgres": "import tcd.ledger.postgres_connect, tcd.ledger.postgres_schema",
    "proxy": "from tcd.proxy import ProxyMiddleware",
    "server": "import pytriton",
}
#: For who works on tcd itself; `make setup` installs it.
OURS = {"dev", "fuzz"}


def test_each_extra_has_a_use() -> None:
    named = _TOML.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(USES) - {""} == set(named) - OURS


@pytest.mark.long
@pytest.mark.parametrize("extra", USES)
def test_extra(extra: str, wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, timeout=300)
    python = str(place / "bin" / "python")
    what = f"{wheel}[{extra}]" if extra else str(wheel)
    try:
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        done = subprocess.run(
            [*install, "-c", str(ROOT / "constraints.txt"), what],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=3600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for command in (
            [python, "-m", "pip", "check"],
            [python, "-c", USES[extra]],
            [str(place / "bin/tcd"), "--help"],
        ):
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, (command, done.stdout, done.stderr)
    finally:
        shutil.rmtree(place)
