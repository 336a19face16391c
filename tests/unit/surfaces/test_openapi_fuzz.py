"""Every check of schemathesis over the public OpenAPI: no 500, no accepted negative data, no refused positive data.

The long run: python -m tests.unit.surfaces.test_openapi_fuzz CASES, one line of JSON per operation and mode.
"""

from __future__ import annotations

import json
import sys

import pytest
from schemathesis.generation import GenerationMode

from tests.unit.surfaces.openapi_fuzz import OPERATIONS, fuzz

MODES: list[GenerationMode] = list(GenerationMode)
#: Operations without parameters are one request each; the rest share the cases.
LONG_CASES = 100_000
VARIED = [(path, method) for path, method in OPERATIONS if method == "post" or "{" in path or path == "/state/get"]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_schemathesis(path: str, method: str, mode: GenerationMode) -> None:
    fuzz(path, method, mode, 15)


def run(cases: int) -> int:
    """That many requests at least; the number really made."""
    total = 0
    # a wrong batch costs twenty times as much as the others
    slow = ("/v1/diagnose:batch", "negative")
    each = -(-cases // (2 * len(VARIED) - 2))
    for path, method in OPERATIONS:
        for mode in MODES:
            seen = fuzz(path, method, mode, each if (path, mode.value) != slow else each // 10)
            total += sum(seen.values())
            said = {"path": path, "method": method, "mode": mode.value, "statuses": dict(sorted(seen.items()))}
            print(json.dumps(said), flush=True)  # noqa: T201 - the report of a long run
    return total


@pytest.mark.long
def test_schemathesis_long() -> None:
    assert run(LONG_CASES) >= LONG_CASES


if __name__ == "__main__":
    print(json.dumps({"cases": run(int(sys.argv[1]))}))  # noqa: T201 - as above
