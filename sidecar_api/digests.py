"""RFC 8785 digests of structs, fast where msgspec's sorted JSON is canonical but for ".0", else by the generic way.

Both write the shortest digits that round-trip; they differ in exponents, negative zeros, trailing ".0", string
escapes and the order of keys outside ASCII. Whatever might hold one of those takes the generic way.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Struct

from sidecar_api.schemas import DiagnoseRequest
from tcd.receipts import jcs

_encode: Final = msgspec.json.Encoder(order="sorted").encode
_INTEGRAL: Final = re.compile(rb"\.0(?=[,}\]])")
#: Exponents and negative zeros; also in strings, which only costs time. Integers over 2^53 are not in the schemas.
_UNLIKE: Final = re.compile(rb"\\|[0-9]e[-+0-9]|-0(?![.0-9])|-0\.0(?![0-9])")


def canonical(value: Struct, texts: Iterable[str] = ()) -> bytes:
    """RFC 8785 bytes of a struct.

    Args:
        value: a struct of the schemas.
        texts: all strings in it that are not fixed by the schema, dictionary keys included.
    """
    raw = _encode(value)
    if _UNLIKE.search(raw) is None and all(".0" not in text and text.isascii() for text in texts):
        return _INTEGRAL.sub(b"", raw)
    return jcs.encode(msgspec.to_builtins(value))


def digest(value: Struct, texts: Iterable[str] = ()) -> str:
    """`sha256:` digest of `canonical`, equal to `jcs.digest` of the value's JSON."""
    return "sha256:" + hashlib.sha256(canonical(value, texts)).hexdigest()


def request_digest(request: DiagnoseRequest) -> str:
    """Digest of a request with every default filled in: the member `req` of a receipt."""
    context = request.context
    texts = [
        *(request.model_id, request.gpu_id, request.task, request.lang, request.tenant, request.user),
        *(request.session, request.request_id or "", request.idempotency_key or "", *context),
        *(value for value in context.values() if isinstance(value, str)),
    ]
    return digest(request, texts)
