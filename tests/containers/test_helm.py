"""The chart: lint, and what it renders held against the schemas of Kubernetes; test_pods.py runs its pods."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.containers.chart import CHART, helm, render

pytestmark = pytest.mark.containers
EVERYTHING = (
    *("serviceMonitor.enabled=true", "prometheusRule.enabled=true", "shim.autoscaling.enabled=true"),
    *("triton.autoscaling.enabled=true", "shim.settings.ALPHA=0.02", "networkPolicy.ledger.cidr=192.0.2.7/32"),
    *("admin.enabled=true", "admin.operators[0].kind=Group", "admin.operators[0].name=tcd-operators"),
    "admin.operators[0].apiGroup=rbac.authorization.k8s.io",
)
APART = ("admin.enabled=true", "admin.namespace=tcd-ops", "admin.createNamespace=true")


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
    assert len(pods) == (4 if mode == "gateway" else 2)
    for pod in pods:
        # what Pod Security calls restricted
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all({"emptyDir"} & volume.keys() for volume in pod.get("volumes", ()))
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"]
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
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
        ("admin.port=8080", "port"),
        ("admin.createNamespace=true", "namespace"),
        ("admin.operators[0].kind=Robot", "operators"),
        ("shim.settings.ADMIN_HOST=0.0.0.0", "settings"),
    ],
)
def test_wrong_values_are_refused_with_their_name(setting: str, said: str) -> None:
    done = helm("template", "rel", str(CHART), "--set", setting, check=False)
    assert done.returncode != 0
    assert said in done.stderr.decode()


def test_the_admin_plane_is_reached_by_a_forwarded_port_alone() -> None:
    documents = render("gateway", *APART)
    made = {d["kind"]: d for d in documents if d["metadata"].get("namespace") == "tcd-ops"}
    namespace = next(d for d in documents if d["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert made.keys() == {"StatefulSet", "NetworkPolicy", "Role"}
    # nothing of it is on the pod's address
    assert made["StatefulSet"]["spec"]["replicas"] == 1
    (container,) = made["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    settings = {v["name"]: v.get("value") for v in container["env"]}
    assert (settings["TCD_ADMIN_ENABLE"], settings["TCD_HTTP_HOST"], settings["TCD_GRPC_ENABLE"]) == (
        *("true", "127.0.0.1"),
        "false",
    )
    assert "TCD_ADMIN_HOST" not in settings
    assert "ports" not in container
    assert "exec" in container["readinessProbe"]
    assert made["StatefulSet"]["spec"]["volumeClaimTemplates"][0]["metadata"]["name"] == "ledger"
    labels = made["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    for service in (d for d in documents if d["kind"] == "Service"):
        assert not service["spec"]["selector"].items() <= labels.items()
    assert made["NetworkPolicy"]["spec"]["ingress"] == []
    # the role is of the one pod, and gives no shell in it
    for rule in made["Role"]["rules"]:
        assert rule["resourceNames"] == ["rel-admin-0"]
        assert "pods/exec" not in rule["resources"]
    # Triton takes its calls, and no other shim has the plane
    triton = next(d for d in documents if d["kind"] == "NetworkPolicy" and d["metadata"]["name"] == "rel-triton")
    spaces = [f["namespaceSelector"] for f in triton["spec"]["ingress"][0]["from"] if "namespaceSelector" in f]
    assert spaces == [{"matchLabels": {"kubernetes.io/metadata.name": "tcd-ops"}}]
    shim = next(d for d in documents if d["kind"] == "Deployment" and d["metadata"]["name"] == "rel-shim")
    assert not any("ADMIN" in v["name"] for v in shim["spec"]["template"]["spec"]["containers"][0]["env"])


def test_in_the_mode_sidecar_the_admin_plane_has_no_namespace_of_its_own() -> None:
    done = helm("template", "rel", str(CHART), "--set", ",".join(("mode=sidecar", *APART)), check=False)
    assert done.returncode != 0
    assert "admin.namespace" in done.stderr.decode()
