"""buildah and podman, with a storage of their own under `build/`, and the images that the tests run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

TOOLS = ("buildah", "podman", "runc", "mmdebstrap", "iptables", "podman-compose")
#: Where everything is that a test of containers leaves.
PLACE = Path(os.environ.get("TCD_CONTAINERS_DIR", ROOT / "build" / "containers"))
HELM = PLACE / "tools" / "helm" / "helm"
_HERE = Path(__file__).parent
_BASE = "localhost/tcd-test/python:bookworm"
#: As an operator would run them.
HARDENED = (
    *("--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--tmpfs", "/tmp", "--no-healthcheck"),  # noqa: S108 - of the container
)


def missing() -> list[str]:
    """What the machine lacks."""
    lacks = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    return lacks + ([] if os.geteuid() == 0 else ["root"])


@dataclass
class Engine:
    """podman and buildah on one storage."""

    store: Path = PLACE / "store"
    times: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def wheels(self) -> Path:
        """Wheels that a build prefers to those of the registry."""
        return self.store / "wheels"

    def wheel(self, requirement: str) -> None:
        """Put one there, as this machine's installer finds it: a CPU build of PyTorch where it knows one."""
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(self.wheels), requirement]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    @property
    def storage(self) -> list[str]:
        """Options that both take before the command."""
        return ["--storage-driver", "overlay", "--root", str(self.store / "root"), "--runroot", str(self.store / "run")]

    @property
    def options(self) -> list[str]:
        """podman's own ones beside."""
        return [*self.storage, "--log-level", "error", "--cgroup-manager", "cgroupfs", "--runtime", "runc"]

    @property
    def environment(self) -> dict[str, str]:
        """Limits that containers have who ask for none: an engine inside a container may not raise its own."""
        conf = self.store / "containers.conf"
        if not conf.exists():
            conf.write_text('[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=1024:1024"]\n')
        return {**os.environ, "CONTAINERS_CONF": str(conf)}

    def podman(self, *args: str, check: bool = True, timeout: float = 300.0) -> str:
        """Standard output of a command.

        Raises:
            AssertionError: it failed, and `check`; has what it said.
        """
        done = subprocess.run(
            ["podman", *self.options, *args], capture_output=True, timeout=timeout, check=False, env=self.environment
        )
        assert not check or done.returncode == 0, f"podman {' '.join(args)}: {done.stderr.decode()[-3000:]}"
        return done.stdout.decode()

    def logs(self, name: str) -> str:
        """What a container said last, on both streams."""
        done = subprocess.run(["podman", *self.options, "logs", "--tail", "30", name], capture_output=True, check=False)
        return (done.stdout + done.stderr).decode()

    def build(self, name: str, dockerfile: Path, context: Path, **args: str) -> None:
        """Build an image; what a build may reach of this machine is its certificates, and the wheels put beside."""
        start = time.monotonic()
        pip = self.store / "pip.conf"
        pip.write_text("[global]\ncert = /etc/pip-ca.crt\nfind-links = /wheels\n")
        self.wheels.mkdir(exist_ok=True)
        options = [part for key, value in args.items() for part in ("--build-arg", f"{key}={value}")]
        done = subprocess.run(
            [
                *(
                    "buildah",
                    *self.storage,
                    "bud",
                    "--format",
                    "docker",
                    "--isolation",
                    "chroot",
                    "-f",
                    str(dockerfile),
                ),
                *("-v", "/etc/ssl/certs/ca-certificates.crt:/etc/pip-ca.crt:ro", "-v", f"{pip}:/etc/pip.conf:ro"),
                *("-v", f"{self.wheels}:/wheels:ro"),
                *("-t", name, *options),
                str(context),
            ],
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stdout.decode()[-2000:]} {done.stderr.decode()[-3000:]}"
        self.times[name] = time.monotonic() - start

    def has(self, image: str) -> bool:
        """Whether an image is in the storage."""
        return bool(self.podman("images", "-q", image).strip())

    def inspect(self, name: str) -> dict[str, Any]:
        """What the engine knows of an image or container."""
        found: dict[str, Any] = json.loads(self.podman("inspect", name))[0]
        return found

    def base(self) -> str:
        """A plain Python image of Debian's packages; kept between runs."""
        if not self.has(_BASE):
            self.store.mkdir(parents=True, exist_ok=True)
            start = time.monotonic()
            context = self.store / "base"
            context.mkdir(exist_ok=True)
            packages = "python3,python3-venv,libpython3.11,ca-certificates"
            subprocess.run(
                ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", "base.tar"],
                cwd=context,
                check=True,
            )
            self.build(_BASE, _HERE / "Dockerfile.base", context)
            shutil.rmtree(context)
            self.times[_BASE] = time.monotonic() - start
        return _BASE

    def helper(self, name: str) -> str:
        """An image that stands in for one of a public registry; kept between runs."""
        image = f"localhost/tcd-test/{name}:bookworm"
        if not self.has(image):
            self.build(image, _HERE / f"Dockerfile.{name}", _HERE, BASE=self.base())
        return image

    def size(self, image: str) -> int:
        """Bytes of an image."""
        return int(self.inspect(image)["Size"])
