"""An answer of the upstream as it passes: what it is, and the generations in it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tcd.proxy.headers import Headers, value
from tcd.proxy.judge import Generation, Judge
from tcd.proxy.logprobs import Answer, measure
from tcd.proxy.metrics import ProxyMetrics

Kind = Literal["stream", "whole"]
_OK: Final = 200
#: Bytes that one piece of a compressed answer may become.
_MOST: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Watching:
    """How answers are watched.

    Attributes:
        judge: who is asked.
        every: tokens per call.
        enforce: hold tokens back until they are judged, and end what is to be stopped.
        longest: bytes of an answer in one piece, or of one event, that are looked at.
        finish_reason: of a generation that was ended.
    """

    judge: Judge
    every: int = 16
    enforce: bool = False
    longest: int = 8 << 20
    finish_reason: str = "content_filter"


def kind_of(status: int, headers: Headers) -> Kind | None:
    """What an answer is; None when there is no generation in it."""
    media = (value(headers, b"content-type") or b"").split(b";")[0].strip().lower()
    kinds: dict[bytes, Kind] = {b"text/event-stream": "stream", b"application/json": "whole"}
    return kinds.get(media) if status == _OK else None


class Undecodable(Exception):
    """A compressed answer cannot be read."""


def decoder_of(headers: Headers) -> Callable[[bytes], bytes] | None:
    """What makes a copy of the answer readable; None for a coding that is not known. The answer keeps its bytes."""
    coding = (value(headers, b"content-encoding") or b"identity").strip().lower()
    if coding == b"identity":
        return bytes
    if coding not in {b"gzip", b"x-gzip"}:
        return None
    inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def decode(chunk: bytes) -> bytes:
        try:
            out = inflate.decompress(chunk, _MOST)
        except zlib.error:
            raise Undecodable from None
        if inflate.unconsumed_tail:
            raise Undecodable
        return out

    return decode


class Watched:
    """The generations of one answer."""

    def __init__(
        self, watching: Watching, session: str, members: Mapping[str, Any], *, metrics: ProxyMetrics, expected: int = 1
    ) -> None:
        """Watch an answer with `expected` choices; their sessions are `session` and a number."""
        self.watching = watching
        self.session = session
        self.metrics = metrics
        self.expected = expected
        self._members = members
        self.generations: dict[int, Generation] = {}

    def take(self, answer: Answer) -> list[tuple[int, Generation, bool]]:
        """The choices of a chunk or an answer: index, generation, and whether it has ended with this."""
        out = []
        for choice in answer.choices:
            found = self.generations.get(choice.index)
            if found is None:
                if len(self.generations) >= max(self.expected, 1):
                    # more choices than were asked for: an upstream that does not know its own protocol
                    continue
                found = self.watching.judge.generation(
                    f"{self.session}-{choice.index}", self._members, every=self.watching.every
                )
                self.generations[choice.index] = found
            found.add(measure(choice))
            out.append((choice.index, found, choice.finish_reason is not None))
        return out

    def closed(self) -> None:
        """Count an answer that had nothing to be judged by."""
        if not any(generation.tokens for generation in self.generations.values()):
            self.metrics.unjudged("no_logprobs")
