"""`create_app`: settings and a scorer in, an ASGI app out. Nothing is made at import."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from sidecar_api.assembly import make_exporter, make_runtime
from sidecar_api.edges import Edges
from sidecar_api.http.runtime import Runtime
from sidecar_api.http.surface import ShimApp
from sidecar_api.log.handover import after_restart
from sidecar_api.pins import Assets
from sidecar_api.recovery import recover
from tcd.config import Settings
from tcd.rows import Scorer
from tcd.telemetry.logs import QueueHandler

__all__ = ["Edges", "create_app", "make_exporter"]


async def _recovered(runtime: Runtime) -> None:
    """Go on where the ledger ends; where another key signed last, it hands over first."""
    receipts = runtime.service.judge.receipts
    if runtime.keyring is not None and receipts is not None:
        said = await after_restart(
            runtime.ledger,
            runtime.keyring.keys,
            config=receipts.config,
            policy=receipts.policy,
            now_us=receipts.now_us(),
            random=receipts.random,
        )
        if said:
            runtime.logs.write("warning", "another receipt key", what=said)
    if runtime.replica is not None:
        found = await runtime.replica.start()
    elif runtime.ledger.durable:
        found = await recover(runtime.ledger, runtime.service.judge)
    else:
        return
    runtime.logs.write("info", "recovered", **asdict(found))


@asynccontextmanager
async def _serving(runtime: Runtime, *, timeout: float) -> AsyncIterator[None]:
    """Background work, which ends in an order in which what it wrote is signed last."""
    runtime.service.start()
    if runtime.log is not None:
        runtime.log.start()
    try:
        yield
    finally:
        if runtime.log is not None:
            await runtime.log.quiet()
        if runtime.service.judge.mender is not None:
            await runtime.service.judge.mender.stop()
        await runtime.service.stop(timeout=timeout)
        if runtime.log is not None:
            await runtime.log.stop(timeout=timeout)
        if runtime.replica is not None:
            await runtime.replica.stop()


def create_app(settings: Settings, *, scorer: Scorer, assets: Assets, edges: Edges | None = None) -> ShimApp:
    """The shim's ASGI app.

    Args:
        settings: in force until the process ends.
        scorer: the ensemble behind the micro-batcher, or the library.
        assets: the asset directory that the ensemble reads too.
        edges: clock, randomness, ledger, readiness; defaults are the real ones.

    Raises:
        ConfigError: the settings do not fit the assets, or the bundle of policies is refused (`BadBundle`).
    """
    runtime = make_runtime(settings, scorer, assets, edges or Edges())

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        runtime.logs.start()
        for part in runtime.beside:
            part.start()
        handler = QueueHandler(runtime.logs)
        roots = [logging.getLogger("tcd"), logging.getLogger("sidecar_api")]
        for root in roots:
            root.addHandler(handler)
        await _recovered(runtime)
        try:
            async with _serving(runtime, timeout=settings.drain_timeout_s):
                yield
        finally:
            if runtime.spans is not None:
                runtime.spans.close()
            for root in roots:
                root.removeHandler(handler)
            for part in runtime.beside:
                part.stop()
            runtime.logs.stop()

    return ShimApp(runtime, lifespan=lifespan)
