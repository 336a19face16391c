"""A request's headers, read once: ids, trace context, deadline; and the headers every answer carries."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from sidecar_api.outcome import Quota, Stages
from tcd.errors import InvalidRequest
from tcd.rate_limit import Limit

Scope = MutableMapping[str, Any]
Header = tuple[bytes, bytes]
POLICY: Final = "subject"
EDGE: Final = "edge"
INFLIGHT: Final = "inflight"
_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_IDS: Final = (b"x-request-id", b"idempotency-key")
_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_DEADLINE: Final = re.compile(rb"[1-9][0-9]{0,5}(\.[0-9]{1,3})?")
_WANTED: Final = frozenset(
    {
        *(b"content-type", b"content-length", b"content-encoding", b"x-request-id", b"idempotency-key"),
        *(b"x-deadline-ms", b"traceparent", b"authorization", b"accept"),
        *(b"x-tcd-data-boundary", b"x-llmtrace-data-boundary"),
    }
)


#: Bytes of randomness that a request's ids take, as hexadecimal digits; drawn for many requests at once.
_DIGITS: Final = 80
_DRAWN: Final = 64
_drawn: list[str] = []


def _random() -> str:
    if not _drawn:
        digits = os.urandom(_DRAWN * _DIGITS // 2).hex()
        _drawn.extend(digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS))
    return _drawn.pop()


@dataclass(slots=True)
class RequestContext:
    """The envelope of one HTTP request.

    Attributes:
        headers: those that are used.
        client: address of the peer.
        request_id: given or made; `given` says which.
        trace_id, span_id, flags: W3C trace context; the span is ours.
        parent_id: the caller's span; empty when the trace began here.
        config_hash: of the settings.
        extra: further headers of the answer.
    """

    headers: dict[bytes, bytes]
    client: str
    request_id: str
    given: bool
    trace_id: str
    span_id: str
    flags: str
    config_hash: bytes
    parent_id: str = ""
    extra: list[Header] = field(default_factory=list)

    @classmethod
    def of(cls, scope: Scope, *, config_hash: bytes) -> RequestContext:
        """Read a scope; see `read`."""
        peer = scope.get("client")
        return cls.read(scope["headers"], str(peer[0]) if peer else "local", config_hash=config_hash)

    @classmethod
    def read(cls, given_headers: Iterable[Header], client: str, *, config_hash: bytes) -> RequestContext:
        """Read a request's headers, names in lower case; what is malformed is replaced here and refused by `check`."""
        headers = {name: value for name, value in given_headers if name in _WANTED}
        random = _random()
        given = headers.get(b"x-request-id")
        valid = given is not None and _ID.fullmatch(given) is not None
        trace_id, span_id, flags = random[32:64], random[64:80], "00"
        parent_id = ""
        said = headers.get(b"traceparent")
        parent = None if said is None else _TRACEPARENT.fullmatch(said)
        # W3C trace context: version ff, zero ids, and a longer form of version 00 are invalid
        if (
            parent
            and parent[1] != b"ff"
            and int(parent[2], 16)
            and int(parent[3], 16)
            and not (parent[1] == b"00" and parent[5])
        ):
            trace_id, parent_id, flags = parent[2].decode(), parent[3].decode(), parent[4].decode()
        return cls(
            headers=headers,
            client=client,
            request_id=given.decode() if valid and given is not None else random[:32],
            given=valid,
            trace_id=trace_id,
            span_id=span_id,
            flags=flags,
            config_hash=config_hash,
            parent_id=parent_id,
        )

    def text(self, name: bytes) -> str | None:
        """A header as text."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def check(self) -> None:
        """Refuse malformed ids.

        Raises:
            InvalidRequest: `X-Request-Id` or `Idempotency-Key` is no 1..128 visible ASCII characters.
        """
        headers = self.headers
        for name in _IDS:
            if name in headers and _ID.fullmatch(headers[name]) is None:
                msg = f"{name.decode()} is not 1 to 128 visible ASCII characters"
                raise InvalidRequest(msg)

    def deadline_ms(self) -> float | None:
        """`X-Deadline-Ms`.

        Raises:
            InvalidRequest: not a number from 1 on, with three decimals at most.
        """
        value = self.headers.get(b"x-deadline-ms")
        if value is None:
            return None
        if _DEADLINE.fullmatch(value) is None:
            msg = "x-deadline-ms is not a number of milliseconds, 1 to 999999.999"
            raise InvalidRequest(msg)
        return float(value)

    def answer_headers(self, content_type: bytes, length: int) -> list[Header]:
        """The headers of an answer."""
        return [
            (b"content-type", content_type),
            (b"content-length", b"%d" % length),
            (b"x-request-id", self.request_id.encode()),
            (b"x-tcd-config-hash", self.config_hash),
            (b"traceparent", f"00-{self.trace_id}-{self.span_id}-{self.flags}".encode()),
            *self.extra,
        ]

    def completed(self, start: MutableMapping[str, Any]) -> dict[str, Any]:
        """An `http.response.start` with the headers of an answer that it has not."""
        have = {name.lower() for name, _ in start["headers"]} | {b"content-length"}
        extra = [header for header in self.answer_headers(b"", 0) if header[0] not in have]
        return {**start, "headers": [*start["headers"], *extra]}


def quota_headers(quota: Quota, *, name: str = POLICY) -> list[Header]:
    """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10) of a bucket."""
    limit, grant = quota.limit, quota.grant
    return [
        (b"ratelimit", b'"%b";r=%d;t=%d' % (name.encode(), grant.remaining, math.ceil(grant.reset))),
        (b"ratelimit-policy", policy_header(limit, name)),
    ]


def overload_headers(limit: int) -> list[Header]:
    """`RateLimit` and `RateLimit-Policy` of the requests that may be in work at once, all of them taken."""
    return [
        (b"ratelimit", f'"{INFLIGHT}";r=0;t=1'.encode()),
        (b"ratelimit-policy", f'"{INFLIGHT}";q={limit};qu="concurrent-requests"'.encode()),
    ]


@lru_cache(maxsize=256)
def policy_header(limit: Limit, name: str) -> bytes:
    """`RateLimit-Policy` of a bucket: its size as quota, the seconds to fill it as window."""
    return f'"{name}";q={max(1, math.floor(limit.capacity))};w={max(1, math.ceil(limit.window))}'.encode()


def timing_header(stages: Stages) -> Header:
    """`Server-Timing`, milliseconds per stage."""
    took = stages.seconds
    # one format for all of the usual stages
    return (b"server-timing", _timing(*took) % tuple([1000.0 * seconds for seconds in took.values()]))


@lru_cache(maxsize=256)
def _timing(*stages: str) -> bytes:
    return b", ".join(b"%b;dur=%%.3f" % stage.encode() for stage in stages)


def session_header(session: str) -> Header:
    """`X-Session-Id`; what a header cannot carry is percent-encoded."""
    if session.isascii() and session.isprintable() and session == session.strip():
        return (b"x-session-id", session.encode())

    def plain(c: str) -> bool:
        return c.isascii() and c.isprintable() and c not in "% "

    encoded = "".join(c if plain(c) else "".join(f"%{b:02X}" for b in c.encode()) for c in session)
    return (b"x-session-id", encoded.encode())
