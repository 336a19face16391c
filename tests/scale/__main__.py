"""`python -m tests.scale [--out docs/reports]`: the plan's simulations, minutes of one core, and then its numbers.

`--numbers` keeps the published simulations and makes the numbers anew, after `python -m tests.scaleout`.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from tcd.cli.bench import _report
from tests.conftest import ROOT
from tests.scale import report
from tests.scale.guarantee import BROKEN, SOUND, broken, power, sound
from tests.scale.logs import measured
from tests.scale.plan import COMMITS, RATE, USED, plan
from tests.scale.spread import spread

REPORTS = ROOT / "docs" / "reports"
_SHARES = (0.05, 0.3)


def numbers() -> dict[str, float]:
    """The plan from the reports as they are."""
    scaleout = json.loads((REPORTS / "scaleout.json").read_text())
    ledger = json.loads((REPORTS / "ledger.json").read_text())
    found = scaleout["failover"]["afterwards"]
    return plan(
        scaleout,
        receipt=found["receipt_bytes"],
        answer=scaleout["single"]["sent_bytes"],
        subject=ledger["cost"]["at_rest"]["rss_bytes_per_subject"],
        packed=found["packed"],
    )


def simulate(*, epochs: int, broken_epochs: int, sessions: int) -> dict[str, Any]:
    """The simulations, with fixed seeds."""
    cells = math.ceil(RATE / (COMMITS * USED))
    return {
        "guarantee": [
            *(sound(name, epochs=epochs, seed=11 + i).to_json() for i, name in enumerate(SOUND)),
            *(broken(name, epochs=broken_epochs, seed=31 + i).to_json() for i, name in enumerate(BROKEN)),
        ],
        "power_sessions": sessions,
        "power_shares": _SHARES,
        "power": [
            {"cells": k, "power": [power(k, sessions=sessions, share=share, seed=51) for share in _SHARES]}
            for k in (1, 2, 4, 8, 16, 32)
        ],
        "spread": [
            spread(cells, tenants=1_000_000, exponent=s, seed=71, piece=0.02).to_json() for s in (0.8, 1.0, 1.1)
        ],
        "sweep": [
            {"s": s, "piece": piece, "split": spread(cells, tenants=1_000_000, exponent=s, seed=71, piece=piece).split}
            for s in (0.8, 1.0, 1.1)
            for piece in (0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
        ],
        "logs": measured(shards=cells, leaves=100),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for scale.md, scale.json and the plots")
    parser.add_argument("--epochs", type=int, default=4_000, help="of each sound world")
    parser.add_argument("--numbers", action="store_true", help="simulate nothing")
    given = parser.parse_args()
    if given.numbers:
        found = json.loads((REPORTS / "scale.json").read_text())
    else:
        found = simulate(epochs=given.epochs, broken_epochs=1_000, sessions=20_000)
    found = {**found, "plan": numbers()}
    _report(given.out, "scale", found, report.markdown, report.plots)


if __name__ == "__main__":
    main()
