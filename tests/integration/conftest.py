"""One real Triton server for all integration tests, on free ports, with the packaged assets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tcd.contract import FUSED
from tcd.triton.launcher import DEFAULT_MODELS, LaunchOptions, TritonServer
from tcd.triton.process import group_members


def stub_pid(server: TritonServer, model: str) -> int:
    """Process of a model's Python stub."""
    assert server.pid is not None
    for pid in group_members(server.pid):
        if f"/{model}/1/model.py" in Path(f"/proc/{pid}/cmdline").read_text():
            return pid
    raise AssertionError(model)


@pytest.fixture(scope="session")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """The shared server (`.http_url`, `.grpc_url`, `.metrics_url`, `.pid`); tests must leave it healthy."""
    log = tmp_path_factory.mktemp("triton") / "triton.log"
    models = (*DEFAULT_MODELS, FUSED.name)
    with TritonServer(LaunchOptions(http_port=0, grpc_port=0, metrics_port=0, log_path=log, models=models)) as server:
        yield server


_HEALED = pytest.StashKey[int]()


@pytest.fixture(autouse=True)
def healed(request: pytest.FixtureRequest) -> None:
    """A test that failed may have hurt the shared server: the next one that uses it has nothing of that."""
    failed, stash = request.session.testsfailed, request.config.stash
    if "triton_server" in request.fixturenames and stash.get(_HEALED, 0) < failed:
        request.getfixturevalue("triton_server").heal()
        stash[_HEALED] = failed


@pytest.fixture
def own_triton(tmp_path: Path) -> Iterator[TritonServer]:
    """A server of the test's own, for tests that hurt it."""
    options = LaunchOptions(
        http_port=0,
        grpc_port=0,
        metrics_port=0,
        log_path=tmp_path / "triton.log",
        models=("tcd_detector", "tcd_multivariate", "tcd_routing", "tcd_diagnose"),
        stop_timeout=5.0,
    )
    with TritonServer(options) as server:
        yield server
