"""An admin plane of a real shim in a thread with its own event loop, for tests that speak HTTP from outside of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sidecar_api.admin.plane import Limits
from tcd.rate_limit import Limit
from tests.integration.admin.test_serving import BUNDLE, Running, running
from tests.unit.shim.conftest import Client

_T = TypeVar("_T")
WIDE = Limit(1e9, 1e9)


class Live:
    """The plane, with two enrolled principals, a bundle of policies, and receipts of two tenants."""

    def __init__(self, admin: Running, loop: asyncio.AbstractEventLoop, heads: list[str]) -> None:
        self.admin = admin
        self._loop = loop
        self.heads = heads
        self.url = admin.server.url

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """In the plane's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@contextlib.contextmanager
def live(folder: Path, **changes: Any) -> Iterator[Live]:
    """It, until the end of the block."""
    begun, end = threading.Event(), asyncio.Event()
    made: list[Live] = []
    failed: list[BaseException] = []

    async def serve() -> None:
        place = folder / "policies.toml"
        place.write_text(BUNDLE.format(version=1, shadow="true"))
        limits = Limits(WIDE, WIDE, WIDE)
        async with running(folder, limits=limits, policies=place, **changes) as admin:
            assert (await admin.enrol()).status_code == 200
            shim, heads = Client(admin.app), []
            for tenant in ("acme", "other"):
                step = await shim.step(session="s", tenant=tenant, user="u", trace_vector=[-1.0] * 8)
                heads.append(step["receipt"])
            made.append(Live(admin, asyncio.get_running_loop(), heads))
            begun.set()
            await end.wait()

    def main() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            failed.append(error)
        finally:
            begun.set()

    thread = threading.Thread(target=main, name="admin-live")
    thread.start()
    begun.wait(60)
    try:
        if failed:
            raise failed[0]
        yield made[0]
    finally:
        if made:
            made[0]._loop.call_soon_threadsafe(end.set)
        thread.join(60)
