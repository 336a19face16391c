"""One stage for the tests of the dashboard: they only read, and what they sign in as ends with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.admin.stage import Threaded, threaded


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Threaded]:
    with threaded(tmp_path_factory.mktemp("stage")) as made:
        yield made
