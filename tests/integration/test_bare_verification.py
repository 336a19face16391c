"""A receipt made now verifies where there is nothing but a verifier and the public key set: no network, no checkout.

A root directory with an interpreter, its libraries and the packages that verifying takes; no orjson, no shim, no keys
but the pinned public ones. It is entered in new namespaces without a network, and by podman where that runs.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tcd.receipts import KeySet
from tests.unit.receipts.conftest import Session
from tests.unit.receipts.simulator import LogSimulator

ROOT = Path(__file__).resolve().parents[2]
#: What `tcd verify` imports beside the standard library.
PACKAGES = (
    *("cryptography", "cffi", "numpy", "typer", "shellingham", "annotated-doc", "msgspec", "pydantic"),
    *(
        "pydantic-settings",
        "pydantic_core",
        "annotated-types",
        "typing-inspection",
        "typing_extensions",
        "python-dotenv",
    ),
)
_UNUSED = shutil.ignore_patterns("test", "tests", "__pycache__", "idlelib", "tkinter", "ensurepip", "site-packages")


def libraries(binaries: Iterable[Path]) -> set[Path]:
    """Shared libraries that binaries load, by the loader's own account."""
    done = subprocess.run(["ldd", *map(str, binaries)], capture_output=True, text=True, check=False)
    return {Path(found) for found in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE)}


class Bare:
    """A root directory and how it is entered."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.python = Path(os.path.realpath(sys.executable))
        self.node = Path(os.path.realpath(shutil.which("node") or "/none"))
        stdlib = Path(sysconfig.get_path("stdlib"))
        self.copy_tree(stdlib, stdlib)
        binaries = [self.python, self.node, *stdlib.glob("lib-dynload/*.so")]
        for name in PACKAGES:
            self.install(name)
        binaries += (root / "app").rglob("*.so*")
        for path in {self.python, self.node, *libraries(binaries)}:
            self.copy(path)
        self.copy_tree(ROOT / "tcd", Path("/app/tcd"))
        shutil.copy(ROOT / "docs" / "verifier" / "verify.mjs", root / "app")
        (root / "work").mkdir()

    def inside(self, path: Path) -> Path:
        return self.root / path.relative_to("/")

    def copy(self, path: Path) -> None:
        target = self.inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)

    def copy_tree(self, source: Path, target: Path) -> None:
        shutil.copytree(source, self.inside(target), ignore=_UNUSED, dirs_exist_ok=True)

    def install(self, name: str) -> None:
        """The files of an installed package, without its dependencies."""
        for file in importlib.metadata.files(name) or ():
            parts = file.parts
            if ".." in parts or "tests" in parts or file.suffix in {".pyc", ".pyi"}:
                continue
            target = self.root / "app" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.locate(), target)

    def command(self, way: str, command: list[str]) -> list[str]:
        if way == "podman":
            options = ["--network", "none", "--read-only", "--workdir", "/work", "--env", "PYTHONPATH=/app"]
            # below whatever limits this machine has: raising them may be forbidden
            options += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
            return ["podman", "run", "--rm", *options, "--rootfs", str(self.root), *command]
        entered = ["unshare", "--user", "--map-root-user", "--net", "--ipc", "--uts", "chroot", str(self.root)]
        return [*entered, *command]

    def run(self, way: str, *command: str) -> subprocess.CompletedProcess[str]:
        chosen = {"python": [str(self.python), "-s", "-B"], "node": [str(self.node)]}[command[0]]
        whole = self.command(way, [*chosen, *command[1:]])
        # podman looks for its own configuration
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": "/app", **({"HOME": "/root"} if way == "podman" else {})}
        return subprocess.run(whole, env=env, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Bare:
    return Bare(tmp_path_factory.mktemp("bare"))


@pytest.fixture(params=["namespaces", "podman"])
def way(request: pytest.FixtureRequest, bare: Bare) -> str:
    """A way in that this machine has."""
    chosen: str = request.param
    if shutil.which({"podman": "podman"}.get(chosen, "unshare")) is None:
        pytest.skip(f"container: no {chosen} here")
    tried = bare.run(chosen, "python", "-c", "print(1)")
    if tried.returncode:
        pytest.skip(f"container: {chosen} cannot be entered here: {tried.stderr.strip()[-120:]}")
    return chosen


def evidence(folder: Path) -> list[dict[str, Any]]:
    """What an auditor is given: receipts with proofs, and the public key set."""
    session = Session()
    session.open()
    session.decision()
    session.close()
    log = LogSimulator(witnesses=0)
    log.add(session.receipts)
    # a verifier without ML-DSA reads such a key set too
    (folder / "keys.json").write_text(json.dumps(KeySet([session.issuer.pinned(), *log.pinned()]).to_json()))
    answers = [
        {
            "receipt": r.head_hex,
            "receipt_body": r.body_text,
            "receipt_sig": r.sig_hex,
            "proof": log.proof(number).decode(),
        }
        for number, r in enumerate(session.receipts)
    ]
    (folder / "chain.json").write_text(json.dumps(answers))
    (folder / "answer.json").write_text(json.dumps(answers[1]))
    changed = {**answers[1], "receipt_body": answers[1]["receipt_body"].replace('"acme"', '"acmf"')}
    (folder / "changed.json").write_text(json.dumps(changed))
    (folder / "changed_chain.json").write_text(json.dumps([answers[0], changed]))
    return answers


LOOK = """
import json, socket, sys
try:
    socket.create_connection(("192.0.2.1", 9), timeout=2)
    reached = True
except OSError:
    reached = False
import tcd.receipts.fast
print(json.dumps([reached, "orjson" in sys.modules, tcd.__file__]))
"""


def test_it_verifies_with_only_the_public_key_set(bare: Bare, way: str) -> None:
    evidence(bare.root / "work")
    looked = bare.run(way, "python", "-c", LOOK)
    assert json.loads(looked.stdout) == [False, False, "/app/tcd/__init__.py"], looked.stderr
    for kind, file, expected in (
        ("receipt", "answer.json", (0, True, "ok")),
        ("chain", "chain.json", (0, True, "ok")),
        ("receipt", "changed.json", (1, False, "head_mismatch")),
    ):
        options = ("--keyset", "/work/keys.json", "--json")
        done = bare.run(way, "python", "-m", "tcd.cli.main", "verify", kind, f"/work/{file}", *options)
        found = json.loads(done.stdout or "{}")
        assert (done.returncode, found.get("ok"), found.get("code")) == expected, done.stderr


def test_the_second_verifier_does_too(bare: Bare, way: str) -> None:
    records = len(evidence(bare.root / "work"))
    good = bare.run(way, "node", "/app/verify.mjs", "/work/keys.json", "/work/chain.json")
    assert (good.returncode, json.loads(good.stdout or "{}")) == (0, {"ok": True, "code": "ok", "records": records})
    bad = bare.run(way, "node", "/app/verify.mjs", "/work/keys.json", "/work/changed_chain.json")
    assert (bad.returncode, json.loads(bad.stdout or "{}").get("code")) == (1, "head_mismatch"), bad.stderr
