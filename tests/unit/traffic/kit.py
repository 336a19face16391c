"""Healthy synthetic generations as requests, a shim in process that keeps them, and the calibration fitted on them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sidecar_api.app import Edges, create_app
from sidecar_api.outcome import Call
from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.service import Service
from sidecar_api.traffic.outcome import Decided, decided_of
from tcd.calibration.assets import Binding
from tcd.calibration.fit import shipped_weights
from tcd.calibration.keyed import fit_keys
from tcd.calibration.log import load
from tcd.calibration.options import FitOptions
from tcd.calibration.store import AssetDirectory, load_assets, write_asset, write_manifest
from tcd.config import Settings
from tcd.demo.recording.synthetic import Tables, healthy
from tcd.rows import ScoreResult, ScoreRow
from tcd.scoring import LibraryScorer

TABLES = Tables.shipped()
STEPS = 40


def generation(seed: int, number: int, *, session: str = "one", steps: int = STEPS) -> Iterator[Any]:
    """The requests of a healthy generation."""
    rng = np.random.default_rng([seed, number])
    signals = healthy(TABLES, rng, steps)
    for t in range(steps):
        yield DiagnoseRequest(
            trace_vector=[min(-float(signals.surprisal[t]), 0.0)],
            entropy=float(signals.entropy[t]),
            spectrum=np.sort(np.exp(signals.log_sigma[t]))[::-1].tolist(),
            features=signals.features[t].tolist(),
            step_id=t,
            model_id="m",
            session=session,
            context={"temperature": 1.0},
            tokens_delta=0,
        )


class Following:
    """The library's scores under whatever the directory holds, as the models do."""

    def __init__(self, assets: AssetDirectory) -> None:
        self._assets = assets

    async def score(self, row: ScoreRow, *, timeout: float) -> ScoreResult:
        return await LibraryScorer(self._assets.current()).score(row, timeout=timeout)


class Shim:
    """A shim in process."""

    def __init__(self, service: Service, app: Any) -> None:
        self.service, self.app = service, app
        self._number = 0

    async def ask(self, request: DiagnoseRequest) -> Decided:
        self._number += 1
        due = asyncio.get_running_loop().time() + 600.0
        call = Call(request_id=f"r{self._number}", given=False, deadline=due)
        return decided_of((await self.service.diagnose(request, call)).body)

    async def generate(self, seed: int, number: int, **how: Any) -> list[Decided]:
        return [await self.ask(request) for request in generation(seed, number, **how)]

    def acts(self) -> list[tuple[str, str]]:
        """Actions of the log's `admin` records, and their actors."""
        ledger: Any = self.app.runtime.ledger
        bodies = [json.loads(s.receipt.body) for s in ledger._heads.values() if s.receipt is not None]
        return [(b["admin"]["action"], b["admin"]["actor"]) for b in bodies if b["typ"] == "admin"]


@asynccontextmanager
async def shim(assets: Path, *, edges: Edges | None = None, **changes: Any) -> AsyncIterator[Shim]:
    """A shim over an asset directory."""
    values: dict[str, Any] = {"ledger": "memory", "attest_sk_hex": "33" * 32, "slo_ms": 1e9, "deadline_ms": 6e5}
    values |= {
        "deadline_max_ms": 6e5,
        "log_level": "error",
        "log_enable": False,
        "http_rate_cap": 1e9,
        "assets": assets,
    }
    directory = AssetDirectory(assets)
    made = Settings(**{**values, **changes})
    app = create_app(made, scorer=Following(directory), assets=directory, edges=edges or Edges())
    async with app.router.lifespan_context(app):
        yield Shim(app.runtime.service, app)


async def record(folder: Path, assets: Path, count: int, *, seed: int, **how: Any) -> None:
    """Keep `count` generations in the signal log `folder`; their names, hence folds, follow from the seed."""
    # the names of a log begin at its clock
    clock = itertools.count(1_800_000_000_000_000 + seed * 1_000_000_000)
    edges = Edges(now_us=lambda: next(clock))
    async with shim(assets, edges=edges, signal_log=folder, receipts_enable=False) as served:
        for number in range(count + 1):
            # the last one is still going on when the shim ends
            await served.generate(seed, number, **how)


def fitted(log: Path, out: Path) -> Path:
    """The calibration of a signal log, as `tcd calibrate fit` makes it."""
    fit_keys(load(log), out, options=FitOptions(weights=shipped_weights()))
    return out


def spoiled(candidate: Path, out: Path, *, by: float) -> Path:
    """A candidate whose session maxima are off by `by`: as if its log had been of other, calmer or wilder, text."""
    assets = load_assets(candidate)
    made: dict[str | None, str] = {}
    for digest, detector in assets.detectors.items():
        masks = {m: replace(table, sessions=table.sessions + by) for m, table in detector.masks.items()}
        made[digest] = write_asset(out, replace(detector, masks=masks))
    for monitor in assets.multivariates.values():
        write_asset(out, monitor)
    for policy in assets.routing.values():
        write_asset(out, policy)

    def moved(binding: Binding) -> Binding:
        return replace(binding, detector=made.get(binding.detector, binding.detector))

    default = None if assets.default is None else moved(assets.default)
    bindings = [moved(binding) for binding in assets.bindings.values()]
    write_manifest(out, bindings=bindings, default=default, policies=assets.policies)
    return out
