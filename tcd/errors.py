"""Every error tcd raises on purpose, and the one table that maps them to HTTP and gRPC.

::

    TcdError
    +- InvalidRequest            400 invalid_request     malformed JSON, wrong content type, undecidable
    |  +- ValidationFailed       422 validation_failed   a member is missing, unknown, mistyped or out of limits
    |  +- RewriteRefused         422 rewrite_refused     the rewriting policy fails closed; `detail` has the reasons
    +- Unauthorized              401 unauthorized
    +- Forbidden                 403 forbidden
    +- NotFound                  404 not_found
    +- Conflict                  409 conflict            idempotency key reused, step out of order, session busy
    +- TooLarge                  413 too_large
    +- QuotaExceeded             429 quota-exceeded      carries retry_after
    +- Unavailable               503 unavailable         carries retry_after
    |  +- ScoringError           503 scoring_unavailable the ensemble did not answer
    |     +- ScoringTimeout      504 deadline_exceeded
    +- ConfigError               -   the settings are wrong; start is refused
    +- LauncherError             -   the Triton server cannot be started; says the remedy
    +- AssetError                -   a calibration asset is missing or corrupt
    +- VerificationError         -   a receipt does not verify; see tcd.receipts.errors
"""

from __future__ import annotations

from typing import ClassVar


class TcdError(Exception):
    """Base of all errors raised on purpose. `code` is stable, `detail` is for people and holds no secret."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, pointer: str | None = None, retry_after: float | None = None) -> None:
        """Make an error.

        Args:
            detail: what is wrong, for people.
            pointer: JSON pointer of the member that is wrong.
            retry_after: seconds after which a retry may succeed.
        """
        super().__init__(detail)
        self.detail = detail
        self.pointer = pointer
        self.retry_after = retry_after


class InvalidRequest(TcdError):
    """The request cannot be read."""

    code = "invalid_request"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"
    title = "Invalid request"


class ValidationFailed(InvalidRequest):
    """A member is missing, unknown, of the wrong type or out of its limits."""

    code = "validation_failed"
    http_status = 422
    title = "Validation failed"


class RewriteRefused(InvalidRequest):
    """A request body could not be rewritten, and the policy lets nothing through that was not."""

    code = "rewrite_refused"
    http_status = 422
    title = "Rewriting refused"


class Unauthorized(TcdError):
    """No valid credential."""

    code = "unauthorized"
    http_status = 401
    grpc_status = "UNAUTHENTICATED"
    title = "Unauthorized"


class Forbidden(TcdError):
    """The credential does not allow this."""

    code = "forbidden"
    http_status = 403
    grpc_status = "PERMISSION_DENIED"
    title = "Forbidden"


class NotFound(TcdError):
    """No such thing."""

    code = "not_found"
    http_status = 404
    grpc_status = "NOT_FOUND"
    title = "Not found"


class Conflict(TcdError):
    """The request contradicts what is already decided."""

    code = "conflict"
    http_status = 409
    grpc_status = "ALREADY_EXISTS"
    title = "Conflict"


class TooLarge(TcdError):
    """More bytes than the limit."""

    code = "too_large"
    http_status = 413
    grpc_status = "RESOURCE_EXHAUSTED"
    title = "Too large"


class QuotaExceeded(TcdError):
    """The rate limit of the subject or of the address."""

    code = "quota-exceeded"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    title = "Quota exceeded"


class Unavailable(TcdError):
    """A part that is needed is not there, or the queue is full."""

    code = "unavailable"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    title = "Unavailable"


class ScoringError(Unavailable):
    """The ensemble did not answer."""

    code = "scoring_unavailable"


class ScoringTimeout(ScoringError):
    """The ensemble did not answer by the deadline."""

    code = "deadline_exceeded"
    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"
    title = "Deadline exceeded"


class ConfigError(TcdError):
    """The settings are wrong."""

    code = "config"


class LauncherError(TcdError):
    """The Triton server cannot be started; `detail` ends with the remedy."""

    code = "launcher"


class AssetError(TcdError):
    """A calibration asset is missing, corrupt or of another version."""

    code = "asset"


class VerificationError(TcdError):
    """A receipt does not verify. Subclasses carry the code of the failed check."""

    code = "verification"
