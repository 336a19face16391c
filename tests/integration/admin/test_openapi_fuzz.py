"""Schemathesis with a token and signatures over the whole admin API of a running shim: every check, no 5xx.

The long run: python -m tests.integration.admin.test_openapi_fuzz CASES, one line of JSON per operation and mode.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from schemathesis.generation import GenerationMode

from tests.integration.admin.live import Live, live
from tests.integration.admin.openapi_fuzz import OPERATIONS, fuzz, waits

MODES: list[GenerationMode] = list(GenerationMode)
LONG_CASES = 20_000


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("admin")) as made:
        yield made


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_schemathesis(plane: Live, path: str, method: str, mode: GenerationMode) -> None:
    waits(plane)
    fuzz(plane, path, method, mode, 2)


def run(cases: int) -> int:
    """Up to that many requests, as many for each operation and mode as can differ; the number really made."""
    each, total = -(-cases // (2 * len(MODES) * len(OPERATIONS))), 0
    with tempfile.TemporaryDirectory() as folder, live(Path(folder)) as made:
        for path, method in OPERATIONS:
            for mode in MODES:
                seen = number = 0
                # in pieces, so that what waits never fills the plane
                while seen < 2 * each:
                    waits(made)
                    number += 1
                    found = fuzz(made, path, method, mode, min(each, 50), number)
                    statuses = {str(status): count for status, count in sorted(found.items())}
                    line = {"path": path, "method": method, "mode": mode.value, "statuses": statuses}
                    print(json.dumps(line), flush=True)  # noqa: T201 - the report of a long run
                    if not found:
                        break
                    seen += sum(found.values())
                total += seen
    return total


@pytest.mark.long
def test_schemathesis_long() -> None:
    assert run(LONG_CASES) >= LONG_CASES // 2


if __name__ == "__main__":
    print(json.dumps({"cases": run(*map(int, sys.argv[1:]))}))  # noqa: T201 - as above
