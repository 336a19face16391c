"""Servers for the proxy's tests: an upstream that speaks bytes, a scripted model, and the proxy before them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry, generate_latest

from tcd.client import Decision, Route
from tcd.demo.openai_api import Api, Asked, Piece
from tcd.proxy import Judge, Limits, Options, Policies, ProxyMetrics, ProxyMiddleware, Rewriting, Upstream, Watching
from tcd.spotlight import Policy

WAIT = 60.0


class Conversation:
    """One connection to the raw upstream."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(WAIT)

    def request(self) -> bytes:
        """A request as it came: head and body, framing included."""
        return read_message(self.connection)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def gone(self) -> bool:
        """Wait until the peer closes."""
        try:
            while self.connection.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        return True


def read_message(connection: socket.socket, *, head_only: bool = False) -> bytes:
    """A message as it comes: head and body, framing included; what there is when the peer closes."""
    data = b""
    while not (b"\r\n\r\n" in data and (head_only or _complete(data))):
        chunk = connection.recv(1 << 16)
        if not chunk:
            return data
        data += chunk
    return data


def _complete(data: bytes) -> bool:
    head, _, body = data.partition(b"\r\n\r\n")
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        return body == b"0\r\n\r\n" or body.endswith(b"\r\n0\r\n\r\n")
    if (found := re.search(rb"content-length: *(\d+)", lower)) is not None:
        return len(body) >= int(found[1])
    # an answer without a length ends with the connection, a request with its head
    return not head.startswith(b"HTTP/") or b" 204 " in head.partition(b"\r\n")[0]


def split(message: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """Start line, fields with names in lower case, and the body without its chunks."""
    head, _, body = message.partition(b"\r\n\r\n")
    start, *lines = head.split(b"\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    if (b"transfer-encoding", b"chunked") in fields:
        body = dechunked(body)
    return start, fields, body


def dechunked(body: bytes) -> bytes:
    out = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return out
        out, body = out + body[:length], body[length + 2 :]
    msg = "no last chunk"
    raise AssertionError(msg)


@contextlib.contextmanager
def raw_upstream(script: Callable[[Conversation], None]) -> Iterator[str]:
    """A server that runs `script` for each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    over = threading.Event()
    open_: list[socket.socket] = []
    failures: list[BaseException] = []

    def talk(connection: socket.socket) -> None:
        try:
            with connection:
                script(Conversation(connection))
        except OSError:
            if not over.is_set():
                raise
        except BaseException as error:
            failures.append(error)
            raise

    def accept() -> None:
        threads = []
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                open_.append(connection)
                threads.append(threading.Thread(target=talk, args=(connection,), daemon=True))
                threads[-1].start()
        for connection in open_:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(WAIT)

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        accepting.join(WAIT)
        listener.close()
    assert not failures


@contextlib.contextmanager
def serving(app: Any, close: Callable[[], Coroutine[Any, Any, None]] | None = None) -> Iterator[str]:
    """An ASGI application on a free port, in a thread with a loop of its own; `close` runs there in the end."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        config = uvicorn.Config(
            app,
            ws="none",
            access_log=False,
            log_config=None,
            lifespan="off",
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=5,
        )
        server = uvicorn.Server(config)

        async def work() -> None:
            await server.serve(sockets=[sock])
            if close is not None:
                await close()

        thread = threading.Thread(target=uvloop.run, args=(work(),), daemon=True)
        thread.start()
        until = time.monotonic() + WAIT
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < until
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(WAIT)
            assert not thread.is_alive()


class ScriptedEngine:
    """Says the words of the prompt again, each with a log-probability that tells which prompt it was."""

    def __init__(self, *, wait: threading.Event | None = None) -> None:
        self.wait = wait
        self.prompts: list[str] = []

    def generate(self, prompt: str, asked: Asked) -> Iterator[Piece]:
        self.prompts.append(prompt)
        words = re.findall(r"[a-z0-9]+", prompt.rpartition("say:")[2].partition("<|im_end|>")[0])
        for at, word in enumerate(words[: asked.max_tokens]):
            if self.wait is not None and at == 1:
                assert self.wait.wait(WAIT)
            number = int(re.sub(r"\D", "", word) or 0)
            yield Piece(f"{word} ", -1.0 - number, [(word, -0.1), ("other", -3.0)][: asked.top])


@dataclass
class Proxied:
    """A proxy that runs."""

    url: str
    metrics: ProxyMetrics
    engine: ScriptedEngine | None = None

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def counted(self, sample: str) -> float:
        """A sample of the metrics by its line up to the value; 0 when it is not there."""
        for line in generate_latest(self.metrics.registry).decode().splitlines():
            if line.startswith(sample + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    def until(self, sample: str, least: float) -> float:
        until = time.monotonic() + WAIT
        while (found := self.counted(sample)) < least:
            assert time.monotonic() < until, sample
            time.sleep(0.01)
        return found

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(self.address, WAIT) as connection:
            connection.sendall(request)
            return read_message(connection)


@dataclass
class Setup:
    """What a proxy is made of."""

    policy: Policy = field(default_factory=Policy)
    policies: Policies | None = None
    watching: Callable[[ProxyMetrics], Watching] | None = None
    limits: Limits = field(default_factory=Limits)
    options: Options = field(default_factory=Options)
    via: str | None = "tcd"
    logs: Any = None


@contextlib.contextmanager
def proxying(upstream: str, setup: Setup | None = None) -> Iterator[Proxied]:
    setup = setup or Setup()
    metrics = ProxyMetrics(CollectorRegistry())
    rewriting = Rewriting(
        setup.policies or Policies(setup.policy),
        key=b"k" * 32,
        random=os.urandom,
        metrics=metrics,
        logs=setup.logs,
        seconds=30.0,
    )
    forward = Upstream(upstream, metrics=metrics, limits=setup.limits, via=setup.via)
    app = ProxyMiddleware(
        forward,
        rewriting=rewriting,
        metrics=metrics,
        watching=None if setup.watching is None else setup.watching(metrics),
        options=setup.options,
    )

    async def close() -> None:
        await app.close()
        await forward.close()

    with serving(app, close) as url:
        yield Proxied(url, metrics)


@contextlib.contextmanager
def scripted(setup: Setup | None = None, *, wait: threading.Event | None = None) -> Iterator[Proxied]:
    """A proxy before the scripted model."""
    engine = ScriptedEngine(wait=wait)
    with serving(Api(engine).app()) as upstream, proxying(upstream, setup) as proxied:
        proxied.engine = engine
        yield proxied


def decided(**changes: Any) -> Decision:
    """A decision that lets a generation go on, with changes."""
    members: dict[str, Any] = {
        "verdict": False, "score": 0.1, "threshold": 0.9, "budget_remaining": 0.05, "alpha_alloc": 0.01,
        "alpha_spent": 0.0, "alpha_wealth": 0.05, "e_value": 1.0, "e_value_log10": 0.0, "e_process": 1.0,
        "alarm": False, "alarm_threshold": 20.0, "trigger": False, "p_value": 0.5, "p_floor": 0.001,
        "components": {}, "step": 0, "cause": "", "action": "allow", "enforced": "allow",
        "route": Route(temperature=1.0, top_p=1.0, decoder="sample", max_tokens=0, tags=[], tier="0", route_id=""),
        "guarantee": "none", "unit": "session", "epoch": 0, "checks": [], "request_id": "r", "policy_ref": "p",
        "config_hash": "c", "calibration": {}, "receipt": "ab" * 32,
    }  # fmt: skip
    return Decision(**{**members, **changes})


BLOCKED = {"verdict": True, "trigger": True, "action": "block", "enforced": "block", "cause": "av"}


class FakeShim:
    """Decides what a test says, and remembers what it was asked."""

    def __init__(self, decide: Callable[[dict[str, Any]], Decision | Exception] = lambda _: decided()) -> None:
        self._decide = decide
        self.asked: list[dict[str, Any]] = []

    async def diagnose(self, **members: Any) -> Decision:
        await asyncio.sleep(0)
        self.asked.append(members)
        answer = self._decide(members)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def traces(self) -> dict[str, list[float]]:
        """Everything that was sent of each session."""
        out: dict[str, list[float]] = {}
        for members in self.asked:
            out.setdefault(members["session"], []).extend(members["trace_vector"])
        return out

    def watching(self, **options: Any) -> Callable[[ProxyMetrics], Watching]:
        """What a proxy is given to ask this shim."""
        judged = {name: options.pop(name) for name in ("entropies", "pause") if name in options}

        def make(metrics: ProxyMetrics) -> Watching:
            return Watching(Judge(self, metrics=metrics, deadline=WAIT, **judged), **options)

        return make
