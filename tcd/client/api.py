"""`Client` and `AsyncClient`: one logical call each, made of as many attempts as its deadline allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import msgspec
from typing_extensions import Self

from tcd.client.errors import ApiError, TransportFailed
from tcd.client.grpc import AsyncGrpcTransport, GrpcTransport
from tcd.client.http import AsyncHttpTransport, HttpTransport
from tcd.client.models import Decision, Report
from tcd.client.retries import Budget, Retries

_DIAGNOSE: Final = "/v1/diagnose"
_BATCH: Final = "/v1/diagnose:batch"
_VERIFY: Final = "/v1/verify"


def _decision(value: Any) -> Decision:
    try:
        return msgspec.convert(value, Decision, strict=False)
    except msgspec.ValidationError as error:
        msg = f"an answer that is no decision: {error}"
        raise TransportFailed(msg) from None


def _results(value: Any) -> list[Decision | ApiError]:
    return [_decision(r["response"]) if "response" in r else ApiError(r["problem"]) for r in value["results"]]


def _receipt(decision: Decision) -> dict[str, Any]:
    if decision.receipt is None:
        msg = "the decision has no receipt"
        raise ValueError(msg)
    return {
        "receipt_head_hex": decision.receipt,
        "receipt_body_json": decision.receipt_body,
        "receipt_sig_hex": decision.receipt_sig,
        "verify_key_hex": decision.verify_key,
    }


def _keyed(steps: Sequence[Mapping[str, Any]], key: str, left: float) -> list[dict[str, Any]]:
    """Steps of a batch with keys of their own, so that a retry decides nothing twice."""
    return [{"idempotency_key": f"{key}-{i}", "deadline_ms": left * 1000.0, **step} for i, step in enumerate(steps)]


def _headers(headers: Mapping[str, str] | None, token: str | None) -> dict[str, str]:
    bearer = {} if token is None else {"authorization": f"Bearer {token}"}
    return {k.lower(): v for k, v in (headers or {}).items()} | bearer


class Client:
    """Blocking; safe to use from several threads.

    Args:
        url: `http://host:port`, `https://host:port` or `grpc://host:port`.
        deadline: seconds that a call may take, its retries included.
        retries: when to call again.
        token: bearer token of the state routes.
        headers: further headers (metadata) of every call, as `traceparent`.
        transport: of httpx2, for tests and proxies.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline: float = 2.0,
        retries: Retries | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: Any = None,
    ) -> None:
        """Make a client; connections are made when needed."""
        self._deadline, self._retries = deadline, retries or Retries()
        sent = _headers(headers, token)
        scheme, _, rest = url.partition("://")
        self._transport: HttpTransport | GrpcTransport
        if scheme == "grpc":
            self._transport = GrpcTransport(rest, sent)
        else:
            self._transport = HttpTransport(url, sent, transport)

    def diagnose(self, *, key: str | None = None, deadline: float | None = None, **members: Any) -> Decision:
        """Decide about one step.

        Args:
            key: idempotency key; a new one by default.
            deadline: seconds, instead of the client's.
            members: of the request, see docs/http.md.

        Raises:
            ApiError: the server refused.
            TransportFailed: it could not be reached.
            DeadlineExceeded: no answer in time.
        """
        budget = Budget.of(deadline or self._deadline, key)
        return _decision(self._call(_DIAGNOSE, members, budget))

    def diagnose_batch(
        self, steps: Sequence[Mapping[str, Any]], *, key: str | None = None, deadline: float | None = None
    ) -> list[Decision | ApiError]:
        """Decide about up to 256 steps; each result is a decision or why there is none. HTTP only.

        Raises:
            ApiError, TransportFailed, DeadlineExceeded: the batch as a whole failed.
        """
        budget = Budget.of(deadline or self._deadline, key)
        return _results(self._call(_BATCH, _keyed(steps, budget.key, budget.left), budget))

    def verify(self, decision: Decision | None = None, **members: Any) -> Report:
        """Verify a decision's receipt, or whatever the members of /verify say.

        Raises:
            ApiError, TransportFailed, DeadlineExceeded: there is no report.
        """
        body = {**(_receipt(decision) if decision is not None else {}), **members}
        return msgspec.convert(self._call(_VERIFY, body, Budget.of(self._deadline, None)), Report)

    def version(self) -> dict[str, Any]:
        """Version and core settings of the server.

        Raises:
            ApiError, TransportFailed, DeadlineExceeded: there is no answer.
        """
        return dict(self._call("/version", None, Budget.of(self._deadline, None)))

    def _call(self, path: str, body: Any, budget: Budget) -> Any:
        for attempt in budget.attempts(self._retries):
            with attempt:
                return self._transport.call(path, body, key=_key(path, budget), left=budget.left)
        raise AssertionError

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        """Use in a `with` block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class AsyncClient:
    """As `Client`, for asyncio."""

    def __init__(
        self,
        url: str,
        *,
        deadline: float = 2.0,
        retries: Retries | None = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: Any = None,
    ) -> None:
        """See `Client`."""
        self._deadline, self._retries = deadline, retries or Retries()
        sent = _headers(headers, token)
        scheme, _, rest = url.partition("://")
        self._transport: AsyncHttpTransport | AsyncGrpcTransport
        if scheme == "grpc":
            self._transport = AsyncGrpcTransport(rest, sent)
        else:
            self._transport = AsyncHttpTransport(url, sent, transport)

    async def diagnose(self, *, key: str | None = None, deadline: float | None = None, **members: Any) -> Decision:
        """See `Client.diagnose`."""
        budget = Budget.of(deadline or self._deadline, key)
        return _decision(await self._call(_DIAGNOSE, members, budget))

    async def diagnose_batch(
        self, steps: Sequence[Mapping[str, Any]], *, key: str | None = None, deadline: float | None = None
    ) -> list[Decision | ApiError]:
        """See `Client.diagnose_batch`."""
        budget = Budget.of(deadline or self._deadline, key)
        return _results(await self._call(_BATCH, _keyed(steps, budget.key, budget.left), budget))

    async def verify(self, decision: Decision | None = None, **members: Any) -> Report:
        """See `Client.verify`."""
        body = {**(_receipt(decision) if decision is not None else {}), **members}
        return msgspec.convert(await self._call(_VERIFY, body, Budget.of(self._deadline, None)), Report)

    async def version(self) -> dict[str, Any]:
        """See `Client.version`."""
        return dict(await self._call("/version", None, Budget.of(self._deadline, None)))

    async def _call(self, path: str, body: Any, budget: Budget) -> Any:
        async for attempt in budget.attempts(self._retries):
            with attempt:
                return await self._transport.call(path, body, key=_key(path, budget), left=budget.left)
        raise AssertionError

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        """Use in an `async with` block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()


def _key(path: str, budget: Budget) -> str | None:
    return budget.key if path == _DIAGNOSE else None
