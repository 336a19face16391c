"""JSON text at C speed: by orjson where the extra `fast` is installed, else by the standard library.

Both write the same bytes for the values that reach them; a test holds them to that.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def stdlib_sorted(value: Any) -> bytes:
    """Compact UTF-8 JSON with sorted keys of a value without floats.

    Raises:
        UnicodeEncodeError: a lone surrogate.
    """
    return _ENCODER.encode(value).encode("utf-8")


def stdlib_floats(values: list[float]) -> str:
    """Shortest decimals of floats, comma-separated; NaN and infinities leave an "n" in the text."""
    return repr(values)[1:-1].replace(" ", "")


sorted_json: Callable[[Any], bytes] = stdlib_sorted
float_list: Callable[[list[float]], str] = stdlib_floats
#: Value of UTF-8 JSON that is known to have neither floats nor integers beyond 2^53 - 1.
read_json: Callable[[bytes], Any] = json.loads

if find_spec("orjson") is not None:
    import orjson

    def orjson_sorted(value: Any) -> bytes:
        """As `stdlib_sorted`."""
        try:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:
            return stdlib_sorted(value)

    def orjson_floats(values: list[float]) -> str:
        """As `stdlib_floats`; exponents may look different."""
        return orjson.dumps(values)[1:-1].decode("ascii")

    sorted_json = orjson_sorted
    float_list = orjson_floats
    read_json = orjson.loads
