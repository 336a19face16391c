"""What a call of the client can end with.

::

    ClientError
    +- ApiError           the server refused; has the problem's members
    +- TransportFailed    no answer: no connection, or it broke
    +- DeadlineExceeded   the deadline passed on this side
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Base of the client's errors."""


class ApiError(ClientError):
    """The server's problem; `code` is stable, see `tcd.errors`."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        """Carry a problem's members."""
        self.code = str(problem.get("code", "unknown"))
        self.status = int(problem.get("status", 0))
        self.detail = str(problem.get("detail", ""))
        self.request_id = str(problem.get("request_id", ""))
        self.pointer: str | None = problem.get("pointer")
        after = problem.get("retry_after")
        self.retry_after: float | None = None if after is None else float(after)
        where = f" at {self.pointer}" if self.pointer else ""
        super().__init__(f"{self.code}{where}: {self.detail} (request {self.request_id})")


class TransportFailed(ClientError):
    """The server could not be reached, or the connection broke before the answer."""


class DeadlineExceeded(ClientError):
    """No answer by the deadline; the same idempotency key may still find the decision later."""
