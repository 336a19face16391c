"""An admin plane of a real shim in a thread with its own event loop, for tests that speak HTTP from outside of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import uuid
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx2

from sidecar_api.admin.plane import Limits
from sidecar_api.admin.principals import SCOPES
from tcd.client.admin import OperatorKey, sign
from tcd.rate_limit import Limit
from tests.integration.admin.kit import Running, running
from tests.integration.admin.test_serving import BUNDLE
from tests.unit.shim.conftest import Client

_T = TypeVar("_T")
WIDE = Limit(1e9, 1e9)


class Live:
    """The plane: Alice and Bob may do everything, Carol everything for `acme`, Dave for `other`; a bundle of policies,
    and a receipt of each tenant in `heads`.
    """

    def __init__(
        self, admin: Running, loop: asyncio.AbstractEventLoop, heads: list[str], people: list[OperatorKey]
    ) -> None:
        self.admin = admin
        self.alice, self.bob = admin.alice, admin.bob
        self.carol, self.dave = people
        # connections of one request each: none is closed by the server while the next one begins
        self._client = httpx2.Client(timeout=60.0, verify=False, limits=httpx2.Limits(max_keepalive_connections=0))
        self._loop = loop
        self.heads = heads
        self.url = admin.server.url

    def send(
        self,
        method: str,
        path: str,
        by: OperatorKey | None = None,
        body: Any = None,
        *,
        scopes: Sequence[str] = SCOPES,
        signs: bool | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """The reply to one request, signed unless it is a GET; `headers` come last and replace others."""
        data = content if content is not None else b"" if body is None else json.dumps(body).encode()
        url = self.url + path
        made: dict[str, str] = {"x-request-id": "the-same"}
        if by is not None:
            made["authorization"] = f"Bearer {by.token(scopes)}"
        if method != "GET":
            made |= {"content-type": "application/json", "idempotency-key": uuid.uuid4().hex}
        made |= headers or {}
        if by is not None and (method != "GET" if signs is None else signs):
            made = sign(by, method, url, made, data)
        reply = self._client.request(method, url, headers=made, content=data or None)
        # each request says itself who it is from
        self._client.cookies.clear()
        return reply

    def browser(self, by: OperatorKey) -> dict[str, str]:
        """Headers of a browser that is signed in to the dashboard."""
        code = self.send("POST", "/admin/v1/logins", by).json()["result"]["code"]
        form = {"content-type": "application/x-www-form-urlencoded", "origin": self.url}
        reply = self.send("POST", "/ui/login", content=f"code={code}".encode(), headers=form)
        assert reply.status_code == 303, reply.text
        return {"cookie": reply.headers["set-cookie"].partition(";")[0]}

    def close(self) -> None:
        """Close the client."""
        self._client.close()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """In the plane's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(300)


async def _enrolled(admin: Running) -> list[OperatorKey]:
    """Principals of one tenant each."""
    made = [OperatorKey.generate(name) for name in ("carol", "dave")]
    keys = [key.public(SCOPES) for key in (admin.alice, admin.bob)]
    keys += [key.public(SCOPES, tenant=tenant) for key, tenant in zip(made, ("acme", "other"), strict=True)]
    proposed = await admin.call(admin.alice, "PUT", "/principals", {"keys": keys})
    done = await admin.call(admin.bob, "POST", f"/approvals/{proposed.json()['id']}")
    assert done.status_code == 200, done.text
    return made


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
            people = await _enrolled(admin)
            shim, heads = Client(admin.app), []
            for tenant in ("acme", "other"):
                step = await shim.step(session="s", tenant=tenant, user="u", trace_vector=[-1.0] * 8)
                heads.append(step["receipt"])
            made.append(Live(admin, asyncio.get_running_loop(), heads, people))
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
    begun.wait(300)
    try:
        if failed:
            raise failed[0]
        yield made[0]
    finally:
        if made:
            made[0].close()
            made[0]._loop.call_soon_threadsafe(end.set)
        thread.join(300)
