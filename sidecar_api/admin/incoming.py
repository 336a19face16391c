"""What the admin plane takes from a request's head."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from sidecar_api.admin.signatures import Message
from tcd.errors import InvalidRequest

_KEY_LONGEST: Final = 128


async def message_of(request: Request) -> Message:
    """The request as signatures cover it; fields that came twice are joined, as RFC 9421 says."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    query = request.scope["query_string"].decode("latin-1")
    path = (request.scope.get("raw_path") or request.scope["path"].encode()).decode("latin-1")
    url = f"{request.scope['scheme']}://{headers.get('host', '')}{path}" + (f"?{query}" if query else "")
    return Message(request.method, url, headers, await request.body())


def single(request: Request, name: str) -> str | None:
    """A field that may come once.

    Raises:
        InvalidRequest: it came twice.
    """
    values = request.headers.getlist(name)
    if len(values) > 1:
        msg = f"{name} came twice"
        raise InvalidRequest(msg)
    return values[0] if values else None


def idempotency_key(request: Request) -> str:
    """The key under which a mutation is done once.

    Raises:
        InvalidRequest: there is none, or it is none.
    """
    key = single(request, "idempotency-key") or ""
    if not (0 < len(key) <= _KEY_LONGEST and key.isascii() and key.isprintable()):
        msg = "Idempotency-Key, 1 to 128 visible ASCII characters, is needed"
        raise InvalidRequest(msg)
    return key
