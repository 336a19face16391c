"""W3C trace context of the request at hand, for calls of Triton: set by whoever traces, read by the clients.

Rows of several requests travel in one call; it belongs to the trace of the first traced one.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

#: `00-TRACE-SPAN-FLAGS`; empty = nothing is traced here.
TRACEPARENT: Final[ContextVar[str]] = ContextVar("tcd_traceparent", default="")
