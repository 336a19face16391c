"""Header fields on their way through an intermediary (RFC 9110, section 7.6). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

Headers = Sequence[tuple[bytes, bytes]]

#: Of one connection only (RFC 9110, 7.6.1), beside what `Connection` names. `Expect` was answered here, `Host` and the
#: framing are those of the next connection.
_HOP_BY_HOP: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization"),
    }
)
#: Digests of a content that was changed (RFC 9530 and its predecessors).
DIGESTS: Final = frozenset({b"content-digest", b"repr-digest", b"digest", b"content-md5"})
#: Addressed to the proxy.
BOUNDARIES: Final = (b"x-tcd-data-boundary", b"x-llmtrace-data-boundary")


def value(headers: Headers, name: bytes) -> bytes | None:
    """The first field of a name in lower case."""
    return next((found for field, found in headers if field.lower() == name), None)


def has_body(headers: Headers) -> bool:
    """Whether a request with these fields has a body (RFC 9112, 6.3)."""
    return any(field.lower() in {b"content-length", b"transfer-encoding"} for field, _ in headers)


def end_to_end(headers: Headers, *, drop: Iterable[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """What is forwarded: order, spelling and repetition stay; fields of the connection do not."""
    named = {
        token.strip().lower()
        for field, found in headers
        if field.lower() == b"connection"
        for token in found.split(b",")
    }
    # the length is of the content: no Connection field may take it away (a smuggling trick)
    gone = (_HOP_BY_HOP | named | set(drop)) - {b"content-length"}
    return [(field, found) for field, found in headers if field.lower() not in gone]


def request_headers(headers: Headers, *, host: bytes | None, via: bytes | None) -> list[tuple[bytes, bytes]]:
    """Fields of the forwarded request.

    Args:
        headers: as they came.
        host: of the upstream; None keeps the client's.
        via: this hop's pseudonym, added to `Via` as RFC 9110 (7.6.3) wants of a gateway; None adds none.
    """
    out = [(field, found) for field, found in end_to_end(headers, drop=(b"expect",))]
    if value(headers, b"transfer-encoding") is not None:
        # it overrides a length (RFC 9112, 6.3); the body is framed anew
        out = [(field, found) for field, found in out if field.lower() != b"content-length"]
        out.append((b"transfer-encoding", b"chunked"))
    if host is not None:
        out = [(field, host if field.lower() == b"host" else found) for field, found in out]
    if via is not None:
        before = [found for field, found in out if field.lower() == b"via"]
        out = [(field, found) for field, found in out if field.lower() != b"via"]
        out.append((b"via", b", ".join([*before, b"1.1 " + via])))
    return out


def rewritten_headers(headers: Headers, length: int) -> list[tuple[bytes, bytes]]:
    """Fields of a request whose content was changed: its length, no digests of the old content, no boundaries."""
    gone = {b"content-length", b"transfer-encoding", *DIGESTS}
    out = [(field, found) for field, found in headers if field.lower() not in gone]
    return [*out, (b"content-length", b"%d" % length)]
