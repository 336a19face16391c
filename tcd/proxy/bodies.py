"""What the proxy reads of a request: never more than it needs, never an error. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec


class Wanted(msgspec.Struct):
    """Members of a chat or completions request."""

    model: Any = None
    user: Any = None
    stream: Any = None
    n: Any = None
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    logprobs: Any = None
    temperature: Any = None
    top_p: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None


_NOTHING: Final = Wanted()
_decode: Final = msgspec.json.Decoder(Wanted).decode
_LONGEST: Final = 128
_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read(body: bytes) -> Wanted:
    """What a request wants; nothing when it cannot be read."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _NOTHING


def name(value: Any, default: str) -> str:
    """A name as subjects have it: 1 to 128 characters, none of them a control."""
    if isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable():
        return value
    return default


def choices(wanted: Wanted) -> int:
    """How many choices the answer will have."""
    n = wanted.n if type(wanted.n) is int and wanted.n > 0 else 1
    raw = bytes(wanted.prompt)
    if raw[:1] != b"[":
        return n
    try:
        prompts = _array(raw)
    except msgspec.DecodeError:
        return n
    # token ids are one prompt
    many = bool(prompts) and bytes(prompts[0])[:1] in {b'"', b"["}
    return n * len(prompts) if many else n


def context(wanted: Wanted) -> dict[str, float]:
    """The decoding settings, as `context` of /diagnose."""
    limit = wanted.max_completion_tokens if wanted.max_completion_tokens is not None else wanted.max_tokens
    found = {"temperature": wanted.temperature, "top_p": wanted.top_p, "max_tokens": limit}
    return {key: v for key, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}
