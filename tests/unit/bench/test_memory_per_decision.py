"""What a decision leaves behind in the shim's process: no object of its own, once its deadline has passed."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path

import pytest

from sidecar_api.service import Service
from tcd.bench import inprocess

REQUESTS = 3_000
SESSIONS = 64


async def _blocks() -> int:
    """Blocks of memory in use, the least of some looks: rows are kept until their deadline."""
    least = sys.maxsize
    for _ in range(20):
        await asyncio.sleep(0.25)
        gc.collect()
        least = min(least, sys.getallocatedblocks())
    return least


async def _left(folder: Path) -> float:
    """Blocks per decision that stay, of a second lot of decisions in the same sessions."""

    def name(i: int) -> tuple[str, str]:
        return f"t{i % 8}", f"s{i % SESSIONS}"

    async with inprocess.app(folder, deadline_ms=2_000.0) as shim:
        await inprocess.decide(shim, REQUESTS, name, clients=16, http=True)
        before = await _blocks()
        await inprocess.decide(shim, REQUESTS, name, clients=16, http=True)
        return (await _blocks() - before) / REQUESTS


@pytest.mark.long
def test_a_decision_leaves_nothing_behind(tmp_path: Path) -> None:
    assert asyncio.run(_left(tmp_path)) < 1.0


@pytest.mark.long
def test_two_objects_of_each_decision_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[object] = []
    charge = Service.charge

    def leaking(self: Service, *args: object, **more: object) -> object:
        kept.extend((object(), object()))
        return charge(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Service, "charge", leaking)
    assert asyncio.run(_left(tmp_path)) >= 1.0
    assert len(kept) == 4 * REQUESTS
