"""Monitor mode: the answer passes untouched, and is judged beside it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from tcd.background import Tasks
from tcd.proxy import logprobs
from tcd.proxy.judge import Generation
from tcd.proxy.requests import Send
from tcd.proxy.sse import DONE, EventTooLong, Splitter
from tcd.proxy.watch import Kind, Undecodable, Watched, decoder_of, kind_of

#: A longer answer is parsed in a thread.
_INLINE: Final = 256 << 10
_LOG: Final = logging.getLogger(__name__)


class Monitor:
    """`send` of one answer."""

    def __init__(self, watched: Watched, send: Send, background: Tasks) -> None:
        """Forward to `send`, judge in the background."""
        self._watched = watched
        self._send = send
        self._background = background
        self._kind: Kind | None = None
        self._decode: Any = None
        self._splitter = Splitter(limit=watched.watching.longest)
        self._held = bytearray()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __call__(self, message: Any) -> None:
        """Forward first, look at it then."""
        await self._send(message)
        if message["type"] == "http.response.start":
            self._kind = kind_of(message["status"], message["headers"])
            self._decode = decoder_of(message["headers"])
            if self._kind is not None and self._decode is None:
                self._give_up("encoding")
            return
        if self._kind is None or message["type"] != "http.response.body":
            return
        try:
            self._look(self._decode(message.get("body", b"")))
        except Undecodable:
            self._give_up("encoding")
        except EventTooLong:
            self._give_up("too_long")
        except Exception:  # noqa: BLE001 - a defect of the watching must not reach the watched
            _LOG.exception("an answer could not be watched")
            self._give_up("defect")
        if not message.get("more_body", False):
            self.finish()

    def _give_up(self, reason: str) -> None:
        self._watched.metrics.unjudged(reason)
        self._kind = None

    def _look(self, data: bytes) -> None:
        if self._kind == "stream":
            for event in self._splitter.feed(data):
                if event.data is not None and event.data != DONE:
                    answer = logprobs.read(event.data)
                    if answer is not None:
                        self._judge(answer)
            return
        self._held += data
        if len(self._held) > self._watched.watching.longest:
            raise EventTooLong

    def _judge(self, answer: logprobs.Answer) -> None:
        for _, generation, _ in self._watched.take(answer):
            running = self._tasks.get(generation.session)
            if generation.due and (running is None or running.done()):
                self._tasks[generation.session] = self._background.start(generation.judged(rest=False))

    def finish(self) -> None:
        """The answer has ended, or broke off: judge what is left."""
        kind, self._kind = self._kind, None
        if kind is not None:
            self._background.start(self._finish(kind))

    async def _finish(self, kind: Kind) -> None:
        if kind == "whole":
            data = bytes(self._held)
            answer = logprobs.read(data) if len(data) < _INLINE else await asyncio.to_thread(logprobs.read, data)
            if answer is not None:
                self._watched.take(answer)
        self._watched.closed()
        generations: list[Generation] = list(self._watched.generations.values())
        await asyncio.gather(*(generation.judged(rest=True) for generation in generations))
