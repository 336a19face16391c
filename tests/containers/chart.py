"""The chart of `docker/helm`, rendered."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.containers.engine import HELM

CHART = ROOT / "docker" / "helm" / "tcd"


def helm(*args: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    if not HELM.exists():
        pytest.skip("container: `make containers` brings helm")
    return subprocess.run([str(HELM), *args], capture_output=True, check=check)


def render(mode: str, *settings: str) -> list[dict[str, Any]]:
    values = [
        part
        for setting in (f"mode={mode}", *settings)
        for part in ("--set-string" if "ALPHA" in setting else "--set", setting)
    ]
    text = helm("template", "rel", str(CHART), *values).stdout.decode()
    return [document for document in yaml.safe_load_all(text) if document]
