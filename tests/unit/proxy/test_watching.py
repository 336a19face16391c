"""Answers that are compressed, broken, too long or strange, in monitor and in enforcing mode."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tcd.background import Tasks
from tcd.proxy import Judge, ProxyMetrics, Watching
from tcd.proxy.enforce import Enforce
from tcd.proxy.monitor import Monitor
from tcd.proxy.watch import Watched
from tests.integration.proxy.kit import BLOCKED, FakeShim, decided

SSE = [(b"content-type", b"text/event-stream")]
JSON = [(b"content-type", b"application/json; charset=utf-8")]


def chunk(lp: float, *, index: int = 0, finish: str | None = None) -> bytes:
    logs = {"content": [{"token": "a", "logprob": lp, "top_logprobs": []}]}
    choice = {"index": index, "delta": {"content": "a"}, "logprobs": logs, "finish_reason": finish}
    return (
        b"data: " + json.dumps({"id": "i", "object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"
    )


def whole(*lps: float) -> bytes:
    content = [{"token": "a", "logprob": lp} for lp in lps]
    message = {"role": "assistant", "content": "text"}
    choice = {"index": 0, "message": message, "logprobs": {"content": content}, "finish_reason": "stop"}
    return json.dumps({"id": "i", "object": "chat.completion", "choices": [choice]}).encode()


class Answer:
    """One answer through a watcher."""

    def __init__(self, shim: FakeShim, *, enforce: bool, closed: bool = False, longest: int = 8 << 20) -> None:
        self.metrics = ProxyMetrics(CollectorRegistry())
        judge = Judge(shim, metrics=self.metrics, deadline=60.0)
        watching = Watching(judge, every=2, enforce=enforce, longest=longest)
        watched = Watched(watching, "s", {}, metrics=self.metrics)
        self.sent: list[Any] = []
        self.stopped = False
        self.background = Tasks("judging")
        self.watcher: Any = Monitor(watched, self._send, self.background)
        if enforce:
            self.watcher = Enforce(
                watched, self._send, on_failure="closed" if closed else "open", stop=self._stop, request_id="r"
            )

    async def _send(self, message: Any) -> None:
        self.sent.append(message)

    def _stop(self) -> None:
        self.stopped = True

    async def run(
        self, headers: Sequence[tuple[bytes, bytes]], pieces: Sequence[bytes], *, status: int = 200, ends: bool = True
    ) -> bytes:
        await self.watcher({"type": "http.response.start", "status": status, "headers": list(headers)})
        for at, piece in enumerate(pieces):
            more = not ends or at + 1 < len(pieces)
            await self.watcher({"type": "http.response.body", "body": piece, "more_body": more})
        await self.background.drain(60.0)
        return self.body

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    def counted(self, sample: str) -> bool:
        return any(
            line.startswith(sample + " ") for line in generate_latest(self.metrics.registry).decode().splitlines()
        )


async def test_a_monitored_gzip_stream_is_read_and_keeps_its_bytes() -> None:
    shim = FakeShim()
    zipped = gzip.compress(chunk(-1.0) + chunk(-2.0), mtime=0)
    answer = Answer(shim, enforce=False)
    pieces = [zipped[:9], zipped[9:30], zipped[30:]]
    assert await answer.run([*SSE, (b"content-encoding", b"gzip")], pieces) == zipped
    assert list(shim.traces().values()) == [[-1.0, -2.0]]


@pytest.mark.parametrize(
    ("coding", "data"),
    [(b"br", b"\x00\x01"), (b"gzip", b"no gzip at all"), (b"gzip", gzip.compress(b"0" * (64 << 20)))],
)
async def test_what_cannot_be_decompressed_passes_and_is_counted(coding: bytes, data: bytes) -> None:
    answer = Answer(FakeShim(), enforce=False)
    assert await answer.run([*SSE, (b"content-encoding", coding)], [data]) == data
    assert answer.counted('tcd_proxy_unjudged_total{reason="encoding"}')


async def test_a_monitored_event_without_an_end_passes() -> None:
    answer = Answer(FakeShim(), enforce=False, longest=10)
    data = b"data: " + b"x" * 100
    assert await answer.run(SSE, [data]) == data
    assert answer.counted('tcd_proxy_unjudged_total{reason="too_long"}')


@pytest.mark.parametrize("enforce", [False, True])
async def test_what_is_no_generation_passes(*, enforce: bool) -> None:
    for status, headers in ((200, [(b"content-type", b"audio/mpeg")]), (429, JSON), (500, SSE)):
        shim = FakeShim(lambda _: decided(**BLOCKED))
        answer = Answer(shim, enforce=enforce, closed=True)
        body = whole(-1.0)
        assert await answer.run(headers, [body[:5], body[5:]], status=status) == body
        assert shim.asked == []


@pytest.mark.parametrize("enforce", [False, True])
async def test_strange_events_pass_as_they_are(*, enforce: bool) -> None:
    stream = [
        b": ping\n\n",
        b"event: x\n\n",
        b"data: no json\n\n",
        b'data: {"choices":[]}\r\n\r\n',
        b"data: [DONE]\n\n",
    ]
    answer = Answer(FakeShim(), enforce=enforce, closed=True)
    assert await answer.run(SSE, stream) == b"".join(stream)


async def test_a_broken_stream_is_judged_as_far_as_it_came() -> None:
    shim = FakeShim()
    answer = Answer(shim, enforce=False)
    await answer.run(SSE, [chunk(-1.0)], ends=False)
    answer.watcher.finish()
    answer.watcher.finish()
    await answer.background.drain(60.0)
    assert list(shim.traces().values()) == [[-1.0]]


async def test_a_defect_of_the_watching_does_not_reach_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Answer(FakeShim(), enforce=False)
    monkeypatch.setattr(answer.watcher, "_look", lambda _: 1 / 0)
    assert await answer.run(SSE, [chunk(-1.0), chunk(-2.0)]) == chunk(-1.0) + chunk(-2.0)
    assert answer.counted('tcd_proxy_unjudged_total{reason="defect"}')


async def test_an_enforced_stream_that_passes_keeps_its_bytes() -> None:
    stream = [chunk(-1.0), chunk(-2.0)[:20], chunk(-2.0)[20:], chunk(-3.0, finish="stop"), b"data: [DONE]\r\n\r\n"]
    answer = Answer(FakeShim(), enforce=True)
    assert await answer.run([*SSE, (b"content-length", b"999")], stream) == b"".join(stream)
    assert answer.sent[0]["headers"] == SSE
    assert answer.sent[-1]["more_body"] is False


async def test_an_enforced_stream_without_an_end_is_judged_to_its_last_token() -> None:
    shim = FakeShim(lambda _: decided(**BLOCKED))
    answer = Answer(shim, enforce=True)
    body = await answer.run(SSE, [chunk(-1.0)])
    assert body.endswith(b"data: [DONE]\n\n")
    assert b'"finish_reason":"content_filter"' in body
    assert answer.stopped


async def test_nothing_is_sent_after_the_end() -> None:
    answer = Answer(FakeShim(lambda _: decided(**BLOCKED)), enforce=True)
    body = await answer.run(SSE, [chunk(-1.0) + chunk(-2.0) + chunk(-3.0), chunk(-4.0), b"data: [DONE]\n\n"])
    assert body.count(b"[DONE]") == 1
    assert body.startswith(chunk(-1.0))
    assert chunk(-2.0) not in body
    assert chunk(-3.0) not in body
    assert [m.get("more_body") for m in answer.sent[1:]] == [False]


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("headers", [[*SSE, (b"content-encoding", b"gzip")], [*JSON, (b"content-encoding", b"br")]])
async def test_a_compressed_answer_in_enforcing_mode(headers: Any, *, closed: bool) -> None:
    answer = Answer(FakeShim(), enforce=True, closed=closed)
    body = await answer.run(headers, [b"\x1f\x8b", b"rest"])
    assert (answer.sent[0]["status"], answer.stopped) == ((503, True) if closed else (200, False))
    assert (json.loads(body)["code"] == "unavailable") if closed else body == b"\x1f\x8brest"


@pytest.mark.parametrize("closed", [False, True])
async def test_an_endless_event_in_enforcing_mode(*, closed: bool) -> None:
    answer = Answer(FakeShim(), enforce=True, closed=closed, longest=300)
    data = b"data: " + b"x" * 400
    body = await answer.run(SSE, [chunk(-1.0), data, b"more"])
    if closed:
        assert body.startswith(chunk(-1.0))
        assert body.endswith(b"data: [DONE]\n\n")
        assert b"xxx" not in body
    else:
        assert body == chunk(-1.0) + data + b"more"


@pytest.mark.parametrize("closed", [False, True])
async def test_a_long_answer_in_one_piece_in_enforcing_mode(*, closed: bool) -> None:
    answer = Answer(FakeShim(), enforce=True, closed=closed, longest=10)
    data = whole(-1.0)
    body = await answer.run(JSON, [data[:40], data[40:]])
    assert answer.sent[0]["status"] == (503 if closed else 200)
    assert closed or body == data


async def test_an_answer_in_one_piece_is_judged_block_by_block() -> None:
    shim = FakeShim(lambda m: decided(**BLOCKED) if m["step_id"] == 1 else decided())
    answer = Answer(shim, enforce=True)
    body = json.loads(await answer.run([*JSON, (b"content-length", b"1")], [whole(-1.0, -2.0, -3.0, -4.0, -5.0)]))
    assert list(shim.traces().values()) == [[-1.0, -2.0, -3.0, -4.0]]
    assert body["choices"][0]["message"]["content"] == ""
    assert body["choices"][0]["finish_reason"] == "content_filter"
    assert body["tcd"][0]["session"] == "s-0"
    length = dict(answer.sent[0]["headers"])[b"content-length"]
    assert int(length) == len(answer.body)


async def test_tokens_that_nobody_judges_in_time_are_bounded() -> None:
    gate = asyncio.Event()

    class Slow(FakeShim):
        async def diagnose(self, **members: Any) -> Any:
            await gate.wait()
            return await super().diagnose(**members)

    shim = Slow()
    answer = Answer(shim, enforce=False)
    content = [{"token": "a", "logprob": -1.0}] * 3000
    event = json.dumps({"choices": [{"index": 0, "logprobs": {"content": content}}]}).encode()
    await answer.watcher({"type": "http.response.start", "status": 200, "headers": SSE})
    for _ in range(3):
        await answer.watcher({"type": "http.response.body", "body": b"data: " + event + b"\n\n", "more_body": True})
        await asyncio.sleep(0)
    gate.set()
    await answer.watcher({"type": "http.response.body", "body": b"", "more_body": False})
    await answer.background.drain(60.0)
    sent = len(next(iter(shim.traces().values())))
    assert sent < 9000
    assert answer.counted('tcd_proxy_tokens_total{outcome="lost"}')


async def test_more_choices_than_were_asked_for_are_not_watched() -> None:
    shim = FakeShim()
    answer = Answer(shim, enforce=False)
    stream = [chunk(-1.0, index=index) for index in range(5)]
    assert await answer.run(SSE, stream) == b"".join(stream)
    assert list(shim.traces()) == ["s-0"]
