"""How long refusals take, by reason: python -m tests.integration.admin.timing ROUNDS, one line of JSON for each.

Reasons are asked in turn, so that what else the machine does falls on all of them alike. `auc` is the probability that
one answer takes longer than one of the first reason of its group: .5 tells nothing, and 1 tells all at the first try.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sidecar_api.admin.principals import SCOPES
from tcd.client.admin import OperatorKey
from tests.integration.admin.live import Live, live

BASE = "/admin/v1"


def groups(plane: Live) -> dict[str, dict[str, Callable[[], Any]]]:
    """What is compared with what."""
    stranger = OperatorKey.generate("stranger")
    imposter = OperatorKey(plane.alice.principal, plane.alice.kid, stranger.private)

    def receipt(head: str) -> Callable[[], Any]:
        return lambda: plane.send("GET", f"{BASE}/receipts/{head}", plane.carol)

    def token(value: str) -> Callable[[], Any]:
        return lambda: plane.send("GET", f"{BASE}/whoami", headers={"authorization": f"Bearer {value}"})

    return {
        "a receipt": {"missing": receipt("0" * 64), "another tenant's": receipt(plane.heads[1])},
        "a token": {
            "a key that nobody has": token(stranger.token(SCOPES)),
            "a principal's key, another signature": token(imposter.token(SCOPES)),
            "no token": token("x"),
        },
    }


def auc(first: list[float], second: list[float]) -> float:
    """The probability that a value of `second` is above one of `first`."""
    ordered = sorted(first)
    above = sum(bisect_left(ordered, x) + bisect_right(ordered, x) for x in second) / 2
    return above / (len(first) * len(second))


def run(rounds: int) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory() as folder, live(Path(folder)) as plane:
        for group, reasons in groups(plane).items():
            taken: dict[str, list[float]] = {name: [] for name in reasons}
            for _ in range(rounds):
                for name, ask in reasons.items():
                    began = time.perf_counter()
                    ask()
                    taken[name].append((time.perf_counter() - began) * 1e6)
            base = next(iter(taken.values()))
            for name, values in taken.items():
                line = {"group": group, "reason": name, "n": len(values), "median_us": round(statistics.median(values))}
                print(json.dumps({**line, "auc": round(auc(base, values), 3)}), flush=True)  # noqa: T201 - the report


if __name__ == "__main__":
    run(*map(int, sys.argv[1:]))
