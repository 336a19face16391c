"""Errors as RFC 9457 problems: a stable code, the request id, no stack, no secret."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from sidecar_api.http.context import Header, RequestContext, overload_headers, quota_headers
from sidecar_api.outcome import Overloaded, SubjectQuotaExceeded
from sidecar_api.schemas import Problem
from tcd.errors import QuotaExceeded, TcdError, Unauthorized

MEDIA: Final = b"application/problem+json"
#: The type that draft-ietf-httpapi-ratelimit-headers registers.
_QUOTA_TYPE: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
_TYPE: Final = "urn:tcd:problem:"
_encode: Final = msgspec.json.Encoder().encode


class EdgeQuotaExceeded(QuotaExceeded):
    """The bucket of the client's address is empty."""


class MethodNotAllowed(TcdError):
    """The path knows other methods."""

    code = "method_not_allowed"
    http_status = 405
    grpc_status = "UNIMPLEMENTED"
    title = "Method not allowed"

    def __init__(self, allowed: str) -> None:
        """Name the methods that are."""
        super().__init__(f"only {allowed} here")
        self.allowed = allowed


class InternalError(TcdError):
    """A defect; the log has the rest."""

    def __init__(self) -> None:
        """Say no more than that."""
        super().__init__("the server failed on this request; its log has the request id")


def problem_of(error: TcdError, request_id: str) -> Problem:
    """An error as every surface says it."""
    quota = isinstance(error, QuotaExceeded)
    violated: list[str] | None = None
    if quota:
        violated = ["edge" if isinstance(error, EdgeQuotaExceeded) else "subject"]
    return Problem(
        type=_QUOTA_TYPE if quota else _TYPE + error.code,
        title=error.title,
        status=error.http_status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        pointer=error.pointer,
        retry_after=error.retry_after,
        violated_policies=violated,
    )


def problem(error: TcdError, context: RequestContext) -> tuple[int, list[Header], bytes]:
    """Status, headers and body of an error."""
    body = _encode(problem_of(error, context.request_id))
    headers = context.answer_headers(MEDIA, len(body))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, Overloaded):
        headers.extend(overload_headers(error.limit))
    if isinstance(error, SubjectQuotaExceeded):
        headers.extend(quota_headers(error.quota))
    return error.http_status, headers, body
