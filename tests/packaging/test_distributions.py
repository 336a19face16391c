"""What is published: the sdist, the wheel of it, and what an installed wheel does without the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import httpx2
import pytest

from tcd.config import TOML
from tests.conftest import ROOT
from tests.e2e.stack import serving
from tests.packaging.conftest import build

PROJECT = TOML.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(python: Path, *arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    env = {**{k: v for k, v in os.environ.items() if not k.startswith(("TCD_", "PYTHON"))}, **more}
    return subprocess.run(
        [str(python), *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def checkout() -> list[str]:
    """The files that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_the_wheel_is_reproducible(wheel: Path, tmp_path: Path) -> None:
    """From the checkout, elsewhere and later, as from the sdist: the same bytes."""
    (again,) = build(ROOT, tmp_path, "wheel")
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_the_sdist_has_the_sources_and_nothing_else(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - set(checkout()) <= {"PKG-INFO"}
    assert {"LICENSE", "constraints.txt", "Makefile", "hatch_build.py", "docs/index.md", "tests/conftest.py"} <= names
    assert not [name for name in names if re.search(r"(^|/)(\.venv|out|dist|shared)/|__pycache__", name)]


def test_the_wheel_has_what_runs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"tcd-{PROJECT['version']}.dist-info/METADATA").decode()
    for package in ("tcd", "sidecar_api", "model_repository"):
        files = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*") if path.is_file()}
        files = {name for name in files if "__pycache__" not in name and ".build-" not in name}
        assert files - names == set()
    assert {"tcd/py.typed", "sidecar_api/py.typed", f"tcd-{PROJECT['version']}.dist-info/licenses/LICENSE"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "docker/"))]
    assert set(re.findall(r"(?m)^Provides-Extra: (.+)$", metadata)) == set(PROJECT["optional-dependencies"])


def test_the_version_stands_in_one_place() -> None:
    version = re.escape(PROJECT["version"])
    code = [ROOT / name for name in checkout() if name.endswith(".py") and not name.startswith("tests/")]
    assert not [path for path in code if re.search(rf"[\"']{version}[\"']", path.read_text())]


def test_an_installed_wheel_is_what_is_imported(installed: Path, tmp_path: Path) -> None:
    done = run(
        installed, "-c", "import tcd, sidecar_api, model_repository, tcd.native; print(tcd.__file__, tcd.__version__)",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    place, version = done.stdout.split()
    assert Path(place).is_relative_to(installed.parents[1])
    assert version == PROJECT["version"]


def test_importing_tcd_is_light(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "-X", "importtime", "-c", "import tcd, sys; print(sorted(sys.modules))", cwd=tmp_path)
    heavy = {"torch", "numpy", "fastapi", "pydantic", "tritonclient", "cryptography", "prometheus_client", "grpc"}
    assert done.returncode == 0, done.stderr
    assert not heavy & {name.strip("',[]\n").partition(".")[0] for name in done.stdout.split()}


def test_types_are_seen_from_outside(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text("from tcd.receipts import verify_single\n\nreveal_type(verify_single)\n")
    site = next((installed.parents[1] / "lib").glob("python*/site-packages"))
    done = run(
        Path(sys.executable), "-m", "mypy", "--strict", "--python-executable", str(installed), "user.py", cwd=tmp_path
    )  # fmt: skip
    assert site.is_dir()
    assert 'Revealed type is "def (' in done.stdout, done.stdout
    assert "import-untyped" not in done.stdout


@pytest.mark.triton
def test_an_installed_wheel_serves(installed: Path, tmp_path: Path) -> None:
    """The servers, a receipt and its verification, with the model repository of the wheel."""
    with serving(tmp_path, python=installed) as stack:
        body = {"session": "wheel", "trace_vector": [-0.5]}
        (tmp_path / "answer.json").write_bytes(httpx2.post(f"{stack.shim}/diagnose", json=body, timeout=60).content)
        (tmp_path / "keyset.json").write_bytes(httpx2.get(f"{stack.shim}/v1/log/keys", timeout=60).content)
    command = ("-m", "tcd.cli.main", "verify", "receipt", "answer.json", "--keyset", "keyset.json")
    done = run(installed, *command, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str, installed: Path, tmp_path: Path) -> None:
    """The script that a shell sources, and what it then gets for a word that was begun."""
    tcd = installed.parent / "tcd"
    # the shell that is asked for, not the one that the tests were started from
    done = run(tcd, "--show-completion", shell, cwd=tmp_path, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    assert "_TCD_COMPLETE" in done.stdout
    words = {"COMP_WORDS": "tcd ver", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "tcd ver"}
    env = {**os.environ, **words, "_TCD_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    found = subprocess.run([str(tcd)], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert "verify" in found.stdout
