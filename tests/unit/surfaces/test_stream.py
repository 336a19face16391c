"""WebSocket /v1/stream: the subject is fixed at open, refusals do not end it, stopping does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.surfaces.ways import WebSocket, app_of


async def opened(query: str = "session=x", headers: Any = (), **changes: Any) -> tuple[WebSocket, Any, Any, Any]:
    way = WebSocket(app_of(**changes))
    inbox, outbox = await way.open(query, headers)
    return way, inbox, outbox, await outbox.get()


async def test_the_answer_to_the_handshake_has_the_headers() -> None:
    headers = [(b"x-request-id", b"mine"), (b"traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01")]
    way, _, _, accepted = await opened("tenant=t&session=a%20b%C3%A4", headers)
    sent = dict(accepted["headers"])
    assert accepted["type"] == "websocket.accept"
    assert sent[b"x-request-id"] == b"mine"
    assert sent[b"traceparent"].startswith(b"00-" + b"ab" * 16)
    assert sent[b"x-session-id"] == b"a%20b%C3%A4"
    assert b"content-length" not in sent
    await way.close()


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("tenant=", 422, "validation_failed"),
        ("session=a&session=b", 422, "validation_failed"),
        ("model_id=m", 422, "validation_failed"),
        ("session=a%00b", 422, "validation_failed"),
        ("session=%ff", 400, "invalid_request"),
        ("session", 400, "invalid_request"),
        ("session=" + "x" * 129, 422, "validation_failed"),
    ],
)
async def test_a_wrong_opening_is_a_problem(query: str, status: int, code: str) -> None:
    _, _, outbox, start = await opened(query)
    assert (start["type"], start["status"]) == ("websocket.http.response.start", status)
    assert json.loads((await outbox.get())["body"])["code"] == code


async def test_messages() -> None:
    way, inbox, outbox, _ = await opened()

    async def ask(**message: Any) -> Any:
        inbox.put_nowait({"type": "websocket.receive", **message})
        return json.loads((await outbox.get())["text"])

    assert (await ask(text='{"step_id": 0, "trace_vector": [-1]}'))["step"] == 0
    assert (await ask(text="{"))["code"] == "invalid_request"
    assert (await ask(bytes=b"{}"))["code"] == "invalid_request"
    assert (await ask(text=" " * ((1 << 20) + 1)))["code"] == "too_large"
    for name in ("tenant", "user", "session"):
        problem = await ask(text=json.dumps({name: "x"}))
        assert (problem["code"], problem["pointer"]) == ("validation_failed", f"/{name}")
    assert (await ask(text='{"\\u0075ser": "x"}'))["pointer"] == "/user"
    # as a value it is nobody's subject
    assert (await ask(text='{"context": {"x": "user"}}'))["cause"] == ""
    assert (await ask(text='{"step_id": 0}'))["step"] == 0
    page = way.app.runtime.exporter.expose("", sessions=1, dropped=0)[0].decode()
    assert 'tcd_requests_total{outcome="ok",surface="ws"} 3.0' in page
    assert 'tcd_request_duration_seconds_count{surface="ws"} 3.0' in page
    await way.close()


async def test_stopping_closes_with_service_restart() -> None:
    way, inbox, outbox, _ = await opened()
    way.app.runtime.service.draining = True
    inbox.put_nowait({"type": "websocket.receive", "text": "{}"})
    assert (await outbox.get())["code"] == 1012
    _, _, _, start = await opened(max_inflight=1)
    assert start["type"] == "websocket.accept"
