"""Callers: sessions of many steps through the balancer, each step with an idempotency key and tried again."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tcd.bench.load import body

STEPS = 20
TENANTS = 8
#: A caller that waits longer than this tries again; one that tried this long gives up.
_PATIENCE, _GIVE_UP = 5.0, 120.0


@dataclass(frozen=True, slots=True)
class Step:
    """One decision as its caller saw it.

    Attributes:
        request: what was sent.
        answer: bytes of the answer; of the refusal where `status` is not 200.
        status: of HTTP.
        began, ended: seconds on the monotonic clock.
        tries: requests that were sent for it.
    """

    request: dict[str, Any]
    answer: bytes
    status: int
    began: float
    ended: float
    tries: int

    @property
    def good(self) -> bool:
        """A decision that the ensemble and the controller made; degraded ones are the failure policy's."""
        return self.status == 200 and b'"cause":"degraded"' not in self.answer

    @property
    def joined(self) -> bool:
        """Whether its session came to a shim that had not seen its beginning."""
        return b"session joined in the middle" in self.answer

    @property
    def head(self) -> str:
        """Head of its receipt, empty where there is none."""
        found: str = json.loads(self.answer).get("receipt") or "" if self.status == 200 else ""
        return found


@dataclass
class Callers:
    """So many callers at once, until they are stopped."""

    url: str
    run: str
    count: int
    done: list[Step] = field(default_factory=list)
    gave_up: int = 0
    stopped: bool = False

    async def go(self) -> None:
        """Call until `stopped`."""
        connector = aiohttp.TCPConnector(limit=self.count)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=_PATIENCE)) as http:
            await asyncio.gather(*(self._caller(http, number) for number in range(self.count)))

    async def _caller(self, http: aiohttp.ClientSession, number: int) -> None:
        session = 0
        while True:
            for step in range(STEPS):
                if self.stopped:
                    return
                name = f"{self.run}-{number}-{session}"
                request = {**body(), "tenant": f"tenant{number % TENANTS}", "user": f"user{number}", "session": name}
                await self._step(http, {**request, "step_id": step, "idempotency_key": f"{name}-{step}"})
            session += 1

    async def _step(self, http: aiohttp.ClientSession, request: dict[str, Any]) -> None:
        data, began, tries = json.dumps(request).encode(), time.monotonic(), 0
        while True:
            tries += 1
            try:
                async with http.post(f"{self.url}/diagnose", data=data, headers=_JSON) as reply:
                    answer, status = await reply.read(), reply.status
            except (aiohttp.ClientError, asyncio.TimeoutError):
                answer, status = b"", 0
            if status not in {0, 429, 502, 503, 504}:
                self.done.append(Step(request, answer, status, began, time.monotonic(), tries))
                return
            if time.monotonic() - began > _GIVE_UP:
                self.gave_up += 1
                return
            await asyncio.sleep(0.1)


_JSON = {"Content-Type": "application/json"}
