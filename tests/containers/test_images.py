"""The images of `docker/`, run as an operator would: read-only, without capabilities, as nobody in particular."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

import tcd
from tests.containers.calls import call, ready, receipt_of, until
from tests.containers.conftest import Images
from tests.containers.engine import HARDENED

pytestmark = pytest.mark.containers


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@dataclass(frozen=True)
class Running:
    """A Triton and a shim in containers on this machine's loopback."""

    images: Images
    url: str
    shim: str
    triton: str

    def restart(self, part: str) -> None:
        self.images.engine.podman("restart", "-t", "30", part)


@pytest.fixture(scope="module")
def running(images: Images) -> Iterator[Running]:
    engine = images.engine
    ports = [free_port() for _ in range(5)]
    host = ("--network", "host")
    engine.podman("volume", "rm", "-f", "tcd-test-ledger", check=False)
    engine.podman("rm", "-f", "tcd-t", "tcd-s", check=False)
    limits = ("--shm-size", "256m", "--memory", "2g", "--pids-limit", "512")
    ports_of_triton = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=False)]
    engine.podman(
        *("run", "-d", "--name", "tcd-t", *host, *HARDENED, *limits, images.triton),
        *("tcd", "triton", "--log", "/dev/stderr", *ports_of_triton),
    )
    settings = {
        "TCD_TRITON_URL": f"http://127.0.0.1:{ports[0]}",
        "TCD_HTTP_HOST": "127.0.0.1",
        "TCD_GRPC_HOST": "127.0.0.1",
        "TCD_HTTP_PORT": str(ports[3]),
        "TCD_GRPC_PORT": str(ports[4]),
    }
    environment = [part for item in settings.items() for part in ("-e", "=".join(item))]
    engine.podman(
        *("run", "-d", "--name", "tcd-s", *host, *HARDENED, "--memory", "1g", "--pids-limit", "256"),
        *("-v", "tcd-test-ledger:/var/lib/tcd", *environment, images.shim),
    )
    made = Running(images, f"http://127.0.0.1:{ports[3]}", "tcd-s", "tcd-t")
    until(lambda: ready(f"{made.url}/readyz"), lambda: engine.logs("tcd-s") + engine.logs("tcd-t"))
    yield made
    engine.podman("rm", "-f", "tcd-s", "tcd-t")
    engine.podman("volume", "rm", "-f", "tcd-test-ledger")


@pytest.mark.parametrize("part", ["shim", "triton", "demo"])
def test_what_an_image_is_made_of(images: Images, part: str) -> None:
    name = getattr(images, part)
    found = images.engine.inspect(name)
    assert found["Config"]["User"] == "10001:10001"
    assert found["Config"]["StopSignal"] == "SIGTERM"
    # the demo is a command that ends
    assert found["Healthcheck"]["Test"][0] == ("NONE" if part == "demo" else "CMD")
    labels = {
        key.rpartition(".")[2]: value for key, value in found["Config"]["Labels"].items() if "opencontainers" in key
    }
    assert (labels["title"], labels["licenses"]) == (f"tcd {part}", "Apache-2.0")
    assert labels["version"] == tcd.__version__
    assert labels["revision"] == images.revision or "TCD_CONTAINERS_KEEP" in os.environ
    bom = json.loads(inside(images, name, "cat /opt/tcd/sbom.cdx.json"))
    components = {component["name"] for component in bom["components"]}
    versions = {component["name"]: component["version"] for component in bom["components"]}
    # it is the image's own: what the interpreter there finds, at its version
    listed = inside(
        images,
        name,
        "python -c 'from importlib.metadata import distributions as d; "
        'print(*{f"{x.name}=={x.version}" for x in d()})\'',
    ).split()
    assert {f"{key}=={value}".lower() for key, value in versions.items()} == {line.lower() for line in listed}
    assert {"tcd", "numpy", "cryptography"} <= components
    # megabytes that nothing on a machine without a GPU imports but the demo; an installer that nobody needs
    assert ("torch" in components) == (part == "demo")
    assert "pip" not in components
    # the kernels are there, compiled in the first stage
    assert inside(images, name, "ls /opt/tcd/lib/python3*/site-packages/tcd/native/_kernels.so")
    assert inside(images, name, "command -v cc gcc make pip || true") == ""
    refused = inside(images, name, "touch /opt/tcd/x /etc/x /x 2>&1 || true").splitlines()
    assert len(refused) == 3
    assert all("Read-only file system" in line for line in refused)


def inside(images: Images, name: str, script: str) -> str:
    """What a shell in a hardened container of an image prints."""
    return images.engine.podman("run", "--rm", *HARDENED, "--entrypoint", "sh", name, "-c", script)


def test_the_demo_plays_without_a_network(images: Images) -> None:
    engine = images.engine
    engine.podman("volume", "rm", "-f", "tcd-test-out", check=False)
    try:
        said = engine.podman(
            *(
                "run",
                "--rm",
                "--network",
                "none",
                *HARDENED,
                "--shm-size",
                "256m",
                "--memory",
                "4g",
                "--pids-limit",
                "512",
            ),
            *("-v", "tcd-test-out:/out", images.demo, "--quick", "--scenario", "loop", "--json"),
            timeout=900,
        )
        played = json.loads(said)
        assert played["ok"]
        page = engine.podman(
            *("run", "--rm", *HARDENED, "-v", "tcd-test-out:/out", "--entrypoint", "cat", images.demo, "/out/demo.html")
        )
    finally:
        engine.podman("volume", "rm", "-f", "tcd-test-out", check=False)
    assert "<svg" in page
    assert "recording" not in played.get("source", "")


def test_diagnose_answers_and_the_receipt_verifies(running: Running) -> None:
    answer = call(f"{running.url}/diagnose", {"session": "c1", "step_id": 0, "trace_vector": [-0.5]})
    assert answer["cause"] != "degraded"
    assert call(f"{running.url}/verify", receipt_of(answer))["ok"]


def test_nothing_can_be_written_but_where_it_must(running: Running) -> None:
    podman = running.images.engine.podman
    script = "id -u; touch /opt/tcd/x || true; touch /var/lib/tcd/x && rm /var/lib/tcd/x && echo ledger"
    assert podman("exec", running.shim, "sh", "-c", script).split() == ["10001", "ledger"]
    files = podman("exec", running.shim, "sh", "-c", "stat -c '%a %n' /var/lib/tcd/*").splitlines()
    assert files
    assert all(line.startswith("600 ") for line in files)
    assert "CapEff:\t0000000000000000" in podman("exec", running.triton, "cat", "/proc/1/status")


def test_the_health_check_follows_triton(running: Running) -> None:
    podman = running.images.engine.podman
    check = running.images.engine.inspect(running.images.shim)["Healthcheck"]["Test"][1:]
    port = running.url.rsplit(":", 1)[1]
    command = [part.replace("8080", port) for part in check]
    podman("exec", running.shim, *command)
    podman("pause", running.triton)
    try:
        until(lambda: not ready(f"{running.url}/readyz"), lambda: "a shim without Triton stays ready")
    finally:
        podman("unpause", running.triton)
    until(lambda: ready(f"{running.url}/readyz"), lambda: running.images.engine.logs(running.shim))


def test_sigterm_drains_and_the_ledger_is_there_afterwards(running: Running) -> None:
    answers: list[dict[str, object]] = []
    stop = threading.Event()

    def load(worker: int) -> None:
        step = 0
        while not stop.is_set():
            body = {"session": f"drain-{worker}", "step_id": step, "trace_vector": [-0.5]}
            try:
                answers.append(call(f"{running.url}/diagnose", body))
            except OSError:
                return
            step += 1

    threads = [threading.Thread(target=load, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(answers) >= 20, lambda: f"{len(answers)} answers")
    podman = running.images.engine.podman
    podman("stop", "-t", "30", running.shim)
    stop.set()
    for thread in threads:
        thread.join()
    assert running.images.engine.inspect(running.shim)["State"]["ExitCode"] == 0
    podman("start", running.shim)
    until(lambda: ready(f"{running.url}/readyz"), lambda: running.images.engine.logs(running.shim))
    for answer in answers:
        assert call(f"{running.url}/verify", receipt_of(answer))["ok"]
    podman("stop", "-t", "30", running.triton)
    assert running.images.engine.inspect(running.triton)["State"]["ExitCode"] == 0
    podman("start", running.triton)
    until(lambda: ready(f"{running.url}/readyz"), lambda: podman("logs", running.triton))
