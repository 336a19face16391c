"""gRPC under generated messages and bytes: no INTERNAL, no accepted negative data.

The long run: python -m tests.unit.surfaces.test_grpc_fuzz CASES, one line of JSON per method.
"""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from tests.unit.surfaces.grpc_fuzz import METHODS, fuzz

LONG_CASES = 100_000
#: Messages without fields: there is nothing to vary but bytes.
_EMPTY = {"Health", "Version"}


@pytest.mark.parametrize("method", METHODS)
async def test_fuzz(method: str) -> None:
    seen = await fuzz(method, 100)
    assert sum(seen.values()) >= 100 or method in _EMPTY
    if method not in {"LoadState", "Settle", "Verify"}:
        assert seen["OK"], seen


async def run(cases: int) -> int:
    """That many requests at least; the number really made."""
    total = 0
    each = -(-cases // (len(METHODS) - len(_EMPTY)))
    for method in METHODS:
        seen = await fuzz(method, 200 if method in _EMPTY else each)
        total += sum(seen.values())
        print(json.dumps({"method": method, "codes": dict(sorted(seen.items()))}), flush=True)  # noqa: T201 - a report
    return total


@pytest.mark.long
async def test_fuzz_long() -> None:
    assert await run(LONG_CASES) >= LONG_CASES


if __name__ == "__main__":
    print(json.dumps({"cases": asyncio.run(run(int(sys.argv[1])))}))  # noqa: T201 - as above
