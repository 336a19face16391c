"""Enforcing mode: nothing passes that is not judged, and a generation that is to be stopped ends well-formed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from tcd.errors import Unavailable
from tcd.proxy import logprobs
from tcd.proxy.headers import DIGESTS, Headers, value
from tcd.proxy.judge import Generation
from tcd.proxy.policies import OnFailure
from tcd.proxy.problems import answer as problem
from tcd.proxy.requests import Send
from tcd.proxy.sse import DONE, Event, EventTooLong, Splitter, data_of
from tcd.proxy.watch import Kind, Watched, kind_of

_encode: Final = msgspec.json.Encoder().encode
_DONE: Final = b"data: [DONE]\n\n"
#: What stopped a generation when it was no decision.
_NO_DECISION: Final = "shim_unavailable"


class Enforce:
    """`send` of one answer."""

    def __init__(
        self, watched: Watched, send: Send, *, on_failure: OnFailure, stop: Callable[[], None], request_id: str
    ) -> None:
        """Forward to `send` what is judged.

        Args:
            watched: the answer.
            send: of the client.
            on_failure: whether tokens pass that cannot be judged.
            stop: tells the application behind that the client has gone.
            request_id: for problems.
        """
        self._watched = watched
        self._send = send
        self._closed = on_failure == "closed"
        self._stop = stop
        self._request_id = request_id
        self._kind: Kind | None = None
        self._start: Any = None
        self._splitter = Splitter(limit=watched.watching.longest)
        self._held = bytearray()
        self._latest: logprobs.Answer | None = None
        self._ended: set[int] = set()
        self._finished: set[int] = set()
        self._over = False

    async def __call__(self, message: Any) -> None:
        """Judge, then forward."""
        if self._over:
            return
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif self._kind is None or message["type"] != "http.response.body":
            await self._send(message)
        elif self._kind == "stream":
            await self._stream(message)
        else:
            await self._whole(message)

    async def _begin(self, message: Any) -> None:
        kind = kind_of(message["status"], message["headers"])
        coding = value(message["headers"], b"content-encoding")
        coded = coding is not None and coding.strip().lower() != b"identity"
        if kind is not None and coded:
            self._watched.metrics.unjudged("encoding")
            if self._closed:
                await self._refuse("the answer is compressed and cannot be judged")
                return
            kind = None
        self._kind = kind
        if kind == "whole":
            self._start = message
            return
        if kind == "stream":
            message = {**message, "headers": _without_length(message["headers"])}
        await self._send(message)

    async def _refuse(self, reason: str) -> None:
        self._over = True
        await problem(self._send, Unavailable(reason), self._request_id)
        self._stop()

    async def _stream(self, message: Any) -> None:
        more = message.get("more_body", False)
        try:
            events = self._splitter.feed(message.get("body", b""))
        except EventTooLong:
            self._watched.metrics.unjudged("too_long")
            if self._closed:
                await self._cut_all()
                return
            self._kind = None
            await self._send({**message, "body": self._splitter.rest()})
            return
        out = []
        for event in events:
            out.append(await self._event(event))
            if self._over:
                break
        if not more and not self._over:
            tail = self._splitter.rest()
            if tail:
                out.append(await self._event(Event(tail, data_of(tail))))
            await self._flush(out)
            if not self._over:
                self._watched.closed()
        # an event that is over was sent by whoever ended it
        body = b"".join(out)
        if self._over:
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
            self._stop()
        elif body or not more:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _flush(self, out: list[bytes]) -> None:
        """Judge what is left of a stream that ends without saying so."""
        for index, generation in self._watched.generations.items():
            if index not in self._ended:
                await generation.judged(rest=True)
                if self._stopped(generation):
                    out.append(self._cut(index))
        self._finish_if_done(out)

    async def _event(self, event: Event) -> bytes:
        """What is forwarded in the place of an event."""
        if event.data is None:
            return event.raw
        if event.data == DONE:
            out: list[bytes] = []
            await self._flush(out)
            return b"".join(out) if self._over else b"".join(out) + event.raw
        answer = logprobs.read(event.data)
        if answer is None or not answer.choices:
            return event.raw
        self._latest = answer
        cuts: list[bytes] = []
        for index, generation, finished in self._watched.take(answer):
            if index in self._ended:
                continue
            if finished or generation.due:
                await generation.judged(rest=finished)
            if self._stopped(generation):
                cuts.append(self._cut(index))
            elif finished:
                self._finished.add(index)
        raw = self._without_ended(event, answer)
        self._finish_if_done(cuts)
        return raw + b"".join(cuts)

    def _stopped(self, generation: Generation) -> bool:
        return generation.stop is not None or (generation.failed and self._closed)

    def _without_ended(self, event: Event, answer: logprobs.Answer) -> bytes:
        """The event without choices that have ended; its own bytes when none has."""
        gone = [choice.index for choice in answer.choices if choice.index in self._ended]
        if not gone or event.data is None:
            return event.raw
        if len(gone) == len(answer.choices):
            return b""
        chunk = msgspec.json.decode(event.data)
        chunk["choices"] = [c for c in chunk["choices"] if c.get("index", 0) not in self._ended]
        return b"data: " + _encode(chunk) + b"\n\n"

    def _reason(self, generation: Generation) -> dict[str, Any]:
        stop = generation.stop
        if stop is None:
            return {"action": "block", "cause": _NO_DECISION, "session": generation.session}
        return {"action": stop.enforced, "cause": stop.cause, "session": generation.session, "receipt": stop.receipt}

    def _cut(self, index: int) -> bytes:
        """The final chunk of a choice that is ended."""
        self._ended.add(index)
        generation = self._watched.generations[index]
        reason = self._reason(generation)
        self._watched.metrics.stopped(reason["action"])
        latest = self._latest or logprobs.Answer()
        ending = self._watched.watching.finish_reason
        choice: dict[str, Any] = {"index": index, "finish_reason": ending, "logprobs": None}
        if latest.object == "text_completion":
            choice["text"] = ""
        else:
            choice["delta"] = {}
        chunk = {
            "id": latest.id or "",
            "object": latest.object or "chat.completion.chunk",
            "created": int(latest.created or 0),
            "model": latest.model or "",
            "choices": [choice],
            "tcd": reason,
        }
        if latest.system_fingerprint is not None:
            chunk["system_fingerprint"] = latest.system_fingerprint
        return b"data: " + _encode(chunk) + b"\n\n"

    def _finish_if_done(self, out: list[bytes]) -> None:
        if self._ended and len(self._ended | self._finished) >= self._watched.expected:
            out.append(_DONE)
            self._over = True

    async def _cut_all(self) -> None:
        """End every choice: the stream can be read no further."""
        out = [self._cut(index) for index in self._watched.generations if index not in self._ended]
        self._over = True
        await self._send({"type": "http.response.body", "body": b"".join([*out, _DONE]), "more_body": False})
        self._stop()

    async def _whole(self, message: Any) -> None:
        self._held += message.get("body", b"")
        more = message.get("more_body", False)
        if len(self._held) > self._watched.watching.longest:
            self._watched.metrics.unjudged("too_long")
            if self._closed:
                await self._refuse("the answer is too long to be judged")
                return
            self._kind = None
            await self._send(self._start)
            await self._send({"type": "http.response.body", "body": bytes(self._held), "more_body": more})
            return
        if more:
            return
        body = bytes(self._held)
        answer = logprobs.read(body)
        if answer is not None:
            self._watched.take(answer)
            for index, generation in self._watched.generations.items():
                await generation.judged(rest=True)
                if self._stopped(generation):
                    self._ended.add(index)
            self._watched.closed()
        if not self._ended:
            await self._send(self._start)
            await self._send({"type": "http.response.body", "body": body, "more_body": False})
            return
        await self._send_stopped(body)

    async def _send_stopped(self, body: bytes) -> None:
        """The answer with the text of stopped choices taken out."""
        answer = msgspec.json.decode(body)
        reasons = []
        for choice in answer["choices"]:
            index = choice.get("index", 0)
            if index not in self._ended:
                continue
            reason = self._reason(self._watched.generations[index])
            self._watched.metrics.stopped(reason["action"])
            reasons.append(reason)
            choice["finish_reason"], choice["logprobs"] = self._watched.watching.finish_reason, None
            if "text" in choice:
                choice["text"] = ""
            if isinstance(choice.get("message"), dict):
                choice["message"] = {"role": "assistant", "content": "", "refusal": None}
        answer["tcd"] = reasons
        out = _encode(answer)
        headers = _without_length(self._start["headers"])
        await self._send({**self._start, "headers": [*headers, (b"content-length", b"%d" % len(out))]})
        await self._send({"type": "http.response.body", "body": out, "more_body": False})


def _without_length(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name, found) for name, found in headers if name.lower() not in DIGESTS | {b"content-length"}]
