"""/state/get and /state/load over the live sessions of a service.

Sessions are copied a few at a time and everything else is done in a thread, so that decisions go on meanwhile. What is
loaded is applied in one turn of the loop, all of it or nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from sidecar_api.pins import Shape
from sidecar_api.receipting import Receipts
from sidecar_api.schemas import DiagnoseRequest
from sidecar_api.service import Service
from sidecar_api.sessions import Session
from sidecar_api.snapshot import MAX_SESSIONS, Key, Snapshot, check, dump_session, read_session, snapshot_of, written
from tcd.contract import detector_key, temperature_bucket
from tcd.errors import Conflict

#: Sessions that are copied in one turn of the loop.
SLICE: Final = 8


class StateService:
    """Moves live sessions between servers."""

    def __init__(self, service: Service, *, receipts: Receipts | None, log: Callable[[str, int], None]) -> None:
        """Serve the sessions of `service`; `log` is told the digest and size of each snapshot loaded."""
        self._service = service
        self._receipts = receipts
        self._log = log

    async def get(self, key: Key, *, first: int = 0, limit: int = MAX_SESSIONS) -> Snapshot:
        """Snapshot of the key's sessions that are not in flight, newest use last, a page from number `first` on.

        Each session is as it was at one moment, not all at the same.
        """
        resolver = self._service.resolver
        level = detector_key(*key.names, temperature_bucket(None))
        pins = resolver.pins(level, Shape.of(0b1111, 0, 0))
        manifest = resolver.current().manifest_digest
        mine = [s for s in self._service.sessions if s.names == key.names and s.idle and s.steps]
        states = []
        for at in range(first, min(first + limit, len(mine)), SLICE):
            # one that began a step meanwhile is left out, as those are that had begun before
            states += [dump_session(s) for s in mine[at : min(at + SLICE, first + limit)] if s.idle]
            await asyncio.sleep(0)
        more = len(mine) > first + limit
        return await asyncio.to_thread(snapshot_of, key, states, manifest=manifest, assets=pins.ids, more=more)

    async def get_json(self, key: Key, *, first: int = 0, limit: int = MAX_SESSIONS) -> bytes:
        """`get` as JSON."""
        return await asyncio.to_thread(written, await self.get(key, first=first, limit=limit))

    async def load(self, key: Key, snapshot: Snapshot) -> int:
        """Load a snapshot of the same key, all of it or nothing; the number of sessions.

        Raises:
            ValidationFailed: another version, altered, or no possible state.
            Conflict: of another key or other assets, or a step of a session is in flight.
            Unavailable: there is no room.
        """
        await asyncio.to_thread(check, snapshot)
        if snapshot.key != key:
            msg = "the snapshot is of another key"
            raise Conflict(msg, pointer="/detector/key")
        bring = await asyncio.to_thread(
            lambda: [read_session(state, index) for index, state in enumerate(snapshot.sessions)]
        )
        # nothing is waited for from here on
        if snapshot.manifest != self._service.resolver.current().manifest_digest:
            msg = "the snapshot was made with other assets"
            raise Conflict(msg, pointer="/detector/manifest")
        now = asyncio.get_running_loop().time()

        def make(subject: tuple[str, str, str]) -> Session:
            tenant, user, session = subject
            model, gpu, task, lang = key.names
            request = DiagnoseRequest(
                tenant=tenant, user=user, session=session, model_id=model, gpu_id=gpu, task=task, lang=lang
            )
            return self._service.lifecycle.session(request, now)

        subjects = [(state.tenant, state.user, state.session) for state in snapshot.sessions]
        for index, subject in enumerate(subjects):
            live = self._service.sessions.get(subject, now)
            if live is not None and not live.idle:
                msg = "a step of the session is in flight"
                raise Conflict(msg, pointer=f"/detector/sessions/{index}", retry_after=0.1)
        # where there is no room for one of them, the others are made and stay empty
        for load, session in zip(bring, [make(subject) for subject in subjects], strict=True):
            load(session)
        self._log(snapshot.digest, len(snapshot.sessions))
        if self._receipts is not None:
            acts = self._receipts.admin("state.load", snapshot.digest)
            self._service.judge.put(acts, lost=self._receipts.forget_acts)
        return len(snapshot.sessions)
