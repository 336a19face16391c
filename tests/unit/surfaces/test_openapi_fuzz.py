"""Every check of schemathesis over the public OpenAPI: no 500, no accepted negative data, no refused positive data.

The long run: python -m tests.unit.surfaces.test_openapi_fuzz CASES PROCESSES, one line of JSON per operation and mode.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ProcessPoolExecutor

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
    fuzz(path, method, mode, 10)


def _one(path: str, method: str, mode: str, cases: int) -> str:
    found = next(known for known in MODES if known.value == mode)
    try:
        seen = fuzz(path, method, found, cases)
    except AssertionError as error:
        # schemathesis' own cannot travel between processes
        msg = f"{method} {path} {mode}: {type(error).__name__} {error}"
        raise AssertionError(msg) from None
    statuses = {str(status): count for status, count in sorted(seen.items())}
    return json.dumps({"path": path, "method": method, "mode": mode, "statuses": statuses})


def run(cases: int, jobs: int = 1) -> int:
    """That many requests at least, in so many processes; the number really made."""
    # a wrong batch costs twenty times as much as the others
    slow = ("/v1/diagnose:batch", "negative")
    each = -(-cases // (2 * len(VARIED) - 2))
    work = [(path, method, mode.value) for path, method in OPERATIONS for mode in MODES]
    sizes = [each // 10 if (path, mode) == slow else each for path, _, mode in work]
    total = 0
    with ProcessPoolExecutor(jobs) as pool:
        for line in pool.map(_one, *zip(*work, strict=True), sizes):
            total += sum(json.loads(line)["statuses"].values())
            print(line, flush=True)  # noqa: T201 - the report of a long run
    return total


@pytest.mark.long
def test_schemathesis_long() -> None:
    assert run(LONG_CASES, 2) >= LONG_CASES


if __name__ == "__main__":
    print(json.dumps({"cases": run(*map(int, sys.argv[1:]))}))  # noqa: T201 - as above
