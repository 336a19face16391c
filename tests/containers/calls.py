"""HTTP calls of the container tests, and waiting."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any


def call(url: str, body: Any = None, *, timeout: float = 20.0) -> Any:
    """The JSON that an address answers; POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - our own addresses
    with urllib.request.urlopen(request, timeout=timeout) as reply:  # noqa: S310 - the same
        return json.load(reply)


def ready(url: str) -> bool:
    """Whether an address answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=5.0) as reply:  # noqa: S310 - our own addresses
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def until(condition: Callable[[], bool], what: Callable[[], str], seconds: float = 900.0) -> None:
    """Wait for a condition; `what` says what was seen when it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.5)


def receipt_of(answer: dict[str, Any]) -> dict[str, Any]:
    """What `/verify` and `tcd verify` take."""
    return {
        "receipt_head_hex": answer["receipt"],
        "receipt_body_json": answer["receipt_body"],
        "receipt_sig_hex": answer["receipt_sig"],
        "verify_key_hex": answer["verify_key"],
    }
