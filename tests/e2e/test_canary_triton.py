"""A trial with the real server: rows of its sessions are scored by the candidate in Triton, others as before."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tcd.calibration import canary
from tcd.calibration.promote import promote, rollback
from tcd.calibration.store import default_asset_dir, load_assets
from tests.e2e.stack import serving
from tests.unit.traffic.kit import fitted, generation, record

JSON = {"content-type": "application/json"}
pytestmark = [pytest.mark.triton, pytest.mark.long]


def test_a_trial_in_triton(tmp_path: Path) -> None:
    async def made() -> None:
        for seed, name in ((1, "old"), (2, "new")):
            await record(tmp_path / f"{name}-log", default_asset_dir(), 50, seed=seed, steps=20)

    asyncio.run(made())
    for name in ("old", "new"):
        fitted(tmp_path / f"{name}-log", tmp_path / name)
    live = tmp_path / "live"
    promote(tmp_path / "old", live)
    env = {"TCD_ASSETS": str(live), "TCD_SLO_MS": "1000000", "TCD_HTTP_RATE_CAP": "100000"}
    with serving(tmp_path, env=env) as stack, httpx2.Client(base_url=stack.shim, timeout=60.0) as client:

        def last(seed: int, number: int) -> Any:
            reply: Any = None
            for request in generation(seed, number, session=f"s{number}", steps=20):
                reply = client.post("/diagnose", content=msgspec.json.encode(request), headers=JSON)
                assert reply.status_code == 200, reply.text
            return reply.json()

        assert "canary" not in last(5, 0)["guarantee"]
        canary.begin(tmp_path / "new", live, share=0.5, sessions=1000)
        assert load_assets(live).canary is not None
        answers = [last(6, n) for n in range(1, 13)]
        mine = [a for a in answers if "canary" in a["guarantee"]]
        assert 0 < len(mine) < 12
        new, old = load_assets(tmp_path / "new"), load_assets(tmp_path / "old")
        assert {a["calibration"]["detector"] for a in mine} <= set(new.detectors)
        assert {a["calibration"]["detector"] for a in answers if a not in mine} <= set(old.detectors)
        assert not [a for a in answers if a["cause"] == "degraded"]
        rollback(live)
        after = [last(7, n) for n in range(1, 13)]
        assert not [a for a in after if "canary" in a["guarantee"] or a["cause"] == "degraded"]
