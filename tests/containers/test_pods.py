"""The chart's pods, of both modes, run by podman: they answer, and what `helm test` starts says so."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.containers.calls import call, ready, receipt_of, until
from tests.containers.chart import render
from tests.containers.conftest import Images
from tests.containers.pods import NETWORK, Pod, Pods, find, helm_test, images_of

pytestmark = pytest.mark.containers
_DATABASE = "tcd-kube-db"


@dataclass(frozen=True)
class Sidecar:
    """The pod of the mode."""

    pods: Pods
    pod: Pod
    images: Images

    @property
    def url(self) -> str:
        return f"http://{self.pod.address}:8080"

    def wait(self) -> None:
        until(lambda: ready(f"{self.url}/readyz"), self.pod.said)


@pytest.fixture(scope="module")
def sidecar(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    pods = Pods(images.engine, tmp_path_factory.mktemp("sidecar"))
    pods.begin({"attestSkHex": os.urandom(32).hex()})
    documents = render("sidecar", "admin.enabled=true", *images_of(images))
    try:
        made = Sidecar(pods, pods.run(find(documents, "StatefulSet", "rel"), "rel-0"), images)
        made.wait()
        yield made
    finally:
        pods.end()


def test_the_pod_of_the_mode_sidecar_answers(sidecar: Sidecar) -> None:
    for part in ("shim", "triton"):
        for url in sidecar.pod.probes(part):
            until(lambda url=url: ready(url), sidecar.pod.said)  # type: ignore[misc]
    answer = call(f"{sidecar.url}/diagnose", {"session": "k", "step_id": 0, "trace_vector": [-0.5]})
    assert answer["cause"] != "degraded"
    assert call(f"{sidecar.url}/verify", receipt_of(answer))["ok"]


def test_an_operator_enrols_on_the_loopback_of_the_pod(sidecar: Sidecar) -> None:
    engine = sidecar.pods.engine
    said = re.search(r"bootstrap (tcd-bootstrap-\S+)", engine.podman("logs", "rel-0-shim"))
    assert said is not None
    # what a forwarded port arrives at; from the network there is nothing
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((sidecar.pod.address, 8081), 10)
    script = (
        "cd /tmp && tcd admin keygen alice --out a.key >&2 && tcd admin keygen bob --out b.key >&2"
        ' && tcd admin enrol a.key b.key --bootstrap "$1" >&2 && tcd admin call GET /whoami --key a.key'
    )
    assert json.loads(engine.podman("exec", "rel-0-shim", "sh", "-c", script, "sh", said[1]))["principal"] == "alice"
    # the volume keeps it
    files = engine.podman("exec", "rel-0-shim", "sh", "-c", "find /var/lib/tcd/admin -type f -perm 600 | wc -l")
    assert int(files) > 0


def test_what_helm_test_starts_says_whether_the_service_answers(sidecar: Sidecar) -> None:
    code, said = helm_test(sidecar.pods, "sidecar", sidecar.images, sidecar.pod.address)
    assert (code, "its receipt verifies" in said) == (0, True), said
    engine, address = sidecar.pods.engine, sidecar.pod.address
    engine.podman("stop", "-t", "30", "rel-0-shim")
    try:
        code, said = helm_test(sidecar.pods, "sidecar", sidecar.images, address)
        assert (code, "refused" in said) == (1, True), said
    finally:
        engine.podman("start", "rel-0-shim")
    sidecar.wait()


@dataclass(frozen=True)
class Gateway:
    """A PostgreSQL, Triton, two shims and the one for operators."""

    pods: Pods
    images: Images
    password: str
    triton: Pod
    shims: tuple[Pod, Pod]
    admin: Pod

    def url(self, number: int) -> str:
        return f"http://{self.shims[number].address}:8080"

    def said(self) -> str:
        return "\n".join(pod.said() for pod in (self.triton, *self.shims, self.admin))


@pytest.fixture(scope="module")
def gateway(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """From an empty database: the shims make the tables, at once."""
    engine = images.engine
    pods = Pods(engine, tmp_path_factory.mktemp("gateway"))
    engine.podman("rm", "-f", "-v", _DATABASE, check=False)
    password = os.urandom(16).hex()
    pods.begin({"attestSkHex": os.urandom(32).hex(), "ledgerUrl": f"postgresql://tcd:{password}@{_DATABASE}:5432/tcd"})
    try:
        variables = ("-e", "POSTGRES_USER=tcd", "-e", "POSTGRES_DB=tcd", "-e", f"POSTGRES_PASSWORD={password}")
        engine.podman(
            *("run", "-d", "--name", _DATABASE, "--network", NETWORK, "--no-healthcheck"),
            *(*variables, engine.helper("postgres")),
        )
        networks = engine.inspect(_DATABASE)["NetworkSettings"]["Networks"]
        documents = render("gateway", "admin.enabled=true", *images_of(images))
        triton = pods.run(find(documents, "Deployment", "rel-triton"), "rel-triton-0")
        hosts = dict.fromkeys(("rel-triton", "rel-triton.default"), triton.address)
        hosts[_DATABASE] = networks[NETWORK]["IPAddress"]
        shim = find(documents, "Deployment", "rel-shim")
        shims = (pods.run(shim, "rel-shim-0", hosts=hosts), pods.run(shim, "rel-shim-1", hosts=hosts))
        admin = pods.run(find(documents, "StatefulSet", "rel-admin"), "rel-admin-0", hosts=hosts)
        made = Gateway(pods, images, password, triton, shims, admin)
        for number in range(2):
            until(lambda number=number: ready(f"{made.url(number)}/readyz"), made.said)  # type: ignore[misc]
        yield made
    finally:
        pods.end()
        engine.podman("rm", "-f", "-v", _DATABASE, check=False)


def test_the_pods_of_the_mode_gateway_answer_and_share_the_database(gateway: Gateway) -> None:
    for pod, part in ((gateway.triton, "triton"), *((shim, "shim") for shim in gateway.shims)):
        for url in pod.probes(part):
            until(lambda url=url: ready(url), gateway.said)  # type: ignore[misc]
    request = {"session": "g", "step_id": 0, "trace_vector": [-0.5], "idempotency_key": "once"}
    first = call(f"{gateway.url(0)}/diagnose", request)
    assert first["cause"] != "degraded"
    # a retry may go to either, and so may who verifies
    assert call(f"{gateway.url(1)}/diagnose", request) == first
    assert call(f"{gateway.url(1)}/verify", receipt_of(first))["ok"]
    # each has the name of its pod
    psql = ("psql", "-At", f"postgresql://tcd:{gateway.password}@127.0.0.1/tcd")
    asked = ("-c", "SELECT replica FROM tcd_member WHERE live")
    names = gateway.pods.engine.podman("exec", _DATABASE, *psql, *asked).split()
    assert set(names) == {"rel-shim-0", "rel-shim-1", "rel-admin-0"}


def test_the_pod_for_operators_is_ready_by_its_own_probes_and_reached_by_nobody(gateway: Gateway) -> None:
    (container,) = gateway.admin.spec["containers"]
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        command = container[kind]["exec"]["command"]
        until(
            lambda command=command: ok(gateway.admin, command),  # type: ignore[misc]
            gateway.said,
        )
    for port in (8080, 8081, 8082):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((gateway.admin.address, port), 10)


def ok(pod: Pod, command: list[str]) -> bool:
    """Whether a probe's command ends with 0 in the pod."""
    try:
        pod.engine.podman("exec", pod.container("shim"), *command)
    except AssertionError:
        return False
    return True


def test_helm_test_passes_in_the_mode_gateway(gateway: Gateway) -> None:
    code, said = helm_test(gateway.pods, "gateway", gateway.images, gateway.shims[0].address)
    assert (code, "its receipt verifies" in said) == (0, True), said
