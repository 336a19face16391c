"""What `tcd proxy` adds to a request: the same requests to an upstream directly, in shadow mode and marked.

`python -m tcd.bench.proxy`: all on one machine over loopback, one request at a time, the three ways in turn, so that
load from elsewhere hits them alike. Medians with 95 % intervals by order statistics.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

_WAIT: Final = 60.0
_EVENT: Final = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
_EVENTS: Final = 64
_ANSWER: Final = json.dumps({"id": "c", "object": "chat.completion", "choices": []}).encode()
WAYS: Final = ("direct", "shadow", "active")


async def upstream(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that answers at once: events for a request that says `stream`, else one document."""
    assert scope["type"] == "http"  # noqa: S101 - for the type checker: without lifespan there is nothing else
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    stream = json.loads(body)["stream"]
    media = b"text/event-stream" if stream else b"application/json"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", media)]})
    if stream:
        for _ in range(_EVENTS):
            await send({"type": "http.response.body", "body": _EVENT, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if stream else _ANSWER})


def serve_upstream() -> None:
    """Serve `upstream` and print where."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as sock:
        print(f"upstream  http://127.0.0.1:{sock.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(upstream, access_log=False, log_config=None, lifespan="off")).run(sockets=[sock])


@contextlib.contextmanager
def _process(pattern: str, *arguments: str) -> Iterator[str]:
    """A program of this environment; the URL that it prints."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TCD_")}
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True) as running:
        try:
            assert running.stdout is not None  # noqa: S101 - for the type checker: piped
            found = None
            for line in running.stdout:
                if (found := re.match(pattern, line)) is not None:
                    break
            if found is None:
                msg = f"{' '.join(arguments)} ended"
                raise RuntimeError(msg)
            yield found[1]
        finally:
            running.terminate()
            running.wait(_WAIT)


def request(size: int, *, stream: bool) -> bytes:
    """A chat of about `size` bytes, most of them the result of a tool."""
    text = "The quick brown fox jumps over 13 lazy dogs. " * math.ceil(size / 45)
    messages = [{"role": "user", "content": "Sum up."}, {"role": "tool", "tool_call_id": "c", "content": text[:size]}]
    return json.dumps({"model": "m", "stream": stream, "messages": messages}).encode()


def once(connection: http.client.HTTPConnection, body: bytes) -> tuple[float, float]:
    """Milliseconds to the first byte of an answer's body, and to its end."""
    began = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    reply.read(1)
    first = time.perf_counter()
    reply.read()
    return (first - began) * 1e3, (time.perf_counter() - began) * 1e3


def median(values: list[float]) -> tuple[float, float, float]:
    """Median and its 95 % interval (order statistics, normal approximation of the binomial)."""
    ordered, n = sorted(values), len(values)
    half = 0.98 * math.sqrt(n)
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return ordered[n // 2], ordered[low], ordered[high]


def measure(count: int) -> list[dict[str, Any]]:
    """One row per kind of request and way."""
    rows = []
    with (
        _process(r"upstream +(\S+)", "tcd.bench.proxy", "--upstream") as direct,
        _process(r"proxy +(\S+)", "tcd.cli.main", "proxy", "--port", "0", "--upstream", direct) as shadow,
        _process(r"proxy +(\S+)", "tcd.cli.main", "proxy", "--port", "0", "--upstream", direct, "--active") as active,
    ):
        urls = dict(zip(WAYS, (direct, shadow, active), strict=True))
        for name, size, stream in (("2 KiB", 2048, False), ("16 KiB", 16384, False), ("2 KiB, 64 events", 2048, True)):
            body = request(size, stream=stream)
            times: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            connections = {way: http.client.HTTPConnection(urls[way].removeprefix("http://")) for way in WAYS}
            for number in range(count + 10):
                for way in WAYS:
                    took = once(connections[way], body)
                    # the first ones open connections
                    if number >= 10:  # noqa: PLR2004
                        times[way].append(took)
            for connection in connections.values():
                connection.close()
            for way, found in times.items():
                first, whole = median([f for f, _ in found]), median([w for _, w in found])
                p99 = sorted(w for _, w in found)[math.ceil(0.99 * len(found)) - 1]
                rows.append({"request": name, "way": way, "first": first, "whole": whole, "p99": p99})
    return rows


def table(rows: list[dict[str, Any]], count: int) -> str:
    """The rows as Markdown."""
    lines = [
        f"Milliseconds, {count} requests each way.",
        "",
        "| request | way | first byte, median | whole, median | whole, p99 |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        (f, f_low, f_high), (w, w_low, w_high) = row["first"], row["whole"]
        lines.append(
            f"| {row['request']} | {row['way']} | {f:.2f} ({f_low:.2f} to {f_high:.2f}) "
            f"| {w:.2f} ({w_low:.2f} to {w_high:.2f}) | {row['p99']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What tcd proxy adds to a request.")
    parser.add_argument("--count", type=int, default=1000, help="requests each way")
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.upstream:
        serve_upstream()
        return
    print(table(measure(arguments.count), arguments.count))


if __name__ == "__main__":
    main()
