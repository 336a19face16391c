"""Strict decoding of bodies without the extras of /diagnose."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from sidecar_api.decode import refused
from tcd.errors import InvalidRequest

_T = TypeVar("_T")


def decode_strict(body: bytes, decoder: msgspec.json.Decoder[_T]) -> _T:
    """A validated value.

    Raises:
        InvalidRequest: not JSON.
        ValidationFailed: outside the schema; the pointer names the member.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise refused(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise InvalidRequest(msg) from None
