"""The chart: lint, what it renders held against the schemas of Kubernetes, and its pod run by podman."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.containers.calls import call, ready, receipt_of, until
from tests.containers.conftest import Images
from tests.containers.engine import HELM, Engine

pytestmark = pytest.mark.containers
CHART = ROOT / "docker" / "helm" / "tcd"
EVERYTHING = (
    *("serviceMonitor.enabled=true", "prometheusRule.enabled=true", "shim.autoscaling.enabled=true"),
    *("triton.autoscaling.enabled=true", "shim.settings.ALPHA=0.02", "networkPolicy.ledger.cidr=192.0.2.7/32"),
)


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


@pytest.mark.parametrize("mode", ["gateway", "sidecar"])
def test_lint(mode: str) -> None:
    done = helm("lint", "--strict", str(CHART), "--set", f"mode={mode}")
    assert b"1 chart(s) linted, 0 chart(s) failed" in done.stdout


@pytest.mark.parametrize("mode", ["gateway", "sidecar"])
def test_everything_it_renders_is_what_kubernetes_takes(mode: str, tmp_path: Path) -> None:
    documents = render(mode, *EVERYTHING)
    kinds = [document["kind"] for document in documents]
    assert "PrometheusRule" in kinds
    builtin = [d for d in documents if not d["apiVersion"].startswith("monitoring.coreos.com/")]
    path = tmp_path / "rendered.yaml"
    path.write_text(yaml.safe_dump_all(builtin))
    done = subprocess.run(
        [sys.executable, "-m", "kubernetes_validate", "--strict", str(path)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count(b"passed for resource") == len(builtin)
    assert ("HorizontalPodAutoscaler" in kinds) == ("PodDisruptionBudget" in kinds) == (mode == "gateway")


@pytest.mark.parametrize("mode", ["gateway", "sidecar"])
def test_every_pod_is_hardened_and_no_secret_is_in_it(mode: str) -> None:
    documents = render(mode, *EVERYTHING)
    pods = [d["spec"]["template"]["spec"] for d in documents if "template" in d.get("spec", {})]
    pods += [d["spec"] for d in documents if d["kind"] == "Pod"]
    assert len(pods) == (3 if mode == "gateway" else 2)
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]

            assert "memory" in container["resources"]["limits"]
            secret = [v for v in container.get("env", ()) if v["name"] in {"TCD_ATTEST_SK_HEX", "TCD_LEDGER"}]
            assert all("secretKeyRef" in v["valueFrom"] for v in secret)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("mode=both", "mode"),
        ("shim.replicas=0", "replicas"),
        ("shim.settings.TCD_ALPHA=1", "settings"),
        ("shim.settings.ATTEST_SK_HEX=11", "settings"),
        ("triton.shmSize=256", "shmSize"),
        ("nonsense=1", "nonsense"),
    ],
)
def test_wrong_values_are_refused_with_their_name(setting: str, said: str) -> None:
    done = helm("template", "rel", str(CHART), "--set", setting, check=False)
    assert done.returncode != 0
    assert said in done.stderr.decode()


@pytest.fixture(scope="module")
def pod(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The pod of the sidecar mode, as Kubernetes would make it."""
    engine = images.engine
    settings = [f"image.{part}.{key}" for part in ("shim", "triton") for key in ("repository", "tag")]
    names = [value for image in (images.shim, images.triton) for value in image.rsplit(":", 1)]
    documents = render("sidecar", *(f"{key}={value}" for key, value in zip(settings, names, strict=True)))
    stateful = next(d for d in documents if d["kind"] == "StatefulSet")
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "rel-0", "labels": stateful["spec"]["template"]["metadata"]["labels"]},
        "spec": stateful["spec"]["template"]["spec"],
    }
    # an emptyDir is everybody's in Kubernetes and root's in podman, which brings a /dev/shm of its own
    for part in (*made["spec"]["containers"], {"volumeMounts": made["spec"]["volumes"]}):
        part["volumeMounts"][:] = [volume for volume in part["volumeMounts"] if volume["name"] != "shm"]
    made["spec"]["volumes"].append({"name": "ledger", "persistentVolumeClaim": {"claimName": "rel-ledger"}})
    path = tmp_path_factory.mktemp("kube") / "pod.yaml"
    path.write_text(yaml.safe_dump(made))
    # what podman makes of a Secret: its data
    secret = {"attestSkHex": base64.b64encode(os.urandom(32).hex().encode()).decode()}
    path.with_suffix(".json").write_text(json.dumps(secret))
    engine.podman("secret", "rm", "tcd", check=False)
    engine.podman("secret", "create", "tcd", str(path.with_suffix(".json")))
    engine.podman("network", "rm", "-f", "tcd-kube", check=False)
    engine.podman("network", "create", "tcd-kube")
    engine.podman("play", "kube", "--network", "tcd-kube", str(path))
    yield engine
    engine.podman("play", "kube", "--down", str(path), check=False)
    engine.podman("volume", "rm", "-f", "rel-ledger", check=False)
    engine.podman("network", "rm", "-f", "tcd-kube", check=False)


def test_the_pod_of_the_chart_answers(pod: Engine) -> None:
    network = pod.inspect(pod.inspect("rel-0")["InfraContainerID"])["NetworkSettings"]["Networks"]["tcd-kube"]
    url = f"http://{network['IPAddress']}:8080"
    until(
        lambda: ready(f"{url}/readyz"),
        lambda: json.dumps([pod.logs(f"rel-0-{part}") for part in ("shim", "triton")]),
    )
    answer = call(f"{url}/diagnose", {"session": "k", "step_id": 0, "trace_vector": [-0.5]})
    assert answer["cause"] != "degraded"
    assert call(f"{url}/verify", receipt_of(answer))["ok"]
