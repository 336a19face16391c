"""The lean HTTP client against servers that lie, dawdle, hang up and babble."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest
import uvloop

from tcd.contract import DIAGNOSE
from tcd.errors import ScoringError, ScoringTimeout
from tcd.rows import ScoreRow, pack
from tcd.triton.client import InferenceClient, ScoringUnreachable, connect
from tcd.triton.http_client import HttpClient
from tcd.triton.wire import Tensors
from tests.unit.triton.conftest import answer

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def batch(rows: int = 2) -> Tensors:
    return pack([ScoreRow(trace=np.ones(5, np.float32), alpha=i / 8) for i in range(rows)])


def body_of(outputs: Tensors) -> tuple[bytes, int]:
    kinds = {"float32": "FP32", "float64": "FP64", "int32": "INT32", "uint64": "UINT64"}
    header = json.dumps(
        {
            "model_name": "tcd_diagnose",
            "outputs": [
                {
                    "name": n,
                    "datatype": kinds[a.dtype.name],
                    "shape": list(a.shape),
                    "parameters": {"binary_data_size": a.nbytes},
                }
                for n, a in outputs.items()
            ],
        }
    ).encode()
    return header + b"".join(a.tobytes() for a in outputs.values()), len(header)


def message(body: bytes, header_length: int | None, *, status: str = "200 OK", extra: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    if header_length is not None:
        lines.append(f"Inference-Header-Content-Length: {header_length}")
    return ("\r\n".join(lines) + "\r\n" + extra + "\r\n").encode() + body


def good(rows: int = 2) -> bytes:
    return message(*body_of(answer(batch(rows))))


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"Content-Length")), 0)
    return head + await reader.readexactly(length)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[HttpClient]:
    tasks: set[asyncio.Task[Any]] = set()

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", max_connections=2)
    try:
        yield client
    finally:
        await client.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.close()
        await server.wait_closed()


def always(reply: bytes) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(reply)
            await writer.drain()

    return handler


async def test_a_good_answer_comes_back_row_by_row_on_one_connection() -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            request = await read_request(reader)
            head, _, body = request.partition(b"\r\n\r\n")
            assert head.startswith(b"POST /v2/models/tcd_diagnose/infer HTTP/1.1\r\nHost: 127.0.0.1:")
            length = next(int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.startswith(b"Inference-Header"))
            header = json.loads(body[:length])
            assert header["parameters"] == {"binary_data_output": True}
            assert [i["name"] for i in header["inputs"]] == [t.name for t in DIAGNOSE.inputs]
            assert len(body) - length == sum(i["parameters"]["binary_data_size"] for i in header["inputs"])
            for byte in good():  # one byte at a time
                writer.write(bytes([byte]))
            await writer.drain()

    async with serving(handler) as client:
        for _ in range(3):
            outputs = await client.infer(batch(), timeout=60)
            assert outputs["P_VALUE"].tolist() == [[0.0], [0.125]]
        assert connections == 1


def changed(**arrays: Any) -> bytes:
    outputs = answer(batch())
    for name, array in arrays.items():
        if array is None:
            del outputs[name]
        else:
            outputs[name] = array
    return message(*body_of(outputs))


BODY, HEADER = body_of(answer(batch()))
HOSTILE = {
    "garbage": b"\x00\xff" * 20_000,
    "other_protocol": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "http_1_0": b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "endless_headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000,
    "no_length": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both_lengths": message(BODY, HEADER, extra="Transfer-Encoding: chunked\r\n"),
    "two_lengths": message(BODY, HEADER, extra="Content-Length: 3\r\n"),
    "negative_length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "plus_length": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
    "huge_length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    "folded_header": message(BODY, HEADER, extra=" folded: yes\r\n"),
    "header_without_colon": message(BODY, HEADER, extra="nonsense\r\n"),
    "a_byte_too_many": message(BODY, HEADER) + b"x",
    "two_answers": message(BODY, HEADER) * 2,
    "no_binary_length": message(BODY, None),
    "binary_length_zero": message(BODY, 0),
    "binary_length_beyond": message(BODY, len(BODY) + 1),
    "body_too_short": message(BODY[:-1], HEADER),
    "body_too_long": message(BODY + b"\x00", HEADER),
    "json_garbage": message(b"{" * 100, 100),
    "json_deep": message(b"[" * 60_000, 60_000),
    "json_no_outputs": message(b'{"outputs":{}}', 14),
    "json_list": message(b"[]", 2),
    "empty_object": message(b"{}", 2),
    "plain_json_numbers": message(*body_of({})),
    "missing_output": changed(SCORE=None),
    "extra_output": changed(OTHER=np.zeros((2, 1), np.float32)),
    "wrong_rows": changed(SCORE=np.zeros((3, 1), np.float32)),
    "wrong_rank": changed(SCORE=np.zeros(2, np.float32)),
    "wrong_dtype": changed(SCORE=np.zeros((2, 1), np.float64)),
    "nan": changed(SUP_OUT=np.full((2, 2), np.nan)),
    "infinity": changed(MV=np.full((2, 4), np.inf, np.float32)),
    "nan_p": changed(P_VALUE=np.full((2, 1), np.nan)),
    "p_above_one": changed(P_VALUE=np.full((2, 1), 1.5)),
    "negative_p": changed(P_STEP=np.full((2, 2), -0.1)),
    "tier_unknown": changed(TIER=np.full((2, 1), 3, np.int32)),
    "trigger_two": changed(TRIGGER=np.full((2, 1), 2, np.int32)),
    "status_beyond": changed(STATUS=np.full((2, 1), 1 << 24, np.int32)),
    "decoder_unknown": changed(ROUTE=np.full((2, 4), 9, np.float32)),
    "decoder_fraction": changed(ROUTE=np.full((2, 4), 0.5, np.float32)),
    "refusal": message(b'{"error":"[400] shape\\nAt: stack"}', None, status="400 Bad Request"),
    "refusal_garbage": message(b"\xff\xfe", None, status="500 Oops"),
    "refusal_huge": b"HTTP/1.1 500 Oops\r\nContent-Length: 9000000\r\n\r\n",
    "redirect": message(b"", None, status="302 Found", extra="Location: http://example.org/\r\n"),
}


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_hostile_answer_is_a_scoring_error_and_closes_the_connection(case: str) -> None:
    async with serving(always(HOSTILE[case])) as client:
        with pytest.raises(ScoringError) as caught:
            await client.infer(batch(), timeout=60)
        assert not isinstance(caught.value, ScoringTimeout)
        assert "stack" not in caught.value.detail
        assert caught.value.detail.isprintable()


async def test_a_client_recovers_after_garbage() -> None:
    replies = [HOSTILE["garbage"], HOSTILE["two_answers"], good()]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            writer.write(replies.pop(0))
            await writer.drain()

    async with serving(handler) as client:
        for _ in range(2):
            with pytest.raises(ScoringError):
                await client.infer(batch(), timeout=60)
        assert (await client.infer(batch(), timeout=60))["SCORE"].shape == (2, 1)


async def test_no_wait_past_the_deadline_and_the_late_answer_meets_nobody() -> None:
    late = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await late.wait()
        writer.write(good())
        await writer.drain()
        await reader.read()

    async with serving(handler) as client:
        loop = asyncio.get_running_loop()
        started = loop.time()
        # the answer does not come before the call has ended: that it ends is the deadline's doing
        with pytest.raises(ScoringTimeout):
            await asyncio.wait_for(client.infer(batch(), timeout=0.1), 60)
        assert loop.time() - started >= 0.09
        late.set()
        assert (await client.infer(batch(), timeout=60))["SCORE"].shape == (2, 1)


async def test_a_body_that_dribbles_is_cut_at_the_deadline() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for byte in good():
            writer.write(bytes([byte]))
            await asyncio.sleep(0.01)

    async with serving(handler) as client:
        with pytest.raises(ScoringTimeout):
            await client.infer(batch(), timeout=0.1)


async def test_a_truncated_body_then_hang_up_is_unreachable() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(good()[:-10])
        await writer.drain()

    async with serving(handler) as client:
        with pytest.raises(ScoringUnreachable):
            await client.infer(batch(), timeout=60)


async def test_a_reset_on_a_fresh_connection_is_unreachable() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.transport.abort()

    async with serving(handler) as client:
        with pytest.raises(ScoringUnreachable):
            await client.infer(batch(), timeout=60)


async def test_an_idle_connection_that_the_server_closed_is_replaced_silently() -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(good())
        await writer.drain()
        await read_request(reader)  # the second request meets a closing server
        writer.transport.abort()

    async with serving(handler) as client:
        for _ in range(2):
            await client.infer(batch(), timeout=60)
        assert connections == 2


async def test_connection_close_is_obeyed() -> None:
    async with serving(always(message(BODY, HEADER, extra="Connection: close\r\n"))) as client:
        await client.infer(batch(), timeout=60)
        assert client._idle == []
        await client.infer(batch(), timeout=60)


async def test_unsolicited_bytes_on_an_idle_connection_are_never_an_answer() -> None:
    first = True
    asked, sent = asyncio.Event(), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        await read_request(reader)
        writer.write(good())
        if first:
            first = False
            # the first call has its answer and the connection is idle
            await asked.wait()
            writer.write(changed(SCORE=np.ones((2, 1), np.float32)))
        await writer.drain()
        sent.set()
        await reader.read()

    async with serving(handler) as client:
        await client.infer(batch(), timeout=60)
        (idle,) = client._idle
        asked.set()
        await asyncio.wait_for(sent.wait(), 60)
        for _ in range(6000):
            if not idle.open:
                break
            await asyncio.sleep(0.01)
        assert not idle.open
        assert (await client.infer(batch(), timeout=60))["SCORE"].tolist() == [[0.0], [0.0]]


async def test_nobody_listens(unused_tcp_port: int) -> None:
    client = HttpClient(f"http://127.0.0.1:{unused_tcp_port}")
    with pytest.raises(ScoringUnreachable):
        await client.infer(batch(), timeout=60)
    assert not await client.ready(timeout=0.5)


async def test_a_cancelled_call_closes_its_connection() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async with serving(handler) as client:
        task = asyncio.ensure_future(client.infer(batch(), timeout=60))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client._idle == []
        assert client._busy == set()


async def test_more_calls_than_connections_wait_their_turn_within_their_deadline() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            await asyncio.sleep(0.1)
            writer.write(good())

    async with serving(handler) as client:
        calls = [client.infer(batch(), timeout=60) for _ in range(4)] + [client.infer(batch(), timeout=0.02)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(o, dict) for o in outcomes[:4])
        assert isinstance(outcomes[4], ScoringTimeout)


async def test_close_fails_calls_under_way_and_later_ones() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(handler) as client:
        task = asyncio.ensure_future(client.infer(batch(), timeout=60))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(ScoringUnreachable):
            await task
        with pytest.raises(ScoringUnreachable):
            await client.infer(batch(), timeout=60)


async def test_the_callers_mistakes_are_value_errors_and_send_nothing() -> None:
    async with serving(always(good())) as client:
        tensors = batch()
        with pytest.raises(ValueError, match="TRACE as FP32"):
            await client.infer({**tensors, "TRACE": tensors["TRACE"].astype(np.float64)}, timeout=1)
        with pytest.raises(ValueError, match="takes"):
            await client.infer({k: v for k, v in tensors.items() if k != "SUP"}, timeout=1)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x:1", "http://", "http://host:8000/v2"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no http"):
        connect(url)


def test_connect_knows_both_transports() -> None:
    clients: list[InferenceClient] = [connect("http://127.0.0.1:8000"), connect("grpc://127.0.0.1:8001")]
    assert [type(c).__name__ for c in clients] == ["HttpClient", "GrpcClient"]


def test_it_runs_on_uvloop_whose_transports_are_of_another_class() -> None:
    async def ask() -> Tensors:
        async with serving(always(good())) as client:
            return await client.infer(batch(), timeout=60)

    loop = uvloop.new_event_loop()
    try:
        assert loop.run_until_complete(ask())["P_VALUE"].tolist() == [[0.0], [0.125]]
    finally:
        loop.close()
