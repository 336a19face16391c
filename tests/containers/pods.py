"""Pods of the chart, run by `podman play kube` in a network of their own.

podman has no Services, policies of the network or volumes with `fsGroup`: where the chart goes by the name of a
Service, a pod gets the address of the pod behind it as an entry of its hosts; the rest is held against schemas only.
"""

from __future__ import annotations

import base64
import copy
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.containers.chart import render
from tests.containers.conftest import Images
from tests.containers.engine import Engine

NETWORK = "tcd-kube"


def images_of(images: Images) -> list[str]:
    """Values that name the images."""
    return [
        f"image.{part}.{key}={value}"
        for part, image in (("shim", images.shim), ("triton", images.triton))
        for key, value in zip(("repository", "tag"), image.rsplit(":", 1), strict=True)
    ]


def find(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """One of the rendered documents."""
    return next(d for d in documents if (d["kind"], d["metadata"]["name"]) == (kind, name))


@dataclass
class Pods:
    """What runs, and where its documents are."""

    engine: Engine
    folder: Path

    def begin(self, secret: Mapping[str, str]) -> None:
        """A network and the Secret `tcd` that the chart asks for."""
        self.end()
        data = {key: base64.b64encode(value.encode()).decode() for key, value in secret.items()}
        path = self.folder / "secret.json"
        path.write_text(json.dumps(data))
        self.engine.podman("secret", "create", "tcd", str(path))
        self.engine.podman("network", "create", NETWORK)

    def end(self) -> None:
        """All of it goes."""
        for path in self.folder.glob("*.yaml"):
            self.engine.podman("play", "kube", "--down", str(path), check=False)
        for name in ("rel-ledger", "rel-admin-ledger"):
            self.engine.podman("volume", "rm", "-f", name, check=False)
        self.engine.podman("network", "rm", "-f", NETWORK, check=False)
        self.engine.podman("secret", "rm", "tcd", check=False)

    def run(self, owner: dict[str, Any], name: str, *, hosts: Mapping[str, str] | None = None) -> Pod:
        """The pod that a Deployment or a StatefulSet would make, or a Pod itself, under a name."""
        template = owner if owner["kind"] == "Pod" else owner["spec"]["template"]
        spec = copy.deepcopy(template["spec"])
        # an emptyDir is everybody's in Kubernetes and root's in podman, which brings a /dev/shm of its own
        for container in spec["containers"]:
            mounts = container.get("volumeMounts", [])
            container["volumeMounts"] = [mount for mount in mounts if mount["name"] != "shm"]
        volumes = [volume for volume in spec.get("volumes", ()) if volume["name"] != "shm"]
        for claim in owner["spec"].get("volumeClaimTemplates", ()):
            claimed = f"{owner['metadata']['name']}-{claim['metadata']['name']}"
            volumes.append(
                {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": claimed}},
            )
        spec["volumes"] = volumes
        spec["hostAliases"] = [{"ip": address, "hostnames": [host]} for host, address in (hosts or {}).items()]
        metadata = {"name": name, "labels": template["metadata"].get("labels", {})}
        given = copy.deepcopy(spec)
        for container in given["containers"]:
            # podman would publish these ports on the machine, and run the probes with a curl inside the image
            for part in ("ports", "startupProbe", "livenessProbe", "readinessProbe"):
                container.pop(part, None)
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": given}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(made))
        self.engine.podman("play", "kube", "--network", NETWORK, str(path))
        return Pod(self.engine, name, spec, path)


@dataclass(frozen=True)
class Pod:
    """One that was started."""

    engine: Engine
    name: str
    spec: dict[str, Any]
    path: Path

    @property
    def address(self) -> str:
        """Its address in the network of the pods."""
        infra = self.engine.inspect(self.engine.inspect(self.name)["InfraContainerID"])
        found: str = infra["NetworkSettings"]["Networks"][NETWORK]["IPAddress"]
        return found

    def container(self, part: str) -> str:
        """What podman calls one of its containers."""
        return f"{self.name}-{part}"

    def said(self) -> str:
        """The last lines of all of its containers."""
        return json.dumps([self.engine.logs(self.container(part["name"])) for part in self.spec["containers"]])

    def probes(self, part: str) -> Iterator[str]:
        """URLs of a container's probes over HTTP; a port goes by its name."""
        container = next(c for c in self.spec["containers"] if c["name"] == part)
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container[kind]["httpGet"]
            yield f"http://{self.address}:{ports[probe['port']]}{probe['path']}"

    def exit_code(self, part: str, seconds: float = 900.0) -> int:
        """Of a container that ends."""
        until = time.monotonic() + seconds
        while (state := self.engine.inspect(self.container(part))["State"])["Status"] != "exited":
            assert time.monotonic() < until, state
            time.sleep(0.5)
        code: int = state["ExitCode"]
        return code

    def remove(self) -> None:
        """Take it down."""
        self.engine.podman("play", "kube", "--down", str(self.path))


def helm_test(pods: Pods, mode: str, images: Images, service: str) -> tuple[int, str]:
    """What `helm test` would start, against the pod at an address: exit code and what it said."""
    pod = pods.run(find(render(mode, *images_of(images)), "Pod", "rel-test"), "rel-test", hosts={"rel-shim": service})
    try:
        code = pod.exit_code("diagnose")
        return code, pods.engine.logs(pod.container("diagnose"))
    finally:
        pod.remove()
