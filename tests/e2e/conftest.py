"""One served stack for the end-to-end tests that do no harm to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.stack import Stack, serving
from tests.unit.telemetry.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    # no test here is about deadlines: a busy machine must not make a step a degraded one
    with serving(tmp_path_factory.mktemp("stack"), env={"TCD_DEADLINE_MS": "10000"}) as running:
        yield running
