"""Each pinned dependency has a wheel for the Python of Triton's own images, which cannot be pulled everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PINS = ROOT / "constraints.txt"


@pytest.mark.long
def test_every_pin_has_a_wheel_for_python_3_12(tmp_path: Path) -> None:
    """nvcr.io/nvidia/tritonserver has 3.12 from 24.11 on."""
    command = [
        *(sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--dry-run", "--no-deps"),
        *("--ignore-installed", "--python-version", "3.12", "--only-binary=:all:", "--target", str(tmp_path / "x")),
        *("-r", str(PINS), "--report", str(tmp_path / "report.json")),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stderr
    found = {item["metadata"]["name"].lower() for item in json.loads((tmp_path / "report.json").read_text())["install"]}
    assert {"torch", "numpy", "tritonclient", "cryptography", "grpcio"} <= found
    assert len(found) > 80
