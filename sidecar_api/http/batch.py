"""POST /v1/diagnose:batch: many steps in one request, each answered or refused on its own.

Steps of one session, or of one idempotency key, are decided in their order; all others side by side, and their
rows reach the ensemble together: with n sessions in ceil(n / 128) calls per width bucket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from time import perf_counter
from typing import Final

import msgspec

from sidecar_api import entry
from sidecar_api.decode import MAX_BATCH, MAX_BATCH_ITEMS, MAX_DIAGNOSE, decode_diagnose
from sidecar_api.gate import Rendezvous
from sidecar_api.http.context import RequestContext
from sidecar_api.http.hot import HotRoute, Send, respond
from sidecar_api.http.problems import InternalError, problem_of
from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.strict import decode_strict
from tcd.errors import TcdError, TooLarge, ValidationFailed

_items: Final = msgspec.json.Decoder(list[msgspec.Raw])
_encode: Final = msgspec.json.Encoder().encode
_LOG: Final = logging.getLogger(__name__)


class Batch(HotRoute):
    """POST /v1/diagnose:batch."""

    limit = MAX_BATCH
    surface = "batch"

    async def answer(self, context: RequestContext, body: bytes, send: Send) -> None:
        """See `HotRoute.answer`."""
        runtime = self.runtime
        items = decode_strict(body, _items)
        if not 1 <= len(items) <= MAX_BATCH_ITEMS:
            msg = f"{len(items)} requests; a batch has 1 to {MAX_BATCH_ITEMS}"
            raise ValidationFailed(msg, pointer="")
        if len(items) > 1:
            entry.charge_edge(runtime, context.client, len(items) - 1.0)
        results = await _Work(self, context, items).run()
        out = b'{"results":[' + b",".join(results) + b"]}"
        await respond(send, 200, context.answer_headers(b"application/json", len(out)), out)
        runtime.exporter.request(surface=self.surface, outcome="ok")


class _Work:
    """One batch on its way."""

    def __init__(self, route: Batch, context: RequestContext, items: list[msgspec.Raw]) -> None:
        self._runtime = route.runtime
        self._surface = route.surface
        self._began, self._now = perf_counter(), asyncio.get_running_loop().time()
        self._contexts = [entry.one_of_many(context) for _ in items]
        self._items = items
        self._results: list[bytes] = [b""] * len(items)

    async def run(self) -> list[bytes]:
        """Encoded results, in the order of the requests."""
        decoded: dict[int, tuple[DiagnoseRequest, int]] = {}
        for index, raw in enumerate(self._items):
            found = self._decode(index, raw)
            if found is not None:
                decoded[index] = found
        lanes = _lanes((index, request) for index, (request, _) in decoded.items())
        gate = Rendezvous(len(lanes))
        # the whole lane finishes whatever happens to the client: each step is a decision of its own
        await asyncio.gather(*(self._lane([(i, *decoded[i]) for i in lane], gate) for lane in lanes))
        return self._results

    def _decode(self, index: int, raw: msgspec.Raw) -> tuple[DiagnoseRequest, int] | None:
        body = bytes(raw)
        try:
            if len(body) > MAX_DIAGNOSE:
                msg = f"the request is over {MAX_DIAGNOSE} bytes"
                raise TooLarge(msg)
            return decode_diagnose(body, sanitize=self._runtime.settings.sanitize == "zero")
        except TcdError as error:
            self._refuse(index, error)
            return None

    async def _lane(self, steps: list[tuple[int, DiagnoseRequest, int]], gate: Rendezvous) -> None:
        try:
            for index, request, sanitized in steps:
                await self._step(index, request, sanitized, gate)
        finally:
            gate.leave()

    async def _step(self, index: int, request: DiagnoseRequest, sanitized: int, gate: Rendezvous) -> None:
        runtime, context = self._runtime, self._contexts[index]
        arrival = entry.Arrival(context, self._surface, began=self._began, now=self._now, gate=gate)
        try:
            answer = await entry.decide(runtime, arrival, request, sanitized)
        except TcdError as error:
            self._refuse(index, error)
        except Exception:  # noqa: BLE001 - the boundary: a defect is logged with its request id and answered
            _LOG.exception("request %s failed", context.request_id)
            self._refuse(index, InternalError())
        else:
            self._results[index] = b'{"response":' + answer.body + b"}"
            if answer.observation is not None:
                runtime.observe(answer.observation, context)

    def _refuse(self, index: int, error: TcdError) -> None:
        found = problem_of(error, self._contexts[index].request_id)
        self._results[index] = b'{"problem":' + _encode(found) + b"}"
        entry.count_refused(self._runtime, error, self._surface)


def _lanes(requests: Iterable[tuple[int, DiagnoseRequest]]) -> list[list[int]]:
    """Indices that must be decided in order, by what connects them: a session or an idempotency key."""
    lane_of: dict[tuple[str, ...], list[int]] = {}
    lanes: list[list[int]] = []
    for index, request in requests:
        key = request.idempotency_key or request.request_id
        names: list[tuple[str, ...]] = [("s", request.tenant, request.user, request.session)]
        if key is not None:
            names.append(("k", request.tenant, key))
        found: list[list[int]] = []
        for name in names:
            lane = lane_of.get(name)
            if lane is not None and all(lane is not other for other in found):
                found.append(lane)
        mine = found[0] if found else []
        for other in found[1:]:
            # two lanes turn out to be one
            mine.extend(other)
            mine.sort()
            lanes = [lane for lane in lanes if lane is not other]
            lane_of = {name: mine if lane is other else lane for name, lane in lane_of.items()}
        if not found:
            lanes.append(mine)
        mine.append(index)
        lane_of.update(dict.fromkeys(names, mine))
    return lanes
