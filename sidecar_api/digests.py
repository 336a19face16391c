"""RFC 8785 text of structs: msgspec's sorted JSON, with the numbers that ECMAScript writes differently rewritten.

Both write the shortest digits that round-trip; they differ in exponents, negative zeros, trailing ".0", string
escapes and the order of keys outside ASCII. A string that might be taken for one of those sends the value through the
generic way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct

from sidecar_api.schemas import Components, DiagnoseRequest
from tcd.receipts import jcs
from tcd.receipts.filling import Objects

_encode: Final = msgspec.json.Encoder(order="sorted").encode
# each begins with what can be searched for fast; integers over 2^53 are not in the schemas
_INTEGRAL: Final = re.compile(rb"\.0(?=[,}\]])")
_MINUS_ZERO: Final = re.compile(rb"-0\.0(?=[,}\]])")
_END: Final = re.compile(rb"[,}\]]")
#: What a string must not hold for numbers only to be found.
_STRANGE: Final = re.compile(r"[0-9]e|-0|\.0")
_DIGITS: Final = bytes(0x30 if 0x30 <= code <= 0x39 else code for code in range(256))  # noqa: PLR2004 - "0" to "9"


def _exponents(raw: bytes, marked: bytes) -> bytes:
    """`raw` with its numbers that have an exponent written anew; in `marked` all digits are 0."""
    parts: list[bytes] = []
    done = 0
    at = marked.find(b"0e")
    while at >= 0:
        start = 1 + max(raw.rfind(b",", done, at), raw.rfind(b":", done, at), raw.rfind(b"[", done, at))
        end = _END.search(raw, at)
        stop = end.start() if end is not None else len(raw)
        parts += (raw[done:start], jcs.number(float(raw[start:stop])).encode())
        done, at = stop, marked.find(b"0e", stop)
    return b"".join(parts) + raw[done:]


def canonical(value: Struct, texts: Iterable[str] = ()) -> bytes:
    """RFC 8785 bytes of a struct.

    Args:
        value: a struct of the schemas.
        texts: all strings in it that are not fixed by the schema, dictionary keys included.
    """
    raw = _encode(value)
    joined = "\n".join(texts)
    if b"\\" in raw or not joined.isascii():
        return jcs.encode(msgspec.to_builtins(value))
    marked = raw.translate(_DIGITS)
    minus, exponents = b"-0.0" in raw, b"0e" in marked
    if (minus or exponents or ".0" in joined or "-0" in joined) and _STRANGE.search(joined) is not None:
        return jcs.encode(msgspec.to_builtins(value))
    if exponents:
        raw = _exponents(raw, marked)
    if minus:
        raw = _MINUS_ZERO.sub(b"0", raw)
    return _INTEGRAL.sub(b"", raw)


def components_json(components: Components, *, exact: bool) -> bytes:
    """An answer's components as `tcd.receipts.filling.Objects` has them; the only string is the unit, one of a few."""
    return canonical(components) if exact else _encode(components)


def request_json(request: DiagnoseRequest, *, exact: bool) -> bytes:
    """A request with every default filled in, likewise."""
    if not exact:
        return _encode(request)
    context = request.context
    texts = [
        *(request.model_id, request.gpu_id, request.task, request.lang, request.tenant, request.user),
        *(request.session, request.request_id or "", request.idempotency_key or "", *context),
        *(value for value in context.values() if isinstance(value, str)),
    ]
    return canonical(request, texts)


def objects(request: DiagnoseRequest | None, components: Components, *, exact: bool) -> Objects:
    """What a record's digests are of.

    Args:
        request: None where the record names another object.
        components: of the answer.
        exact: RFC 8785, also what the kernels do not make so.
    """
    return Objects(
        None if request is None else request_json(request, exact=exact),
        components_json(components, exact=exact),
        int(exact),
    )
