"""What all tests share: the skip rule of CI and the place of the data that is not committed."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tcd.native import build
from tests.postgres import PostgresServer, server

#: Prefixes of skip reasons that CI accepts: what its machine cannot have.
ALLOWED_SKIPS = ("gpu:", "container:", "power-cut:")
ROOT = Path(__file__).resolve().parents[1]
# No clock: what a busy machine takes for one is no failure. The same examples in every run, but for `make test-long`,
# which draws others each time.
for name, same in (("tcd", True), ("tcd-long", False)):
    settings.register_profile(
        name, derandomize=same, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile("tcd")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Third-party vectors and data sets live beside the checkout and are never committed."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"shared: no {path.name}/ beside the checkout")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that all tests share and leave healthy, each in a schema of its own."""
    made = server()
    yield made
    made.stop()


class _SkipRule:
    """With TCD_TEST_SKIPS=forbid a skip for any other reason fails the run."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if not reason.startswith(ALLOWED_SKIPS):
                self.refused.append(f"{report.nodeid}: {reason}")

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            self.refused.append(f"{report.nodeid}: {report.longrepr[2]}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.refused and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self.refused:
            terminalreporter.write_line(f"SKIP REFUSED {line}", red=True)


def _build_kernels() -> None:
    """A checkout that changed its C sources is tested with what they say; without a compiler numpy scores."""
    if os.environ.get("TCD_NATIVE") != "0" and build.compiler() is not None:
        build.ensure()


def pytest_collection() -> None:
    """Next to nothing of what is imported and collected is garbage."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Thousands of tests are a million objects, which each full collection would look at again."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    _build_kernels()
    if os.environ.get("TCD_TEST_SKIPS") == "forbid":
        config.pluginmanager.register(_SkipRule(), "tcd-skip-rule")
