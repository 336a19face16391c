"""`docker/compose.yaml`: two shims on one PostgreSQL, watched by Prometheus. Grafana has no package here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tests.containers.calls import call, ready, receipt_of, until
from tests.containers.conftest import Images
from tests.containers.test_images import free_port

pytestmark = pytest.mark.containers
SERVICES = ("postgres", "triton", "shim-a", "shim-b", "prometheus")


class Compose:
    """podman-compose over our storage; every variable of the file is set."""

    def __init__(self, images: Images) -> None:
        self.engine = images.engine
        self.ports = {name: free_port() for name in ("TRITON", "SHIM_A", "SHIM_B", "PROMETHEUS", "GRAFANA")}
        self._environment = {
            **images.engine.environment,
            "TCD_SHIM_IMAGE": images.shim,
            "TCD_TRITON_IMAGE": images.triton,
            "TCD_POSTGRES_IMAGE": images.engine.helper("postgres"),
            "TCD_PROMETHEUS_IMAGE": images.engine.helper("prometheus"),
            "TCD_ATTEST_SK_HEX": os.urandom(32).hex(),
            "TCD_DB_PASSWORD": os.urandom(16).hex(),
            "TCD_GRAFANA_PASSWORD": "unused",
            **{f"TCD_{name}_PORT": str(port) for name, port in self.ports.items()},
        }

    def run(self, *args: str) -> str:
        done = subprocess.run(
            [
                *("podman-compose", "-p", "tcd", "-f", str(ROOT / "docker" / "compose.yaml")),
                *("--podman-args", " ".join(self.engine.options), *args),
            ],
            capture_output=True,
            check=False,
            env=self._environment,
            timeout=600,
        )
        said = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == 0, said[-4000:]
        return said

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.ports[service]}"

    def logs(self) -> str:
        return "\n".join(self.engine.logs(f"tcd_{name}_1") for name in SERVICES)


@pytest.fixture(scope="module")
def compose(images: Images) -> Iterator[Compose]:
    made = Compose(images)
    made.run("up", "-d", "--no-build", *SERVICES)
    yield made
    made.run("down", "-v")


def test_two_shims_share_a_database_and_a_retry_may_go_to_either(compose: Compose) -> None:
    for name in ("SHIM_A", "SHIM_B"):
        until(lambda name=name: ready(f"{compose.url(name)}/readyz"), compose.logs)  # type: ignore[misc]
    request = {"session": "c", "step_id": 0, "trace_vector": [-0.5], "idempotency_key": "once"}
    first = call(f"{compose.url('SHIM_A')}/diagnose", request)
    assert first["cause"] != "degraded"
    assert call(f"{compose.url('SHIM_B')}/diagnose", request) == first
    assert call(f"{compose.url('SHIM_B')}/verify", receipt_of(first))["ok"]


def test_prometheus_scrapes_both_and_knows_the_rules(compose: Compose) -> None:
    until(lambda: ready(f"{compose.url('PROMETHEUS')}/-/ready"), compose.logs)

    def up() -> int:
        found = call(f"{compose.url('PROMETHEUS')}/api/v1/query?query=up")["data"]["result"]
        return sum(float(row["value"][1]) == 1.0 for row in found)

    until(lambda: up() == 3, compose.logs)
    groups = call(f"{compose.url('PROMETHEUS')}/api/v1/rules")["data"]["groups"]
    assert any(rule["name"] == "TcdShimDown" for group in groups for rule in group["rules"])


def test_a_shim_goes_and_the_other_serves(compose: Compose) -> None:
    compose.engine.podman("stop", "-t", "30", "tcd_shim-a_1")
    assert compose.engine.inspect("tcd_shim-a_1")["State"]["ExitCode"] == 0
    answer = call(f"{compose.url('SHIM_B')}/diagnose", {"session": "d", "step_id": 0, "trace_vector": [-0.5]})
    assert answer["cause"] != "degraded"
    compose.engine.podman("start", "tcd_shim-a_1")
    until(lambda: ready(f"{compose.url('SHIM_A')}/readyz"), compose.logs)
